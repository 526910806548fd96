"""Settling: how a worker gives a job back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, literal_column, null, update

from runner.jobs.call import CallOutcome
from runner.jobs.states import State, allowed_before
from runner.store.calls import break_open_call, close, held, lost
from runner.store.engine import storable
from runner.store.records import Claim, Settlement
from runner.store.schema import WAITING, job


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
    attempt: Any = literal_column("0") if settlement.reset_attempt else job.c.attempt
    if state is State.RETRYABLE:
        attempt = attempt + literal_column("1")
    given_back = connection.execute(
        update(job)
        .where(*held(claim))
        .values(
            state=state,
            worker_id=null(),
            attempt=attempt,
            finish=settlement.finish,
            error=settlement.error and storable(settlement.error),
            scheduled_ms=now_ms + settlement.delay_ms if state in WAITING else None,
            finalized_ms=now_ms if state.final else None,
            updated_ms=now_ms,
        )
    )
    if given_back.rowcount == 0:
        raise lost(claim)
    if ended is not None:
        close(connection, claim, *ended, now_ms)
    break_open_call(
        connection,
        claim.batch_key,
        claim.job_key,
        now_ms,
        settlement.error or "the call was given up before it ended",
    )
