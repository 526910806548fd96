"""Many processes on one file. benchmarks/soak.py --jobs 5000 is the same at full size."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runner.jobs.spec import BatchLimits
from runner.jobs.states import State
from tests.house import a_house, job
from tests.workers.process import Process

pytestmark = pytest.mark.anyio


async def test_eight_processes_with_fifty_jobs_each(tmp_path: Path) -> None:
    count = 8 * 50
    specs = [job(f"j{n}", mark="tokens=8") for n in range(count)]
    async with a_house(tmp_path) as house:
        await house.submit(*specs, limits=BatchLimits(concurrency=400))
        async with AsyncExitStack() as stack:
            processes = [
                await stack.enter_async_context(
                    Process(house.database, house.simulator.base_url, concurrency=50)
                )
                for _ in range(8)
            ]
            told = await asyncio.gather(*(process.ends() for process in processes))
        assert "".join(told) == ""  # no lock, no retry, nothing that a user would have to read
        (batch,) = await house.store.batches()
        assert batch.count(State.COMPLETED) == batch.complete == count
        # None twice: each was asked for once, and each request was for another document.
        assert house.simulator.books.requests_by_kind["messages_stream"] == count
        assert len(house.simulator.books.prompts) == count
        assert house.simulator.books.tokens_generated_twice == 0
        await house.assert_whole(*specs[:: count // 20])


async def test_three_runs_begin_at_once_where_there_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(
        "version: 1\nbatch: b\ndefaults: {model: claude-haiku-4-5, max_tokens: 80}\njobs:\n"
        + "".join(f"  - {{id: j{n}, prompt: 'Write about {n}.'}}\n" for n in range(6))
    )
    (tmp_path / "elsewhere").mkdir()
    async with a_house(tmp_path / "elsewhere") as house:
        environment = os.environ | {
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": house.simulator.base_url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        runs = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runner", "run", str(tmp_path / "jobs.yaml")),
                *("--db", str(tmp_path / "fresh.db")),
                env=environment,
                stderr=subprocess.PIPE,
            )
            for _ in range(3)
        ]
        said = [(await run.communicate())[1].decode() for run in runs]
        assert [run.returncode for run in runs] == [0, 0, 0], said
        assert not any("locked" in words or "Traceback" in words for words in said)
        books = house.simulator.books
        assert (len(books.prompts), books.restarts, books.divergences) == (6, 0, 0)
        assert books.tokens_generated_twice <= 2 * books.requests  # white space at the seams
