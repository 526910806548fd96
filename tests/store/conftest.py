"""One suite for every database: tests take `store`, and a second database is a second param."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.jobs.spec import BatchSpec, JobSpec
from runner.store import migrate
from runner.store.records import CallStart, Claim, JobRow, Lane, SubmitReceipt
from runner.store.store import Store


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.ms = 1_750_000_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: making one from nothing takes Alembic."""
    path = tmp_path_factory.mktemp("empty") / "runner.db"
    migrate.upgrade(path)
    return path


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> str:
    path = tmp_path / "runner.db"
    shutil.copy(empty_database, path)
    return str(path)


Opener = Callable[[], Awaitable[Store]]


@pytest.fixture
async def open_store(database: str, clock: Clock) -> AsyncIterator[Opener]:
    """Opens the same database again, as another process would."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened() -> Store:
            return await stack.enter_async_context(await Store.open(database, now_ms=clock))

        yield opened


@pytest.fixture
async def store(open_store: Opener) -> Store:
    return await open_store()


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


@pytest.fixture
def hands(store: Store) -> Hands:
    return Hands(store)
