"""One job's part in finding out how a model answers a prefill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.jobs.call import Strategy
from runner.jobs.traits import PrefillAnswer
from runner.messages.errors import CallError, ErrorKind
from runner.workers.models import Models


class PrefillTrial:
    """Lets the first prefill of an unknown model go alone, and remembers what comes of it.

    While it runs, others of the same model wait for it: a refusal is met once, and not once a job.

    Args:
        notice: told what the user should know, in words.
    """

    def __init__(self, models: Models, notice: Callable[[str], None]) -> None:
        self._models = models
        self._notice = notice
        self._held: asyncio.Lock | None = None

    @property
    def runs(self) -> bool:
        """Whether the call that is open is the one that finds out."""
        return self._held is not None

    async def asks_for_another_plan(self, loop: ContinuationLoop, send: Send) -> bool:
        """Begin the trial, or wait for another job's; may be cancelled at any time.

        True where what was found out meanwhile asks for another plan: by `turn`, or without
        looking out for an answer begun afresh.
        """
        model = loop.spec.model
        if send.plan.strategy is not Strategy.PREFILL:
            return False
        answer = self._models.answer(model)
        if answer is None:
            trial = self._models.trial(model)
            await trial.acquire()
            self._held = trial
            answer = await self._models.recall(model)
            if answer is not None:
                self.end()
        if answer is PrefillAnswer.TAKEN:
            return loop.traits.may_restart
        return answer is not None and loop.spec.continuation.strategy is None

    async def taken(self, model: str) -> None:
        """The model goes on from the prefill: nobody need wait for the end of the call."""
        await self._models.learn(model, PrefillAnswer.TAKEN)
        self.end()

    async def answer(
        self, loop: ContinuationLoop, send: Send, error: CallError | None
    ) -> PrefillAnswer | None:
        """How the model answered a prefill, remembered for all; None where the call did not show."""
        if send.plan.strategy is not Strategy.PREFILL:
            return None
        if error is not None and error.kind is ErrorKind.PREFILL_REFUSED:
            answer, words = PrefillAnswer.REFUSED, "takes no prefill"
        elif loop.rejected is not None:
            answer, words = PrefillAnswer.RESTARTED, "begins afresh after a prefill"
        else:
            return None
        model = loop.spec.model
        if await self._models.learn(model, answer):
            self._notice(f"{model} {words}; its documents go on by `turn`")
        return answer

    def end(self) -> None:
        """Let others of this model go on."""
        if self._held is not None:
            self._held.release()
            self._held = None
