"""Claiming: who gets which jobs, in which order."""

from __future__ import annotations

import asyncio

import pytest

from runner.jobs.states import Finish, State
from runner.store.records import Lane, PauseCause, Settlement
from runner.store.store import Store
from tests.store.hands import make_spec

pytestmark = pytest.mark.anyio


async def test_best_priority_first_then_oldest(hands, store: Store) -> None:
    await hands.submit(
        make_spec("low", priority=-1),
        make_spec("old"),
        make_spec("new"),
        make_spec("high", priority=5),
    )
    await hands.register()
    lane = Lane(hands.batch_key, "m", 10)
    assert [c.job_id for c in await store.claim("w1", [lane], 3)] == ["high", "old", "new"]
    assert [c.job_id for c in await store.claim("w1", [lane], 3)] == ["low"]
    assert await store.claim("w1", [lane], 3) == []


async def test_a_lane_gives_no_more_than_it_has_room_for(hands, store: Store) -> None:
    await hands.submit(
        *(make_spec(f"a{n}", priority=1) for n in range(5)),
        *(make_spec(f"b{n}", model="other") for n in range(5)),
    )
    await hands.register()
    lanes = [Lane(hands.batch_key, "m", 2), Lane(hands.batch_key, "other", 9)]
    claims = await store.claim("w1", lanes, 4)
    assert [c.job_id for c in claims] == ["a0", "a1", "b0", "b1"]


async def test_lanes_of_several_batches_compete_by_priority(hands, store: Store) -> None:
    await hands.submit(make_spec("a"), make_spec("b", priority=1), batch="one")
    one = hands.batch_key
    await hands.submit(make_spec("c", priority=2), make_spec("d"), batch="two")
    await hands.register()
    lanes = [Lane(one, "m", 9), Lane(hands.batch_key, "m", 9)]
    claims = await store.claim("w1", lanes, 9)
    assert [c.job_id for c in claims] == ["c", "b", "a", "d"]


async def test_a_claim_marks_the_job(hands, store: Store, clock) -> None:
    await hands.submit()
    clock.ms += 7
    claim = await hands.claim()
    job = await hands.job()
    assert (job.state, job.claim, job.updated_ms) == (State.EXECUTING, 1, clock.ms)
    assert (claim.number, claim.job_key, claim.model, claim.attempt) == (1, job.key, "m", 0)


async def test_the_claim_number_only_grows(hands, store: Store) -> None:
    await hands.submit()
    for number in (1, 2, 3):
        claim = await hands.claim()
        assert claim.number == number
        await store.settle(claim, Settlement(State.AVAILABLE))


async def test_no_job_of_a_paused_batch_is_claimed(hands, store: Store) -> None:
    await hands.submit()
    await hands.register()
    lane = Lane(hands.batch_key, "m", 1)
    await store.pause(hands.batch_key, PauseCause.USER, "lunch")
    assert await store.open_lanes() == []
    assert await store.claim("w1", [lane], 1) == []
    assert await store.resume(hands.batch_key)
    assert len(await store.claim("w1", [lane], 1)) == 1


async def test_a_worker_that_is_not_registered_gets_nothing(hands, store: Store) -> None:
    await hands.submit()
    assert await store.claim("nobody", [Lane(hands.batch_key, "m", 1)], 1) == []


async def test_a_thousand_lanes(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"j{n}", model=f"m{n}") for n in range(1000)))
    await hands.register()
    lanes = [Lane(hands.batch_key, f"m{n}", 1) for n in range(1000)]
    assert len(await store.claim("w1", lanes, 990)) == 990


async def test_a_cancelled_claim_gives_back_what_it_took(hands, store: Store) -> None:
    await hands.submit()
    await hands.register()
    claiming = asyncio.ensure_future(store.claim("w1", [Lane(hands.batch_key, "m", 1)], 1))
    await asyncio.sleep(0)  # it has handed over its operation and waits
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    # Two commits later at most: the claim, and its return behind it.
    await store.renew_lease("w1", lease_ms=1)
    await store.renew_lease("w1", lease_ms=1)
    job = await hands.job()
    assert (job.state, job.claim) == (State.AVAILABLE, 1)


async def test_waiting_jobs_become_available_when_their_time_has_come(
    hands, store: Store, clock
) -> None:
    await hands.submit(make_spec("soon"), make_spec("late"))
    for state, delay_ms in ((State.RETRYABLE, 100), (State.SCHEDULED, 200)):
        await store.settle(await hands.claim(), Settlement(state, delay_ms=delay_ms))
    start = clock.ms
    assert await store.next_due_ms() == start + 100
    assert await store.next_due_ms([hands.batch_key]) == start + 100
    assert await store.next_due_ms([hands.batch_key + 1]) is None
    clock.ms = start + 99
    assert await store.promote_due() == 0
    clock.ms = start + 100
    assert await store.promote_due() == 1
    assert (await hands.job("soon")).state is State.AVAILABLE
    assert (await hands.job("late")).state is State.SCHEDULED
    clock.ms = start + 200
    assert await store.promote_due() == 1
    assert await store.next_due_ms() is None


async def test_open_lanes_are_counted_by_batch_and_model(hands, store: Store) -> None:
    await hands.submit(make_spec("a"), make_spec("b"), make_spec("c", model="n"), batch="one")
    one = hands.batch_key
    await hands.submit(make_spec("a"), batch="two")
    two = hands.batch_key
    await store.settle(await hands.claim(), Settlement(State.COMPLETED, Finish.END_TURN))
    lanes = await store.open_lanes()
    assert [lane[:3] for lane in lanes] == [(one, "m", 2), (one, "n", 1)]
    assert {(lane.most, lane.batch, lane.simulated) for lane in lanes} == {(None, "one", False)}
    assert await store.open_lanes([two]) == []


async def test_a_users_pause_is_not_taken_over(hands, store: Store) -> None:
    await hands.submit()
    key = hands.batch_key
    await store.pause(key, PauseCause.CREDENTIALS, "key refused")
    assert not await store.resume(key, causes=[PauseCause.SPEND_CAP])
    await store.pause(key, PauseCause.USER, "wait")
    await store.pause(key, PauseCause.SPEND_CAP, "cap")
    (batch,) = await store.batches()
    assert (batch.paused, batch.pause_reason) == (PauseCause.USER, "wait")
    assert not await store.resume(key, causes=[PauseCause.CREDENTIALS, PauseCause.SPEND_CAP])
    assert await store.resume(key)
    assert not await store.resume(key)
    (batch,) = await store.batches()
    assert (batch.paused, batch.pause_reason) == (None, None)
