"""Settling: the transitions a worker may ask for, and their counters."""

from __future__ import annotations

import pytest

from runner.errors import StoreError
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.states import Finish, State, allowed_before
from runner.store.records import Settlement
from runner.store.store import Store
from tests.strangers import Refused, a_stranger

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("settlement", "attempt", "waits", "final"),
    [
        (Settlement(State.AVAILABLE), 2, False, False),
        (Settlement(State.SCHEDULED, error="limit", delay_ms=50), 2, True, False),
        (Settlement(State.RETRYABLE, error="broke", delay_ms=50), 3, True, False),
        (Settlement(State.RETRYABLE, delay_ms=50, reset_attempt=True), 1, True, False),
        (Settlement(State.AVAILABLE, reset_attempt=True), 0, False, False),
        (Settlement(State.COMPLETED, Finish.MAX_CALLS), 2, False, True),
        (Settlement(State.DISCARDED, error="cannot work"), 2, False, True),
        (Settlement(State.CANCELLED), 2, False, True),
    ],
    ids=str,
)
async def test_each_way_out(
    hands, store: Store, clock, settlement: Settlement, attempt: int, waits: bool, final: bool
) -> None:
    await hands.submit()
    for _ in range(2):
        await store.settle(await hands.claim(), Settlement(State.RETRYABLE))
        await store.promote_due()
    claim = await hands.claim()
    assert claim.attempt == 2
    clock.ms += 1000
    await store.settle(claim, settlement)
    job = await hands.job()
    assert (job.state, job.finish, job.error) == (
        settlement.state,
        settlement.finish,
        settlement.error,
    )
    assert (job.attempt, job.claim, job.updated_ms) == (attempt, 3, clock.ms)
    assert job.scheduled_ms == (clock.ms + settlement.delay_ms if waits else None)
    assert await store.unfinished() == (0 if final else 1)
    assert await store.check() == []


@pytest.mark.parametrize(
    "settlement",
    [
        Settlement(State.EXECUTING),
        Settlement(State.COMPLETED),
        Settlement(State.AVAILABLE, Finish.END_TURN),
        Settlement(State.RETRYABLE, Finish.STALLED),
        Settlement(State.AVAILABLE, delay_ms=5),
        Settlement(State.COMPLETED, Finish.END_TURN, delay_ms=5),
    ],
    ids=str,
)
async def test_what_no_worker_may_ask_for_is_refused(
    hands, store: Store, settlement: Settlement
) -> None:
    await hands.submit()
    claim = await hands.claim()
    with pytest.raises(ValueError, match="job"):
        await store.settle(claim, settlement)
    with pytest.raises(ValueError, match="job"):
        await store.end_call_and_settle(claim, 1, CallOutcome(None), settlement)
    assert (await hands.job()).state is State.EXECUTING


async def test_a_call_and_its_job_end_together(hands, store: Store) -> None:
    await hands.submit()
    claim = await hands.claim()
    outcome = CallOutcome("end_turn", usage=Usage(output_tokens=9))
    await store.end_call_and_settle(
        claim, await hands.begin(claim), outcome, Settlement(State.COMPLETED, Finish.END_TURN)
    )
    (call,) = await store.calls(claim.job_key)
    assert call.outcome == outcome
    assert (await hands.job()).usage == outcome.usage


@pytest.mark.parametrize("state", State)
def test_the_table_itself_refuses_rows_that_make_no_sense(database: str, state: State) -> None:
    """Whoever writes by hand, or by a mistake of ours, cannot leave a job half in a state."""
    right = {
        "worker_id": "w" if state is State.EXECUTING else None,
        "finish": "end_turn" if state is State.COMPLETED else None,
        "scheduled_ms": 1 if state in {State.SCHEDULED, State.RETRYABLE} else None,
        "finalized_ms": 1 if state.final else None,
    }
    other = {"worker_id": "w", "finish": "end_turn", "scheduled_ms": 1, "finalized_ms": 1}
    with a_stranger(database) as stranger:
        batch = "INSERT INTO batch (key, name, limits, created_ms) VALUES (1, 'b', '', 0)"
        stranger.execute(batch)

        def insert(id: str, values: dict[str, object]) -> None:
            stranger.execute(
                "INSERT INTO job (batch_key, id, hash, model, state, priority, created_ms, "
                "updated_ms, worker_id, finish, scheduled_ms, finalized_ms) "
                "VALUES (1, ?, ?, 'm', ?, 0, 0, 0, ?, ?, ?, ?)",
                (id, b"", state.value, *values.values()),
            )

        insert("right", right)
        for name, value in right.items():
            if name == "finish" and state in {State.CANCELLED, State.DISCARDED}:
                continue  # may have one or not
            wrong = {**right, name: other[name] if value is None else None}
            with pytest.raises(Refused, match=r"(?i)check"):
                insert("wrong", wrong)


def test_a_worker_may_leave_executing_only_by_the_table() -> None:
    ways = {state for state in State if State.EXECUTING in allowed_before(state)}
    assert ways == set(State) - {State.EXECUTING}


async def test_an_unknown_finish_never_gets_in(hands, store: Store) -> None:
    await hands.submit()
    claim = await hands.claim()
    with pytest.raises(StoreError, match=r"(?i)check"):
        await store.settle(claim, Settlement(State.COMPLETED, "nonsense"))  # type: ignore[arg-type]
