"""Workers' signs of life, and the jobs of the dead."""

from __future__ import annotations

import os
import socket

import pytest

from runner.errors import ClaimLost
from runner.jobs.call import CallOutcome, Charge, Usage
from runner.jobs.states import Finish, State
from runner.store.records import Lane, Settlement
from runner.store.store import Store
from tests.store.hands import make_spec
from tests.strangers import a_stranger

pytestmark = pytest.mark.anyio

DONE = Settlement(State.COMPLETED, Finish.END_TURN)


async def test_a_worker_comes_renews_and_goes(store: Store, clock) -> None:
    await store.register_worker("w1", host="here", pid=42, lease_ms=1000)
    (row,) = await store.workers()
    assert (row.id, row.host, row.pid, row.started_ms) == ("w1", "here", 42, clock.ms)
    assert (row.lease_until_ms, row.alive) == (clock.ms + 1000, None)
    clock.ms += 500
    assert await store.renew_lease("w1", lease_ms=1000)
    assert (await store.workers())[0].lease_until_ms == clock.ms + 1000
    await store.retire_worker("w1")
    assert await store.workers() == []
    assert not await store.renew_lease("w1", lease_ms=1000)


async def test_workers_of_this_machine_are_known_to_live(store: Store) -> None:
    await store.register_worker("w1", host=socket.gethostname(), pid=os.getpid(), lease_ms=1000)
    assert [row.alive for row in await store.workers()] == [True]


async def test_a_retiring_worker_leaves_no_job_behind(hands, store: Store) -> None:
    await hands.submit()
    claim = await hands.claim()
    await hands.begin(claim)
    await store.retire_worker("w1")
    job = await hands.job()
    assert (job.state, job.rescues, job.attempt) == (State.AVAILABLE, 0, 0)
    with pytest.raises(ClaimLost):
        await store.settle(claim, DONE)


async def test_the_jobs_of_the_dead_go_on(hands, store: Store) -> None:
    await hands.submit(make_spec("a"), make_spec("b"), make_spec("c"))
    for _ in range(2):
        claim = await hands.claim("dead")
    call_key = await hands.begin(claim)
    await store.save(claim, call_key, 0, "1234")
    await hands.claim("alive")

    assert await store.rescue("dead", max_rescues=3) == ["a", "b"]
    assert [row.id for row in await store.workers()] == ["alive"]
    job = await hands.job("b")
    assert (job.state, job.rescues, job.attempt, job.claim) == (State.AVAILABLE, 1, 0, 1)
    (call,) = await store.calls(claim.job_key)
    assert call.outcome == CallOutcome(
        None,
        usage=Usage(output_tokens=1, estimated=True),
        error="the process that made this call is gone",
        charge=Charge(prompt_tokens=0),
    )
    assert (await hands.job("c")).state is State.EXECUTING
    assert await store.rescue("dead", max_rescues=3) == []
    assert await store.check() == []


async def test_a_job_that_kills_its_workers_is_discarded(hands, store: Store) -> None:
    await hands.submit()
    for rescue in range(3):
        await hands.claim(f"w{rescue}")
        assert await store.rescue(f"w{rescue}", max_rescues=2) == ["a"]
    job = await hands.job()
    assert (job.state, job.rescues, job.finish) == (State.DISCARDED, 3, None)
    assert job.error == (
        "its process died 3 times in a row while working on it, "
        "each time before any of its text was saved"
    )
    assert await store.unfinished() == 0


async def test_a_job_that_goes_on_between_kills_is_never_given_up(hands, store: Store) -> None:
    await hands.submit()
    for rescue in range(5):
        claim = await hands.claim(f"w{rescue}")
        await store.save(claim, await hands.begin(claim, number=rescue + 1), rescue, "more")
        assert await store.rescue(f"w{rescue}", max_rescues=2) == ["a"]
        job = await hands.job()
        assert (job.state, job.rescues) == (State.AVAILABLE, 1)
    # Text of an earlier claim is no progress of this one.
    await hands.claim("w5")
    await store.rescue("w5", max_rescues=2)
    assert (await hands.job()).rescues == 2


async def test_a_suspect_is_claimed_alone(hands, store: Store) -> None:
    await hands.submit(make_spec("poison"), make_spec("beside"), make_spec("fresh"))
    lane = Lane(hands.batch_key, "m", 2)
    await hands.register("dead")
    assert len(await store.claim("dead", [lane], 2)) == 2
    await store.rescue("dead", max_rescues=3)

    async def claim(*, alone: bool, free: int = 3) -> list[str]:
        lanes = [Lane(hands.batch_key, "m", free)]
        claims = await store.claim("w", lanes, free, suspect_from=1, alone=alone)
        return [claim.job_id for claim in claims]

    await hands.register("w")
    assert await claim(alone=False, free=2) == []
    assert await claim(alone=True) == ["poison"]
    assert await claim(alone=True) == ["beside"]
    assert await claim(alone=False) == ["fresh"]
    assert await store.check() == []


async def test_a_rescuer_that_looked_too_early_changes_nothing(hands, store: Store) -> None:
    """He saw the worker's jobs, then the worker settled one and another took it over."""
    await hands.submit(make_spec("settled"), make_spec("taken"))
    settled, taken = await hands.claim("w1"), await hands.claim("w1")
    await store.settle(settled, DONE)
    await store.settle(taken, Settlement(State.AVAILABLE))
    await hands.claim("w2")
    assert await store.rescue("w1", max_rescues=3) == []
    assert (await hands.job("settled")).state is State.COMPLETED
    job = await hands.job("taken")
    assert (job.state, job.claim, job.rescues) == (State.EXECUTING, 2, 0)


async def test_a_worker_that_renewed_after_it_was_looked_at_is_not_rescued(
    hands, store: Store, clock
) -> None:
    await hands.submit()
    await hands.claim("w1")
    (seen,) = await store.workers()
    clock.ms += 1
    await store.renew_lease("w1", lease_ms=60_000)
    assert await store.rescue("w1", max_rescues=3, lease_until_ms=seen.lease_until_ms) == []
    assert (await hands.job()).state is State.EXECUTING
    (seen,) = await store.workers()
    assert await store.rescue("w1", max_rescues=3, lease_until_ms=seen.lease_until_ms) == ["a"]


async def test_a_rescued_worker_claims_nothing_more(hands, store: Store) -> None:
    await hands.submit(make_spec("a"), make_spec("b"))
    await hands.claim("w1")
    await store.rescue("w1", max_rescues=3)
    from runner.store.records import Lane

    assert await store.claim("w1", [Lane(hands.batch_key, "m", 9)], 9) == []


async def test_jobs_of_a_worker_without_a_row_are_rescued(hands, store: Store, database) -> None:
    await hands.submit(make_spec("a"), make_spec("b"))
    await hands.claim("w1")
    await hands.claim("w2")
    with a_stranger(database) as stranger:
        stranger.execute("DELETE FROM worker WHERE id = 'w1'")
    assert await store.rescue_orphans(max_rescues=3) == ["a"]
    assert await store.rescue_orphans(max_rescues=3) == []
    assert (await hands.job("b")).state is State.EXECUTING
