"""A job that takes its process down with it, in the company of jobs that do not."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio
import pytest

from runner.jobs.spec import BatchLimits, BatchSpec
from runner.jobs.states import State
from runner.library import open_store, read
from runner.simulator import Simulator, SimulatorOptions
from runner.workers.settings import WorkerSettings
from tests.house import job

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MAX_RESCUES = WorkerSettings().max_rescues
# A process that dies as soon as it is about to ask for a poisonous job's text.
PROCESS = """\
import asyncio, os, signal, sys
from runner.library import open_store, run
from runner.messages.client import MessagesClient
from runner.workers.job_run import JobRun

begin = JobRun._begin

async def poisoned(self, *what):
    if "poison" in self.claim.job_id:
        os.kill(os.getpid(), signal.SIGKILL)
    return await begin(self, *what)

JobRun._begin = poisoned

async def main(database, base_url):
    client = MessagesClient(api_key="test-key", base_url=base_url, one_block=False)
    async with open_store(database) as store, run(store, client=client) as documents:
        async for _ in documents:
            pass
    await client.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_poisonous_job_is_given_up_and_the_others_finish(database):
    good = [job(f"good-{n}") for n in range(5)]
    bad = [job("poison-1"), job("poison-2")]
    jobs = [good[0], bad[0], *good[1:3], bad[1], *good[3:]]
    # Long enough that nobody has text when the poison works.
    async with Simulator(SimulatorOptions(first_token_s=0.1)) as simulator:
        async with open_store(database) as store:
            await store.submit(BatchSpec("b", BatchLimits(concurrency=5)), jobs)
        deaths = 0
        while (status := await run_once(database, simulator.base_url)) == -signal.SIGKILL:
            deaths += 1
            assert deaths <= len(bad) * (MAX_RESCUES + 1)
        assert status == 0
        assert deaths > MAX_RESCUES
        async with open_store(database, create=False) as store:
            for spec in bad:
                row = await store.find_job(spec.id)
                assert row.state is State.DISCARDED
                assert row.error == (
                    f"its process died {MAX_RESCUES + 1} times in a row while working on it, "
                    "each time before any of its text was saved"
                )
            for spec in good:
                document = await read(store, spec.id)
                body = {"model": spec.model, "max_tokens": 1, "messages": list(spec.messages)}
                assert (document.complete, document.text) == (True, simulator.true_document(body))
            assert await store.check() == []


async def run_once(database: str, base_url: str) -> int:
    done = await anyio.run_process(
        [sys.executable, "-c", PROCESS, database, base_url], cwd=ROOT, check=False
    )
    return done.returncode
