"""What the store's tests are made with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runner.jobs.spec import BatchSpec, JobSpec
from runner.store.records import CallStart, Claim, JobRow, Lane, SubmitReceipt
from runner.store.store import Store
from tests.places import postgres_only as postgres_only  # where the tests of the store look for it
from tests.places import sqlite_only as sqlite_only


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.ms = 1_750_000_000_000

    def __call__(self) -> int:
        return self.ms


def make_spec(id: str = "a", **changes: Any) -> JobSpec:
    messages = ({"role": "user", "content": f"Write about {id}."},)
    return JobSpec(**{"id": id, "model": "m", "messages": messages, **changes})


class Hands:
    """Puts jobs in the queue and claims them, so that a test begins where its matter begins."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batch_key = 0

    async def submit(self, *specs: JobSpec, batch: str = "b", **options: Any) -> SubmitReceipt:
        receipt = await self.store.submit(BatchSpec(batch), specs or [make_spec()], **options)
        self.batch_key = receipt.batch_key
        return receipt

    async def register(self, worker_id: str = "w1") -> None:
        await self.store.register_worker(worker_id, host="here", pid=1, lease_ms=60_000)

    async def claim(self, worker_id: str = "w1", *, model: str = "m") -> Claim:
        """The next job, for a worker that is registered if need be."""
        if worker_id not in {row.id for row in await self.store.workers()}:
            await self.register(worker_id)
        (claim,) = await self.store.claim(worker_id, [Lane(self.batch_key, model, 1)], 1)
        return claim

    async def begin(self, claim: Claim, number: int = 1, **changes: Any) -> int:
        start = CallStart(number, None, 0, 100, claim.model)
        return await self.store.begin_call(claim, replace(start, **changes))

    async def job(self, id: str = "a") -> JobRow:
        return await self.store.find_job(id)
