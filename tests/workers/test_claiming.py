"""What a process claims, and of which batches."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from runner.jobs.spec import BatchLimits, BatchSpec
from runner.store.records import Claim, Selection
from runner.store.store import Store
from runner.workers.claiming import Claiming
from runner.workers.job_run import JobRun
from runner.workers.pacing import Pacing
from runner.workers.progress import Progress
from runner.workers.settings import WorkerSettings
from runner.workers.waiting import Waiting
from tests.house import job

pytestmark = pytest.mark.anyio


def claiming(store: Store, running: dict[int, JobRun], *, simulated: bool = False) -> Claiming:
    pacing = Pacing(
        store,
        "http://api",
        "a key's fingerprint",
        notice=lambda _: None,
        room=lambda: None,
        random=Random(1),
    )
    pacing._gate("claude-haiku-4-5").limit.level.open = 100.0
    return Claiming(
        store,
        pacing,
        Waiting(store, Progress(), 60.0),
        WorkerSettings(),
        running,
        batch_keys=None,
        simulated=simulated,
    )


async def test_the_key_of_a_pruned_batch_is_not_taken_for_that_batch(database) -> None:
    async with await Store.open(database) as store:
        await store.register_worker("w", host="h", pid=1, lease_ms=60_000)
        real = claiming(store, {})
        trying = claiming(store, {}, simulated=True)
        await store.submit(BatchSpec("real"), [job("a")])
        assert [claim.job_id for claim in await real.claim("w")] == ["a"]
        await store.cancel(Selection(batch="real"))
        await store.prune(Selection(batch="real"))
        await store.submit(BatchSpec("trial"), [job("b")], simulated=True)
        assert await real.claim("w") == []
        assert [claim.job_id for claim in await trying.claim("w")] == ["b"]


async def test_changed_limits_hold_at_the_next_claim(database) -> None:
    async with await Store.open(database) as store:
        await store.register_worker("w", host="h", pid=1, lease_ms=60_000)
        ours = claiming(store, {})
        jobs = [job(name) for name in "abcdef"]
        await store.submit(BatchSpec("b", BatchLimits(concurrency=1)), jobs)
        assert len(await ours.claim("w")) == 1
        assert ours.full
        await store.submit(BatchSpec("b", BatchLimits(concurrency=3)), jobs)
        assert len(await ours.claim("w")) == 3
        assert ours.full
        assert len(await ours.claim("w")) == 2
        assert not ours.full


async def test_a_job_that_is_being_settled_wants_no_room(database) -> None:
    async with await Store.open(database) as store:
        await store.register_worker("w", host="h", pid=1, lease_ms=60_000)
        running: dict[int, JobRun] = {}
        ours = claiming(store, running)
        level = ours._pacing._gate("claude-haiku-4-5").limit.level
        level.open = 2.0
        await store.submit(BatchSpec("b", BatchLimits(concurrency=10)), [job(n) for n in "abcde"])
        first = await ours.claim("w")
        assert [claim.job_id for claim in first] == ["a", "b"]
        assert ours.short_of_room
        for claim in first:
            # What of a run a claim looks at.
            run = SimpleNamespace(claim=claim, settling=False, in_call=False, proven=True)
            running[claim.job_key] = cast(JobRun, run)
        assert await ours.claim("w") == []
        running[first[0].job_key].settling = True
        assert [claim.job_id for claim in await ours.claim("w")] == ["c"]


async def test_a_job_that_ended_well_lets_another_be_claimed_ahead(database) -> None:
    async with await Store.open(database) as store:
        ours = claiming(store, {})
        pacing, gate = ours._pacing, ours._pacing._gate("claude-haiku-4-5")
        claim = Claim(1, 1, "w", 1, "a", "claude-haiku-4-5", 0, 0)
        for succeeded, ahead in ((False, 0), (True, 1)):
            flight = gate.limit.start(1, 1, 0.0)
            gate.limit.level.open = 1.0
            flight.succeeded = succeeded
            pacing._last[claim.job_key] = (gate, flight)
            pacing.left(claim)
            assert gate.soon(1.0, None) == ahead
            gate.limit.cancel(flight, 0.0)
