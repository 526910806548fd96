"""Kills of processes and of the server, with an API that fails; benchmarks/soak.py at full size."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from runner.jobs.spec import BatchLimits
from runner.simulator import SimulatorOptions
from runner.store.records import EventKind
from tests.house import a_house, job
from tests.postgres import Server
from tests.strangers import a_stranger
from tests.workers.process import Process

pytestmark = [pytest.mark.anyio, pytest.mark.on_a_server]

FAULTS = {"http_529": 0.05, "http_500": 0.05, "drop": 0.05, "error_overloaded": 0.05, "reset": 0.05}


async def test_three_workers_with_faults_and_kills(tmp_path: Path, postgres_server: Server) -> None:
    options = SimulatorOptions(seed=7, tokens_per_second=60, tokens_per_event=4, faults=FAULTS)
    specs = [job(f"j{n}", mark="tokens=160") for n in range(48)]
    async with a_house(tmp_path, options) as house:
        await house.submit(*specs, limits=BatchLimits(concurrency=12, max_attempts=1000))
        books = house.simulator.books
        async with AsyncExitStack() as stack:

            async def begin() -> Process:
                process = Process(
                    house.database, house.simulator.base_url, checkpoint_s=0.1, concurrency=4
                )
                return await stack.enter_async_context(process)

            async def have_begun(count: int) -> None:
                """One that has not begun yet would find no server, and say so and end."""
                with anyio.fail_after(90):
                    while len(begun) < count:
                        begun.update(worker.id for worker in await house.store.workers())
                        await anyio.sleep(0.02)

            begun: set[str] = set()
            fleet = [await begin() for _ in range(3)]
            await have_begun(3)
            for number, tokens in enumerate((800, 2400), 4):
                await books.wait_for(lambda books, at=tokens: books.tokens_generated > at)
                fleet[0].child.kill()
                fleet = [*fleet[1:], await begin()]
                await have_begun(number)
                await books.wait_for(lambda books, at=tokens: books.tokens_generated > at + 400)
                await asyncio.to_thread(postgres_server.crash)
                await asyncio.to_thread(postgres_server.start)
            for process in fleet:
                await process.ends()
        await house.assert_whole(*specs)
        for spec in specs:
            row = await house.row(spec.id)
            kinds = Counter(event.kind for event in await house.store.events(row.key))
            assert kinds[EventKind.COMPLETED] == 1
        with a_stranger(house.database) as stranger:
            claims = stranger.execute(
                "SELECT chunk.job_key, call.claim FROM chunk JOIN call ON call.key = call_key"
                " ORDER BY chunk.job_key, chunk.key"
            )
        assert claims == sorted(claims)  # never one of a claim that was over
        assert await house.store.workers() == []
