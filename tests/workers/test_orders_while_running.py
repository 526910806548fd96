"""What an owner orders while a process works: cancel, pause, resume, retry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, PastCall, Send
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.spec import BatchLimits, BatchSpec, ContinuationSpec
from runner.jobs.states import Finish, State
from runner.messages.models import traits
from runner.simulator import SimulatorOptions
from runner.store.records import PauseCause, Selection
from runner.store.store import Store
from tests.house import House, a_house, job

pytestmark = pytest.mark.anyio

ENDLESS = ContinuationSpec(max_calls=10_000)


async def until(seen: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(60):
        while not await seen():  # noqa: ASYNC110  another connection's commits send no word
            await anyio.sleep(0.01)


async def calls_of(house: House, id: str) -> int:
    return len(await house.store.calls((await house.row(id)).key))


async def test_a_silent_job_notices_its_cancel(tmp_path) -> None:
    # A stream that brings nothing: no chunk is there that could be refused.
    options = SimulatorOptions(fault_script={1: "stall:0"})
    async with a_house(tmp_path, options) as house:
        await house.submit(job("a"))

        async def begun() -> bool:
            return await calls_of(house, "a") == 1

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(house.worker().run)
                await until(begun)
                async with await Store.open(house.database) as other:
                    await other.cancel(Selection(job_keys=((await house.row("a")).key,)))
                # The worker ends by itself, since its only job is final.


async def test_a_paused_batch_ends_its_calls_and_goes_on_when_resumed(tmp_path) -> None:
    spec = job("a", mark="words=900", continuation=ENDLESS)
    options = SimulatorOptions(tokens_per_second=400, tokens_per_event=4)
    async with a_house(tmp_path, options) as house, anyio.create_task_group() as tasks:
        await house.submit(spec)
        tasks.start_soon(house.worker().run)

        async def writing() -> bool:
            return await calls_of(house, "a") >= 2

        await until(writing)
        async with await Store.open(house.database) as other:
            await other.pause(1, PauseCause.USER, "lunch")

            async def handed_back() -> bool:
                return (await house.row("a")).state is State.AVAILABLE

            await until(handed_back)
            made = await house.store.calls(1)
            assert all(call.outcome and call.outcome.stop_reason for call in made)  # none broken
            assert (await house.row("a")).error == "its batch is paused: lunch"
            await anyio.sleep(0.2)
            assert await calls_of(house, "a") == len(made)
            await other.resume(1)
        # The worker waited for it, and ends when the document does.
        with anyio.fail_after(60):
            while (await house.row("a")).state is not State.COMPLETED:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        await house.assert_whole(spec)


async def test_a_document_that_a_bound_cut_goes_on_after_a_retry(tmp_path) -> None:
    spec = job("a", continuation=ContinuationSpec(max_calls=2))
    async with a_house(tmp_path) as house:
        await house.submit(spec)
        await house.worker().run()
        assert (await house.row("a")).finish is Finish.MAX_CALLS
        rounds = 0
        while (await house.row("a")).finish is Finish.MAX_CALLS and rounds < 9:
            before = await house.text("a")
            await house.store.retry(Selection())
            await house.worker().run()
            assert len(await house.text("a")) > len(before)
            rounds += 1
        await house.assert_whole(spec)
        assert house.simulator.books.restarts == 0


async def test_a_worker_leaves_the_other_kind_alone(tmp_path) -> None:
    async with a_house(tmp_path) as house:
        await house.store.submit(BatchSpec("trial"), [job("a")], simulated=True)
        await house.submit(job("a"))
        await house.worker(simulated=True).run()
        assert (await house.store.find_job("trial/a")).state is State.COMPLETED
        assert (await house.row("a")).state is State.AVAILABLE


def test_uncounted_calls_count_against_no_bound() -> None:
    spec = job("a", continuation=ContinuationSpec(max_calls=2, max_output_tokens=100))
    cut = CallOutcome("max_tokens", usage=Usage(output_tokens=60))
    past = [PastCall(0, "Once upon", cut), PastCall(9, " a time", cut)]
    model = traits(spec.model, "http://localhost")
    assert isinstance(ContinuationLoop(spec, model, past).next_step(), Finished)
    past = [PastCall(one.resume_at, one.text, one.outcome, counted=False) for one in past]
    loop = ContinuationLoop(spec, model, past)
    assert isinstance(loop.next_step(), Send)
    assert loop.document.text == "Once upon a time"
    past.append(
        PastCall(16, " there was", CallOutcome("max_tokens", usage=Usage(output_tokens=100)))
    )
    assert isinstance(ContinuationLoop(spec, model, past).next_step(), Finished)


async def test_another_concurrency_holds_at_once(tmp_path) -> None:
    options = SimulatorOptions(tokens_per_second=50)
    async with a_house(tmp_path, options) as house, anyio.create_task_group() as tasks:
        # Many short calls: what is to end does so soon.
        specs = [job(f"a{n}", max_tokens=20, continuation=ENDLESS) for n in range(12)]
        await house.submit(*specs, limits=BatchLimits(concurrency=2))
        worker = house.worker()
        tasks.start_soon(worker.run)
        books = house.simulator.books
        await books.wait_for(lambda books: books.streams_open == 2)
        (batch,) = await house.store.batches()
        async with await Store.open(house.database) as other:
            await other.set_limits(batch.key, {"concurrency": 5})
            with anyio.fail_after(60):
                await books.wait_for(lambda books: books.streams_open == 5)
            assert books.streams_open_most == 5
        worker.stop()


async def test_another_rate_limit_holds_within_seconds(tmp_path) -> None:
    async with a_house(tmp_path) as house, anyio.create_task_group() as tasks:
        specs = [job(f"a{n}", max_tokens=4000) for n in range(20)]
        await house.submit(*specs, limits=BatchLimits(requests_per_minute=2))
        worker = house.worker()
        tasks.start_soon(worker.run)
        books = house.simulator.books
        await books.wait_for(lambda books: books.requests_by_kind["messages"] >= 1)
        (batch,) = await house.store.batches()
        # At two a minute this would take ten minutes.
        async with await Store.open(house.database) as other:
            await other.set_limits(batch.key, {"requests_per_minute": None})
        with anyio.fail_after(60):
            await books.wait_for(lambda books: books.requests_by_kind["messages"] >= 20)
