"""A store, a simulator and a client put together, for tests that let the whole house work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from runner.continuation.document import fold
from runner.jobs.spec import BatchLimits, BatchSpec, ContinuationSpec, JobSpec
from runner.jobs.states import State
from runner.messages.client import MessagesClient
from runner.simulator import Simulator, SimulatorOptions
from runner.store.records import JobRow
from runner.store.store import Store
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker
from tests.places import Place

# Prompt, max_tokens and length that make a document of some four calls.
PROMPT = "Write about {} in about 150 words. [[simulate: {}]]"
NO_LIMITS = BatchLimits()
NO_OPTIONS = SimulatorOptions()
QUICK = WorkerSettings(checkpoint_s=0.01, poll_s=0.02)


# Where houses have their databases; None: in files.
PLACE: Place | None = None


class Impatient(Random):
    """Waits the least that backing off allows."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002  the signature of Random
        return a


def job(id: str, *, mark: str = "", **changes: Any) -> JobSpec:
    return replace(
        JobSpec(
            id=id,
            model="claude-haiku-4-5",
            messages=({"role": "user", "content": PROMPT.format(id, mark)},),
            max_tokens=80,
            continuation=ContinuationSpec(),
        ),
        **changes,
    )


@dataclass
class House:
    """Everything a worker needs, and what its work came to."""

    store: Store
    simulator: Simulator
    client: MessagesClient
    database: str

    async def submit(self, *jobs: JobSpec, limits: BatchLimits = NO_LIMITS) -> None:
        await self.store.submit(BatchSpec("b", limits), jobs)

    def worker(self, **options: Any) -> Worker:
        options.setdefault("settings", QUICK)
        return Worker(self.store, self.client, random=Impatient(), **options)

    async def row(self, id: str = "a") -> JobRow:
        return await self.store.find_job(f"b/{id}")

    async def text(self, id: str = "a") -> str:
        calls = await self.store.calls((await self.row(id)).key)
        return fold((call.resume_at, call.text) for call in calls)

    def true_text(self, spec: JobSpec) -> str:
        return self.simulator.true_document(
            {"model": spec.model, "max_tokens": 1, "messages": list(spec.messages)}
        )

    async def assert_whole(self, *jobs: JobSpec) -> None:
        """Every document is complete and byte for byte the true one, nothing was asked astray."""
        for spec in jobs:
            row = await self.row(spec.id)
            assert (row.state, row.error) == (State.COMPLETED, None)
            assert await self.text(spec.id) == self.true_text(spec)
        assert self.simulator.books.divergences == 0
        assert await self.store.check() == []


@contextmanager
def a_database(folder: Path) -> Iterator[str]:
    """The database of a house: on the test's server where it has one, else a file in the folder."""
    place = PLACE
    if place is None:
        yield str(folder / "runner.db")
        return
    database = place.new()
    try:
        yield database
    finally:
        place.drop(database)


@asynccontextmanager
async def a_house(
    folder: Path, options: SimulatorOptions = NO_OPTIONS, **client: Any
) -> AsyncIterator[House]:
    async with Simulator(options) as simulator:
        messages = MessagesClient(
            api_key="test-key", base_url=simulator.base_url, one_block=False, **client
        )
        try:
            with a_database(folder) as database:
                async with await Store.open(database) as store:
                    yield House(store, simulator, messages, database)
        finally:
            await messages.aclose()
