"""A worker that waits for paused batches, and tries again where only trying can tell."""

from __future__ import annotations

import anyio
import pytest

from runner.jobs.spec import BatchLimits
from runner.simulator import SimulatorOptions
from runner.store.records import PauseCause
from runner.workers.settings import WorkerSettings
from tests.house import House, a_house, job

pytestmark = pytest.mark.anyio

NEVER = WorkerSettings(checkpoint_s=0.01, poll_s=0.02, ask_again_s=1e9)
OFTEN = WorkerSettings(checkpoint_s=0.01, poll_s=0.02, ask_again_s=0.1)


async def paused(house: House, cause: PauseCause | None) -> None:
    with anyio.fail_after(60):
        while (await house.store.batches())[0].paused is not cause:  # noqa: ASYNC110  no word is sent
            await anyio.sleep(0.01)


@pytest.mark.parametrize("wait", [True, False])
async def test_without_waiting_a_spending_limit_ends_the_work(tmp_path, wait: bool) -> None:
    jobs = [job(f"a{n}") for n in range(12)]
    async with a_house(tmp_path, SimulatorOptions(spend_cap_tokens=1500)) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=3))
        worker = house.worker(wait=wait, settings=NEVER)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await paused(house, PauseCause.SPEND_CAP)
            if not wait:
                return  # it ends by itself, or the test hangs
            house.simulator.change(spend_cap_tokens=0)
            assert await house.store.resume((await house.store.batches())[0].key)
        await house.assert_whole(*jobs)
        assert house.simulator.books.restarts == 0


async def test_one_job_finds_out_that_the_limit_was_lifted(tmp_path, monkeypatch) -> None:
    jobs = [job(f"a{n}") for n in range(12)]
    async with a_house(tmp_path, SimulatorOptions(spend_cap_tokens=1500)) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=6))
        worker = house.worker(wait=True, settings=OFTEN)
        books = house.simulator.books
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await paused(house, PauseCause.SPEND_CAP)
            refused, tries, resume = 0, 0, house.store.resume

            async def counted(batch_key: int, *, causes: list[PauseCause]) -> bool:
                nonlocal refused, tries
                refused = refused or books.faults["http_429_spend_cap"]  # until the first try
                tries += 1
                return await resume(batch_key, causes=causes)

            monkeypatch.setattr(house.store, "resume", counted)
            await books.wait_for(
                lambda books: tries > 0 and books.faults["http_429_spend_cap"] >= refused + 6
            )
            # Each try was one request, however many jobs could have gone.
            assert books.faults["http_429_spend_cap"] - refused <= tries
            house.simulator.change(spend_cap_tokens=0)
        await house.assert_whole(*jobs)
        assert books.restarts == 0
        told = [line for line in worker.progress.notices if "is paused (spend_cap)" in line]
        assert len(told) == 1
