"""Settling: how a worker gives a job back."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, null, update

from runner.jobs.call import CallOutcome
from runner.jobs.states import State, allowed_before
from runner.store import control
from runner.store.bare import quick
from runner.store.broken import break_open_call
from runner.store.calls import HELD, close, fence, lost
from runner.store.engine import storable
from runner.store.events import note
from runner.store.records import Claim, EventKind, Settlement
from runner.store.schema import WAITING, job

# What of the job's row tells how it was settled, beside its state and its attempts.
RESULT: Final = ("finish", "error", "scheduled_ms", "finalized_ms", "updated_ms")
SETTLE: Final = (
    update(job)
    .where(*HELD)
    .values(
        state=bindparam("to_state", type_=job.c.state.type),
        worker_id=null(),
        attempt=job.c.attempt * bindparam("kept_attempts") + bindparam("new_attempts"),
        finish=bindparam("to_finish", type_=job.c.finish.type),
        error=bindparam("because", type_=job.c.error.type),
        scheduled_ms=bindparam("due_ms", type_=job.c.scheduled_ms.type),
        finalized_ms=bindparam("final_ms", type_=job.c.finalized_ms.type),
        updated_ms=bindparam("now_ms", type_=job.c.updated_ms.type),
    )
)


def check(settlement: Settlement) -> None:
    """Refuse what no worker may ask for.

    Raises:
        ValueError: the transition is not in the table, or finish and state do not belong together.
    """
    state = settlement.state
    if State.EXECUTING not in allowed_before(state):
        raise ValueError(f"no job goes from executing to {state}")
    if state is State.COMPLETED and settlement.finish is None:
        raise ValueError("a completed job must say how its document ended")
    if settlement.finish is not None and not state.final:
        raise ValueError(f"a job that becomes {state} has not ended, so it has no finish")
    if settlement.delay_ms and state not in WAITING:
        raise ValueError(f"a job that becomes {state} does not wait")


def settle(
    connection: Connection,
    claim: Claim,
    settlement: Settlement,
    now_ms: int,
    ended: tuple[int, CallOutcome] | None = None,
) -> None:
    """Give a job back, with what came of its last call when it is still open.

    Args:
        ended: key and outcome of the call that ends in the same moment.
    """
    state = settlement.state
    finish, because, due_ms, final_ms, _ = result(settlement, now_ms)
    _, given_back = quick(
        connection,
        SETTLE,
        {
            **fence(claim),
            "to_state": state,
            "kept_attempts": int(not settlement.reset_attempt),
            "new_attempts": int(state is State.RETRYABLE),
            "to_finish": finish,
            "because": because,
            "due_ms": due_ms,
            "final_ms": final_ms,
            "now_ms": now_ms,
        },
    )
    if given_back == 0:
        raise lost(claim)
    batch_key, job_key = claim.batch_key, claim.job_key
    if ended is not None:
        close(connection, batch_key, job_key, *ended, now_ms)
    break_open_call(connection, batch_key, job_key, now_ms, given_up(settlement))
    note(connection, job_key, now_ms, *told(settlement, claim))
    if state.final:
        control.ended(connection, batch_key, [(claim.job_id, failure(settlement))])


def result(
    settlement: Settlement, now_ms: int
) -> tuple[str | None, str | None, int | None, int | None, int]:
    """The values of `RESULT`."""
    state = settlement.state
    return (
        settlement.finish,
        settlement.error and storable(settlement.error),
        now_ms + settlement.delay_ms if state in WAITING else None,
        now_ms if state.final else None,
        now_ms,
    )


def given_up(settlement: Settlement) -> str:
    """Why a call ended that was still open, in words."""
    return settlement.error or "the call was given up before it ended"


def failure(settlement: Settlement) -> str | None:
    """The name of the error that ended a job; None where its document ended."""
    if settlement.finish is not None:
        return None
    return settlement.error_name or "an error without a name"


def told(settlement: Settlement, claim: Claim) -> tuple[EventKind, int, None, str | None]:
    """The event of a settlement: its kind, the claim, nobody, why."""
    error = settlement.error
    match settlement.state:
        case State.AVAILABLE:
            kind = EventKind.HANDED_BACK if error is None else EventKind.PAUSED
        case State.SCHEDULED:
            kind = EventKind.WAITS
        case State.RETRYABLE:
            kind = EventKind.RETRY_SCHEDULED
        case State.COMPLETED:
            kind = EventKind.COMPLETED
        case _:
            kind = EventKind.DISCARDED
    words = [word for word in (settlement.finish, error) if word]
    if settlement.delay_ms:
        words.append(f"tried again in {settlement.delay_ms / 1000:,.1f} s")
    return kind, claim.number, None, ": ".join(words) or None
