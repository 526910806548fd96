"""Workers that share a queue on a server, and what is to hold of their work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import anyio

from runner.jobs.spec import JobSpec
from runner.library import open_store
from runner.store.records import EventKind
from runner.workers.progress import Progress
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker
from tests.house import QUICK, House, Impatient, job

# A call for each document, so that whoever is asked twice has been asked anew.
ONE_CALL = {"mark": "tokens=200", "max_tokens": 400}


class Notes(Progress):
    """Keeps what was told, and tells when something is."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self._more = anyio.Event()

    def notice(self, text: str) -> None:
        self.told.append(text)
        self._more.set()
        self._more = anyio.Event()

    async def tells(self, words: str) -> None:
        """Wait for a notice with these words."""
        with anyio.fail_after(60):
            while not any(words in text for text in self.told):
                await self._more.wait()


@asynccontextmanager
async def a_fleet(
    house: House,
    workers: int = 2,
    *,
    database: str | None = None,
    settings: WorkerSettings = QUICK,
) -> AsyncIterator[list[Notes]]:
    """Workers with a store each, working until every job is final; what they tell."""
    async with AsyncExitStack() as stack:
        notes = [Notes() for _ in range(workers)]
        # Not all that there is goes to the first.
        settings = replace(settings, concurrency=8)
        fleet = [
            Worker(
                await stack.enter_async_context(open_store(database or house.database)),
                house.client,
                settings=settings,
                progress=told,
                random=Impatient(),
            )
            for told in notes
        ]
        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                for worker in fleet:
                    tasks.start_soon(worker.run)
                yield notes


def documents(count: int) -> list[JobSpec]:
    return [job(f"j{n}", **ONE_CALL) for n in range(count)]


async def assert_each_written_once(house: House, *specs: JobSpec) -> None:
    """Every document is whole, was asked for once, by one worker, and ended once."""
    await house.assert_whole(*specs)
    books = house.simulator.books
    assert books.requests_by_kind["messages_stream"] == len(specs)
    assert (books.tokens_generated_twice, books.restarts) == (0, 0)
    for spec in specs:
        row = await house.row(spec.id)
        assert (row.claim, row.rescues, row.calls) == (1, 0, 1)
        kinds = [event.kind for event in await house.store.events(row.key)]
        assert kinds.count(EventKind.COMPLETED) == 1
    assert await house.store.workers() == []
