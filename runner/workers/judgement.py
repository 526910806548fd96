"""How a worker gives a job back: one pure table from what happened to what becomes of the job."""

from __future__ import annotations

from math import ceil
from random import Random

from runner.continuation.steps import CannotContinue, Finished
from runner.errors import BudgetReached
from runner.jobs.states import Finish, State
from runner.messages.backoff import delay_s
from runner.messages.classify import clean
from runner.messages.errors import CallError, ErrorKind
from runner.store.records import PauseCause, Settlement

# These ask the owner to mend something: the batch waits, its jobs lose nothing.
PAUSES = {
    ErrorKind.CREDENTIALS: PauseCause.CREDENTIALS,
    ErrorKind.SPEND_CAP: PauseCause.SPEND_CAP,
}

# A call that ends may leave room at any moment; who waits is not claimed before there is some.
BUDGET_WAIT_MS = 250

HANDED_BACK = Settlement(State.AVAILABLE)
RESTARTED = Settlement(
    State.DISCARDED,
    error="the server takes a prefill and begins its answer afresh all the same. "
    "Take `strategy: prefill` out, so that the document goes on by `turn`",
    error_name="a prefill that is begun afresh",
)


def at_rest(seconds: float) -> Settlement:
    """What becomes of a job whose model must rest, because of what another job met: its rate
    limit, or an API that is down."""
    return Settlement(
        State.SCHEDULED,
        error="waits: another job met the model's rate limit, or the API is down",
        delay_ms=ceil(1000 * seconds),
    )


def paused(reason: str) -> Settlement:
    """What becomes of a job whose batch is paused: it waits, at no cost."""
    return Settlement(State.AVAILABLE, error=f"its batch is paused: {reason}")


def out_of_budget(reached: BudgetReached) -> Settlement:
    """What becomes of a job whose call has no room in its batch's budget: it waits, at no cost."""
    if reached.paused:
        return paused(reached.reason)
    return Settlement(State.SCHEDULED, error=f"waits: {reached.reason}", delay_ms=BUDGET_WAIT_MS)


def of_end(step: Finished | CannotContinue) -> Settlement:
    """What becomes of a job whose document goes no further."""
    if isinstance(step, CannotContinue):
        return Settlement(
            State.DISCARDED, error=step.reason, error_name="a document that cannot go on"
        )
    # A refused prompt cannot work, whoever asks: it failed, and its finish says how.
    state = State.DISCARDED if step.finish is Finish.REFUSAL else State.COMPLETED
    return Settlement(state, finish=step.finish, error=step.detail)


def of_error(
    error: CallError,
    *,
    attempt: int,
    max_attempts: int,
    progress: bool,
    random: Random,
    down_s: float | None = None,
) -> Settlement:
    """What becomes of a job whose call failed.

    Args:
        attempt: errors in a row so far, this one not counted.
        progress: text was saved since the last error, so the count starts again.
        down_s: the API fails for all, so that the error says nothing of this job: it waits for at
            least so many seconds, at no attempt.
    """
    before = 0 if progress else attempt
    delay_ms = round(1000 * delay_s(before, error, random))
    if error.kind in PAUSES:
        return Settlement(State.AVAILABLE, error=str(error))
    if error.kind is ErrorKind.RATE_LIMIT:
        return Settlement(State.SCHEDULED, error=str(error), delay_ms=delay_ms)
    if error.kind is not ErrorKind.RETRY:
        return Settlement(State.DISCARDED, error=str(error), error_name=_name(error))
    if down_s is not None:
        delay_ms = max(delay_ms, ceil(1000 * down_s))
        return Settlement(State.SCHEDULED, error=str(error), delay_ms=delay_ms)
    if before + 1 >= max_attempts:
        return Settlement(
            State.DISCARDED,
            error=f"given up after {before + 1} attempts; the last: {error}",
            error_name=_name(error),
        )
    return Settlement(State.RETRYABLE, error=str(error), delay_ms=delay_ms, reset_attempt=progress)


def _name(error: CallError) -> str:
    """What the same error is known by when other jobs meet it: never its words, which may name
    the job."""
    status = "" if error.status is None else f"{error.status} "
    return f"{status}{clean(error.type)}"
