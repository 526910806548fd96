"""The continuation loop as a pure state machine: no clock, no network, no database.

It is told what was asked, what a model can take and what came of each call; it answers what to do
next. The caller makes the calls, feeds their text through it, and saves what it gives back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runner.continuation import prefill, turn
from runner.continuation.document import GrowingDocument
from runner.continuation.endings import CUT_FOR_GOOD, GO_ON, ending
from runner.continuation.steps import CannotContinue, Finished, PastCall, Plan, Send, Splice, Step
from runner.continuation.text import Intake
from runner.jobs.call import CallOutcome, Strategy, Verdict
from runner.jobs.spec import JobSpec, OnUnverifiedSeam
from runner.jobs.states import Finish
from runner.jobs.traits import ModelTraits

_MODULES = {Strategy.PREFILL: prefill, Strategy.TURN: turn}
IDLE_LIMIT = 2  # answers in a row that bring the document no further: it is stalled


def choose(spec: JobSpec, traits: ModelTraits) -> Strategy:
    """The strategy for a job: its own word, else what its model and its request allow."""
    if spec.continuation.strategy is not None:
        return spec.continuation.strategy
    thinks = spec.thinking is not None and spec.thinking.get("type") != "disabled"
    return Strategy.PREFILL if traits.prefill and not thinks else Strategy.TURN


class ContinuationLoop:
    """Decides, call by call, how one job's document goes on.

    Ask `next_step`; for a `Send`, call `begin`, `feed` each piece of the stream, `end` with the
    outcome, and save what these give back; ask again.

    Args:
        spec: the job.
        traits: what its model takes, behind its endpoint.
        past: the job's earlier calls in order, the interrupted ones too.
    """

    def __init__(self, spec: JobSpec, traits: ModelTraits, past: Iterable[PastCall] = ()) -> None:
        self.spec = spec
        self.traits = traits
        self.document = GrowingDocument()
        self.calls = 0  # made, broken ones too
        self._answered = 0  # ended with a stop reason
        self._output_tokens = 0  # paid for so far
        self._idle = 0  # answers in a row without progress
        self._resumed_at = 0  # the open or last call's resume point
        self._last: CallOutcome | None = None  # of the last call; None: none yet, or it broke
        self._splice: Splice = Intake()
        self._rejections = 0  # replies in a row that did not go on with the document
        self._strategy = choose(spec, traits)
        for call in past:
            self._attach(call.resume_at)
            self.document.add(call.text)
            self._ended(call.outcome, rejected=call.rejected)

    def next_step(self) -> Step:
        """What to do next."""
        if self._last is not None and (end := ending(self._last, self.document, self.spec)):
            return end
        if bound := self._bound_reached():
            return bound
        plan = self._plan()
        if isinstance(plan, CannotContinue):
            return plan
        return Send(self.calls + 1, plan, self._max_tokens())

    def request(self, send: Send) -> dict[str, Any]:
        """The body of the request for `send`, in the API's form."""
        spec = self.spec
        optional = {
            "system": list(spec.system) if isinstance(spec.system, tuple) else spec.system,
            "stop_sequences": list(spec.stop_sequences) or None,
            "thinking": spec.thinking,
            "output_config": spec.output_config,
        }
        return {
            **spec.params,
            "model": spec.model,
            "max_tokens": send.max_tokens,
            "messages": list(send.plan.messages),
            **{key: value for key, value in optional.items() if value is not None},
        }

    def begin(self, send: Send) -> None:
        """The call is about to be made: its text attaches at the plan's resume point."""
        self._attach(send.plan.resume_at)
        self._splice = send.plan.splice

    def feed(self, piece: str) -> str:
        """Take a piece of the stream; gives back the text to save, which may be empty."""
        text = self._splice.feed(piece)
        self.document.add(text)
        return text

    @property
    def verdict(self) -> Verdict | None:
        """What is known of the open or last call's seam."""
        return self._splice.verdict

    @property
    def rejected(self) -> str | None:
        """The open or last call's text, where its reply is rejected: the stream may be closed."""
        return self._splice.rejected

    def end(self, outcome: CallOutcome) -> str:
        """The open call ended; gives back the rest of the text to save.

        An outcome without a stop reason is that of a broken call.
        """
        text = self._splice.end(cut=outcome.stop_reason in (None, *GO_ON))
        self.document.add(text)
        self._ended(outcome, rejected=self.rejected is not None)
        return text

    def _ended(self, outcome: CallOutcome | None, *, rejected: bool) -> None:
        """Count what came of a call."""
        gained = self._resume_point() > self._resumed_at
        if rejected:
            self._rejections += 1
        elif gained:
            self._rejections = 0
        self._last = None
        if outcome is None:
            return
        self._output_tokens += outcome.usage.output_tokens
        if outcome.stop_reason is None:
            return
        self._answered += 1
        if rejected and outcome.stop_reason not in CUT_FOR_GOOD:
            return  # how a reply ends that does not belong to the document says nothing about it
        self._last = outcome
        self._idle = 0 if gained else self._idle + 1

    def _bound_reached(self) -> Finished | None:
        bounds = self.spec.continuation
        if self._idle >= IDLE_LIMIT:
            return Finished(
                Finish.STALLED, f"{self._idle} answers in a row brought the document no further"
            )
        if self._answered >= bounds.max_calls:
            return Finished(Finish.MAX_CALLS, f"max_calls {bounds.max_calls} reached")
        if self._tokens_left() == 0:
            return Finished(
                Finish.MAX_OUTPUT_TOKENS, f"max_output_tokens {bounds.max_output_tokens} reached"
            )
        return None

    def _tokens_left(self) -> int | None:
        bound = self.spec.continuation.max_output_tokens
        return None if bound is None else max(0, bound - self._output_tokens)

    def _attach(self, resume_at: int) -> None:
        self.calls += 1
        self._resumed_at = resume_at
        self.document.attach(resume_at)

    def _resume_point(self) -> int:
        if self.calls and len(self.document) == self._resumed_at:
            return self._resumed_at  # nothing came since: it is one already
        at: int = _MODULES[self._strategy].resume_point(self.document, self.spec)
        return at

    def _plan(self) -> Plan | CannotContinue:
        """How to go on; a document without a single fit character is begun (again)."""
        if self._resume_point() == 0:
            return Plan(None, 0, self.spec.messages, Intake())
        if self._strategy is Strategy.PREFILL:
            return prefill.plan(self.spec, self.traits, self.document)
        bounds = self.spec.continuation
        if self._rejections > bounds.seam_retries:
            return CannotContinue(
                f"in {self._rejections} tries the model did not go on with the document"
            )
        flagged = bounds.on_unverified_seam is OnUnverifiedSeam.FLAG
        return turn.plan(
            self.spec,
            self.traits,
            self.document,
            accept_unverified=flagged and self._rejections == bounds.seam_retries,
        )

    def _max_tokens(self) -> int:
        """Tokens to ask for: as the job says; more after an answer that brought nothing, since a
        small max_tokens can end inside a run of white space for ever; never past a bound."""
        asked = self.spec.max_tokens or self.traits.max_output_tokens
        more: int = asked << self._idle
        wanted = min(more, max(asked, self.traits.max_output_tokens))
        left = self._tokens_left()
        return wanted if left is None else min(wanted, left)
