"""Workers that keep pace together, against the simulator and on one real database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from runner.jobs.spec import BatchLimits
from runner.jobs.states import State
from runner.messages.client import MessagesClient
from runner.messages.errors import CallError, ErrorKind
from runner.simulator import SimulatorOptions
from runner.store.records import PauseCause
from runner.store.store import Store
from runner.workers import judgement
from runner.workers.progress import Progress
from tests.house import Impatient, a_house, job

pytestmark = pytest.mark.anyio


async def test_four_workers_divide_a_limit_and_hardly_meet_it(tmp_path):
    options = SimulatorOptions(requests_per_minute=2_400, burst_s=1.0)
    jobs = [job(f"j{n}", mark="tokens=8") for n in range(160)]
    async with a_house(tmp_path, options) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=50))
        async with anyio.create_task_group() as workers:
            for _ in range(4):
                workers.start_soon(house.worker().run)
        await house.assert_whole(*jobs[::20])
        books = house.simulator.books
        assert books.requests_by_status["429"] <= 1
        assert not [entry for entry in books.impatient_log if entry.since_429_s > 0.5]


async def test_one_429_holds_every_process_until_it_may_be_asked_again(tmp_path):
    """Each worker has a store and a client of its own, as a process has."""
    options = SimulatorOptions(
        fault_script={6: "http_429"}, retry_after_s=2, tokens_per_second=200, document_tokens=(8, 8)
    )
    jobs = [job(f"j{n}", mark="tokens=60") for n in range(30)]
    async with a_house(tmp_path, options) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=4))
        async with (
            await Store.open(house.database) as another,
            anyio.create_task_group() as workers,
        ):
            client = MessagesClient(
                api_key="test-key", base_url=house.simulator.base_url, one_block=False
            )
            house_of_another = replace(house, store=another, client=client)
            workers.start_soon(house.worker().run)
            workers.start_soon(house_of_another.worker().run)
        await client.aclose()
        await house.assert_whole(*jobs)
        log = house.simulator.books.impatient_log
        # What was on its way when the 429 was answered, and nothing after that.
        assert not [entry for entry in log if entry.since_429_s > 0.5]


class Mending(Progress):
    """Calls `mend` when it is told that the API is down."""

    mend: Callable[[], None]

    def notice(self, text: str) -> None:
        super().notice(text)
        if "is down" in text:
            asyncio.get_running_loop().call_later(2.5, self.mend)


async def test_while_the_api_is_down_no_job_loses_its_attempts(tmp_path):
    jobs = [job(f"j{n}") for n in range(20)]
    async with a_house(tmp_path, SimulatorOptions(overloaded_s=3_600)) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=20, max_attempts=7))
        progress = Mending()
        progress.mend = lambda: house.simulator.change(overloaded_s=0.0)
        await house.worker(progress=progress).run()
        await house.assert_whole(*jobs)
        notices = list(progress.notices)
        assert sum("is down" in notice for notice in notices) == 1
        assert sum("answers again" in notice for notice in notices) == 1
        # Five that show it, and those that try it again.
        assert house.simulator.books.requests_by_status["529"] <= 9


async def test_a_stop_does_not_wait_for_leave(tmp_path):
    async with a_house(tmp_path) as house:
        limits = BatchLimits(concurrency=3, requests_per_minute=1)
        await house.submit(*(job(name) for name in "abc"), limits=limits)
        worker = house.worker()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as work:
                work.start_soon(worker.run)
                await house.simulator.books.wait_for(
                    lambda books: books.requests_by_status["200"] > 1
                )
                worker.stop()
        (batch,) = await house.store.batches()
        assert batch.count(State.AVAILABLE) >= 2


async def test_a_batchs_own_limit_is_kept_and_changes_while_it_runs(tmp_path):
    jobs = [job(name, mark="tokens=8") for name in "abcd"]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=4, requests_per_minute=2))
        (batch,) = await house.store.batches()
        worker = house.worker()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as work:
                work.start_soon(worker.run)
                books = house.simulator.books
                await books.wait_for(lambda books: books.requests_by_kind["messages_stream"] >= 1)
                while not worker._pacing._caps:
                    await anyio.lowlevel.checkpoint()
                assert books.requests_by_kind["messages_stream"] < 4
                await house.store.set_limits(batch.key, {"requests_per_minute": None})
        await house.assert_whole(*jobs)


async def test_a_paused_batch_waits_for_no_leave(tmp_path):
    async with a_house(tmp_path) as house:
        limits = BatchLimits(concurrency=3, requests_per_minute=1)
        await house.submit(*(job(name) for name in "abc"), limits=limits)
        (batch,) = await house.store.batches()
        worker = house.worker()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as work:
                work.start_soon(worker.run)
                await house.simulator.books.wait_for(
                    lambda books: books.requests_by_kind["messages_stream"] > 0
                )
                await house.store.pause(batch.key, PauseCause.SPEND_CAP, "as a test")
        (batch,) = await house.store.batches()
        assert batch.count(State.EXECUTING) == 0


def test_an_error_of_an_api_that_is_down_costs_no_attempt():
    error = CallError(ErrorKind.RETRY, "overloaded", type="overloaded_error", status=529)
    settled = judgement.of_error(
        error, attempt=9, max_attempts=10, progress=False, random=Impatient(), down_s=30.0
    )
    assert (settled.state, settled.delay_ms) == (State.SCHEDULED, 30_000)
