"""One claimed job, from its claim to its settlement: the continuation loop put to work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

import anyio

from runner import faults
from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, PastCall, Send, Step
from runner.errors import BudgetReached, ClaimLost, CoolingDown, StoreError
from runner.jobs.call import CallOutcome, Strategy, Verdict
from runner.jobs.states import State
from runner.jobs.traits import ModelTraits, PrefillAnswer
from runner.messages.client import MessagesClient
from runner.messages.errors import CallError, ErrorKind
from runner.store.records import Claim, LoadedJob, SavedCall, Settlement
from runner.store.store import Store
from runner.workers import judgement
from runner.workers.caching import Caching, Marked
from runner.workers.calling import Calling
from runner.workers.checkpoint import Saver
from runner.workers.models import Models
from runner.workers.money import Money
from runner.workers.needs import Needs
from runner.workers.pacing import Pacing, Permit, Rest
from runner.workers.prefill_trial import PrefillTrial
from runner.workers.progress import LAST_WORDS, LiveJob, Progress
from runner.workers.settings import WorkerSettings

log = logging.getLogger(__name__)

# A stop must be over within 5 seconds: what the store cannot take by then, the next start redoes.
HAND_BACK_S = 4.0


class Interruption(StrEnum):
    """Why a running job was told to let go."""

    STOP = "stopped by the user"
    LEASE = "the process could not renew its lease in time"
    CLAIM_LOST = "another worker holds the job"


@dataclass(frozen=True, slots=True)
class Workplace:
    """What all jobs of one process share.

    Args:
        max_attempts: of a batch, by its key.
        batch_name: of a batch, by its key.
    """

    store: Store
    client: MessagesClient
    models: Models
    needs: Needs
    caching: Caching
    pacing: Pacing
    money: Money
    progress: Progress
    settings: WorkerSettings
    random: Random
    max_attempts: Callable[[int], int]
    batch_name: Callable[[int], str]


class JobRun:
    """Runs one claimed job until it is settled, interrupted, or its claim is lost."""

    def __init__(self, claim: Claim, workplace: Workplace) -> None:
        self.claim = claim
        self._place = workplace
        # Why its batch is paused: the call that runs goes on to its end, and no other is begun.
        self.paused: str | None = None
        self.in_call = False  # a call was begun and not yet ended: its cost is set aside
        self.settling = False  # it makes no call any more
        self._interrupted: Interruption | None = None
        self._scope: anyio.CancelScope | None = None
        self._trial = PrefillTrial(workplace.models, workplace.progress.notice)
        self._progressed = False  # text was saved in this run
        self._spent_nano_usd = 0  # on the document's calls, as far as they count
        self._savers: list[Saver] = []  # the open call's, or one that saved text

    @property
    def proven(self) -> bool:
        """Whether some text was committed: if the process dies now, the job is counted anew."""
        return any(saver.saved_any for saver in self._savers)

    def interrupt(self, why: Interruption) -> None:
        """Let go of the job soon: what has streamed in is saved, no further call is made."""
        self._interrupted = self._interrupted or why
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """Work on the job.

        Raises:
            StoreError: the database can take nothing more; the process must stop.
        """
        try:
            loaded = await self._place.store.load(self.claim)
            faults.hit("job.loaded")
            await self._go_on(loaded)
        except ClaimLost:
            log.info("job %s: the claim is lost, nothing more is written", self.claim.job_id)
        except StoreError:
            raise
        except Exception as bug:
            # One job that meets a fault of ours must not end the night for all the others.
            log.exception("job %s: a fault in the program", self.claim.job_id)
            await self._let_go(
                Settlement(
                    State.DISCARDED,
                    error=f"a fault in the program: {bug!r:.200}",
                    error_name=f"a fault in the program, {type(bug).__name__}",
                )
            )
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(HAND_BACK_S, shield=True):
                await self._let_go(judgement.HANDED_BACK)
            raise
        finally:
            self._place.progress.live.pop(self.claim.job_key, None)
            self._place.caching.left(self.claim)
            self._place.pacing.left(self.claim)

    async def _go_on(self, loaded: LoadedJob) -> None:
        while await self._write(loaded):
            loaded = await self._place.store.load(self.claim)

    async def _write(self, loaded: LoadedJob) -> bool:
        """Make calls until the job is settled: False; or until another strategy is to take over."""
        place, spec = self._place, loaded.spec
        traits = await self._traits(spec.model)
        loop = ContinuationLoop(
            spec, traits, [_past(call, loaded.counted_from) for call in loaded.calls]
        )
        place.caching.resumed(self.claim, loaded.calls)
        next_seq = loaded.next_seq
        self._spent_nano_usd = sum(
            call.cost_nano_usd or 0 for call in loaded.calls if call.number > loaded.counted_from
        )
        step = loop.next_step()
        while isinstance(step, Send):
            self.in_call = False
            if let_go := self._to_let_go():
                await self._settle(let_go)
                return False
            calling: Calling | None = None
            try:
                with self._interruptible():
                    if await self._trial.asks_for_another_plan(loop, step):
                        return True
                if full := await self._no_room(loop, step):
                    await self._settle(judgement.of_end(full))
                    return False
                if self._scope is not None and self._scope.cancel_called:
                    continue
                ready = await self._prepare(loop, step)
                if isinstance(ready, Settlement):
                    await self._settle(ready)
                    return False
                calling = ready
                try:
                    call_key = await self._begin(calling, loop, step)
                except CoolingDown as cooling:
                    place.pacing.cooling(self.claim, cooling)
                    continue
                except BudgetReached as reached:
                    await self._out_of_budget(reached)
                    return False
                self.in_call = True
                saver = self._saver(call_key, next_seq)
                if not self.proven:
                    self._savers = [saver]
                error, outcome = await self._stream(loop, calling, saver)
                calling = None
                answer = await self._trial.answer(loop, step, error)
            finally:
                if calling is not None:
                    calling.given_up()
                self._trial.end()
            next_seq = saver.next_seq
            faults.hit("call.before_end")
            refused = answer is not None and answer is not PrefillAnswer.TAKEN
            if refused and spec.continuation.strategy is None:
                await place.store.end_call(self.claim, call_key, outcome)
                return True
            step = loop.next_step()
            restarted = answer is PrefillAnswer.RESTARTED
            settlement = judgement.RESTARTED if restarted else await self._settlement(step, error)
            if settlement is None:
                await place.store.end_call(self.claim, call_key, outcome)
                faults.hit("call.ended")
                continue
            faults.hit("settle.before")
            self.settling = True
            # One transaction: a job is never seen whole and unsettled.
            await place.store.end_call_and_settle(self.claim, call_key, outcome, settlement)
            return False
        await self._settle(judgement.of_end(step))
        return False

    def _interruptible(self) -> anyio.CancelScope:
        """A scope that an interruption cancels."""
        scope = self._scope = anyio.CancelScope()
        if self._interrupted is not None:
            scope.cancel()
        return scope

    async def _traits(self, model: str) -> ModelTraits:
        """What the model takes; what the table says, should a stop come before the API answers."""
        with self._interruptible():
            return await self._place.models.traits(model)
        return self._place.client.traits(model)

    async def _no_room(self, loop: ContinuationLoop, send: Send) -> Finished | None:
        """The end of a document that fills the context window, found before a call is paid for:
        near it the API is asked to count, which is free."""
        if not send.near_window:
            return None
        with self._interruptible():
            tokens = await self._place.client.count_tokens(loop.request(send))
            return None if tokens is None else loop.counted(send, tokens)
        return None

    async def _prepare(self, loop: ContinuationLoop, send: Send) -> Calling | Settlement:
        """Everything a call wants before it is made: its request as it is sent, its leave to
        start, its price; or how the job is handed back, where it may not start (soon)."""
        place, claim = self._place, self.claim
        body = loop.request(send)
        need = await place.needs.of(claim, loop, send, body)
        marked: Marked | None = None
        permit: Permit | None = None
        try:
            with self._interruptible():
                marked = await place.caching.prepare(claim, loop, send, body, need)
                leave = await place.pacing.enter(
                    claim,
                    need,
                    marked,
                    begun=len(loop.document) > 0,
                    let_go=lambda: self._to_let_go() is not None,
                )
                if isinstance(leave, Rest):
                    return self._to_let_go() or judgement.at_rest(leave.seconds)
                permit = leave
                price = place.money.price(claim, loop.spec)
                start = place.money.start(
                    claim, loop, send, need, marked, permit.limit_key, price, self._spent_nano_usd
                )
                if isinstance(start, Finished):
                    return judgement.of_end(start)
                calling = Calling(need, marked, permit, start, price)
                marked = permit = None  # they are the call's from here on
                return calling
            return self._to_let_go() or judgement.HANDED_BACK
        finally:
            if permit is not None:
                permit.close(None)
            if marked is not None:
                marked.close()

    async def _begin(self, calling: Calling, loop: ContinuationLoop, send: Send) -> int:
        faults.hit("call.before_begin")
        start = replace(
            calling.start,
            beginnings=calling.marked.beginnings,
            probe_ms=calling.permit.probe_ms,
        )
        call_key = await self._place.store.begin_call(self.claim, start)
        loop.begin(send)
        progress = self._place.progress
        progress.calls += 1
        progress.live[self.claim.job_key] = LiveJob(
            job_id=self.claim.job_id,
            batch=self._place.batch_name(self.claim.batch_key),
            call_number=send.number,
            characters=len(loop.document),
            last_words=loop.document.tail(LAST_WORDS),
        )
        return call_key

    async def _out_of_budget(self, reached: BudgetReached) -> None:
        """The batch's budget has no room for the next call: the job waits, at no cost."""
        if reached.paused:
            batch = self._place.batch_name(self.claim.batch_key)
            self._place.progress.notice(f"{batch} is paused: {reached.reason}")
        await self._settle(judgement.out_of_budget(reached))

    async def _stream(
        self, loop: ContinuationLoop, calling: Calling, saver: Saver
    ) -> tuple[CallError | None, CallOutcome]:
        """Make the call and save what streams in, whatever becomes of it."""
        place = self._place
        error: CallError | None = None
        outcome = CallOutcome(None)
        with self._interruptible():
            try:
                faults.hit("request.before")
                calling.permit.check()
                async with place.client.stream(
                    calling.marked.body, calling, gather_s=saver.checkpoint_s
                ) as stream:
                    try:
                        async for piece in stream:
                            self._take(loop.feed(piece), saver, loop.verdict, calling)
                            if stream.gathered:
                                saver.gathered()
                            if self._trial.runs and loop.verdict is Verdict.EXACT:
                                await self._trial.taken(loop.spec.model)
                            if loop.closed is not None:
                                break  # nothing that follows can belong to the document
                            if saver.overfull:
                                await saver.drain()
                    finally:
                        outcome = stream.outcome
            except CallError as broken:
                error = broken
                calling.permit.failed(broken)
            finally:
                self._scope = None
                faults.hit("stream.ended")
                outcome = self._explained(outcome, error, loop)
                with anyio.move_on_after(HAND_BACK_S, shield=True):
                    self._take(loop.end(outcome), saver, loop.verdict, calling)
                    await saver.drain()
        outcome = replace(outcome, verdict=loop.verdict, rejected=loop.rejected)
        outcome = calling.ended(outcome, place.money, error)
        self._spent_nano_usd += outcome.charge.cost_nano_usd or 0
        if words := place.money.beyond(self.claim, calling.start, outcome):
            place.progress.notice(f"job {self.claim.job_id}: {words}")
        return error, outcome

    def _explained(
        self, outcome: CallOutcome, error: CallError | None, loop: ContinuationLoop
    ) -> CallOutcome:
        """The outcome, with a word for why there is no stop reason where there is none."""
        if outcome.stop_reason is not None or outcome.error is not None:
            return outcome
        if error is not None:
            return replace(
                outcome, error=str(error), request_id=outcome.request_id or error.request_id
            )
        if loop.closed is not None:
            return replace(outcome, error=f"closed: {loop.closed}")
        return replace(outcome, error=str(self._interrupted or "the process was stopped"))

    def _take(self, text: str, saver: Saver, verdict: Verdict | None, calling: Calling) -> None:
        if not text:
            return
        calling.kept_characters += len(text)
        if verdict is not None:
            saver.judge(verdict)
        if not saver.counted:
            saver.count(calling.so_far(self._place.settings.checkpoint_s))
        self._progressed = True
        saver.add(text)
        progress = self._place.progress
        progress.output_characters += len(text)
        if live := progress.live.get(self.claim.job_key):
            live.add(text)

    def _saver(self, call_key: int, next_seq: int) -> Saver:
        settings = self._place.settings
        if self.claim.rescues and not self.proven:
            # Its process died with it before: the first text clears it, so that goes to the disk
            # at once, lest kills in quick succession cost an innocent job its last rescue.
            settings = replace(settings, checkpoint_s=0)
        return Saver(
            self._place.store,
            self.claim,
            call_key,
            next_seq,
            settings,
            failed=lambda _: self.interrupt(Interruption.CLAIM_LOST),
        )

    async def _settlement(self, step: Step, error: CallError | None) -> Settlement | None:
        """What becomes of the job after a call; None: it goes on with the next step."""
        if error is not None:
            return await self._after_error(error)
        if not isinstance(step, Send):
            return judgement.of_end(step)
        return self._to_let_go()

    def _to_let_go(self) -> Settlement | None:
        """How the job is handed back before its next call; None: it goes on."""
        if self._interrupted is not None:
            return judgement.HANDED_BACK
        return None if self.paused is None else judgement.paused(self.paused)

    async def _after_error(self, error: CallError) -> Settlement:
        place = self._place
        down_s = None
        if error.kind is ErrorKind.RETRY:
            down_s = await place.pacing.failed(self.claim, error)
        settlement = judgement.of_error(
            error,
            attempt=self.claim.attempt,
            max_attempts=place.max_attempts(self.claim.batch_key),
            progress=self._progressed,
            down_s=down_s,
            random=place.random,
        )
        if error.kind is ErrorKind.RATE_LIMIT:
            seconds = settlement.delay_ms / 1000
            if await place.pacing.limited(self.claim, error, seconds):
                place.progress.notice(
                    f"{self.claim.model}: rate limit, no calls for {seconds:.0f} s ({error})"
                )
        elif cause := judgement.PAUSES.get(error.kind):
            await place.store.pause(self.claim.batch_key, cause, str(error))
        elif error.kind is not ErrorKind.RETRY:
            place.progress.notice(f"job {self.claim.job_id} failed: {error}")
        return settlement

    async def _settle(self, settlement: Settlement) -> None:
        self.settling = True
        faults.hit("settle.before")
        await self._place.store.settle(self.claim, settlement)

    async def _let_go(self, settlement: Settlement) -> None:
        with suppress(ClaimLost):
            await self._settle(settlement)


def _past(call: SavedCall, counted_from: int) -> PastCall:
    outcome = call.outcome
    rejected = outcome is not None and outcome.rejected is not None
    if rejected and outcome is not None and call.strategy is Strategy.PREFILL:
        # The server began afresh: that says nothing about how the model answers a `turn`.
        outcome, rejected = replace(outcome, stop_reason=None), False
    counted = call.number > counted_from
    return PastCall(call.resume_at, call.text, outcome, rejected, call.verdict, counted)
