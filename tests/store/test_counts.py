"""Kept counts and sums equal counted ones after any history."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import ClaimLost
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.spec import BatchSpec
from runner.jobs.states import Finish, State
from runner.store.records import CallStart, Claim, Lane, OnConflict, Settlement
from runner.store.store import Store
from tests.places import Place
from tests.store.hands import Clock, make_spec

WAYS = [
    Settlement(State.AVAILABLE),
    Settlement(State.SCHEDULED, delay_ms=1),
    Settlement(State.RETRYABLE, delay_ms=1),
    Settlement(State.COMPLETED, Finish.END_TURN),
    Settlement(State.COMPLETED, Finish.STALLED),
    Settlement(State.DISCARDED),
    Settlement(State.DISCARDED, Finish.REFUSAL),
]
STEPS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 4), st.integers(0, 2)),
    st.tuples(st.just("claim"), st.integers(1, 3)),
    st.tuples(st.just("settle"), st.sampled_from(WAYS), st.booleans()),
    st.tuples(st.just("promote")),
    st.tuples(st.just("rescue")),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(STEPS, max_size=25))
def test_counts_agree_after_any_history(place: Place, steps: list[tuple]) -> None:
    database = place.new()
    try:
        asyncio.run(live_through(database, steps))
    finally:
        place.drop(database)


async def live_through(database: str, steps: list[tuple]) -> None:
    clock = Clock()
    claims: list[Claim] = []
    lanes = [Lane(1, "m0", 9), Lane(1, "m1", 9), Lane(1, "m2", 9)]
    async with await Store.open(database, now_ms=clock) as store:
        await store.submit(BatchSpec("b"), [])
        await store.register_worker("w", host="h", pid=1, lease_ms=1)
        for step, *values in steps:
            clock.ms += 1
            match step, values:
                case "submit", [number, model]:
                    spec = make_spec(f"j{number}", model=f"m{model}")
                    await store.submit(BatchSpec("b"), [spec], on_conflict=OnConflict.REPLACE)
                case "claim", [limit]:
                    claims += await store.claim("w", lanes, limit)
                case "settle", [settlement, with_call] if claims:
                    await settle(store, claims.pop(0), settlement, with_call=with_call)
                case "promote", _:
                    await store.promote_due()
                case "rescue", _:
                    await store.rescue("w", max_rescues=1)
                    await store.register_worker("w", host="h", pid=1, lease_ms=1)
        assert await store.check() == []
        (batch,) = await store.batches()
        rows = [job async for job in store.jobs()]
        assert batch.jobs == len(rows)
        for state in State:
            assert batch.count(state) == sum(job.state is state for job in rows)
        assert batch.usage.output_tokens == sum(job.usage.output_tokens for job in rows)


async def settle(store: Store, claim: Claim, settlement: Settlement, *, with_call: bool) -> None:
    try:
        if with_call:
            number = len(await store.calls(claim.job_key)) + 1
            start = CallStart(number, None, 0, 1, claim.model)
            call_key = await store.begin_call(claim, start)
            outcome = CallOutcome("end_turn", usage=Usage(1, 2, 3, 4))
            await store.end_call_and_settle(claim, call_key, outcome, settlement)
        else:
            await store.settle(claim, settlement)
    except ClaimLost:
        pass
