"""A working process from claim to settlement, against the simulator and a real database."""

from __future__ import annotations

import time

import anyio
import pytest

from runner.jobs.spec import BatchLimits, ContinuationSpec, Until
from runner.jobs.states import Finish, State
from runner.simulator import SimulatorOptions
from runner.store.records import PauseCause
from runner.workers.settings import WorkerSettings
from tests.house import QUICK, a_house, job
from tests.messages.turns import every_turn

pytestmark = pytest.mark.anyio


async def test_documents_come_out_whole_over_many_calls(tmp_path):
    jobs = [job(name) for name in "abcdef"]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs)
        await house.worker().run()
        await house.assert_whole(*jobs)
        row = await house.row()
        assert row.finish is Finish.END_TURN
        assert row.calls > 2
        assert house.simulator.books.restarts == 0


@pytest.mark.parametrize(
    "script",
    [
        {1: "http_529"},
        {1: "http_500", 2: "http_503"},
        {2: "drop:20"},
        {1: "drop:5", 2: "error_overloaded:7", 3: "clean_end:9", 4: "reset:3"},
        {1: "invalid_json:4", 3: "duplicate_events", 4: "unknown_events", 5: "split_packets"},
    ],
    ids=lambda script: "+".join(script.values()),
)
async def test_errors_worth_another_try_are_tried_again(tmp_path, script):
    spec = job("a")
    async with a_house(tmp_path, SimulatorOptions(fault_script=script)) as house:
        await house.submit(spec)
        await house.worker().run()
        await house.assert_whole(spec)


async def test_a_broken_stream_keeps_its_text_and_estimates_its_usage(tmp_path):
    spec = job("a")
    async with a_house(tmp_path, SimulatorOptions(fault_script={1: "drop:30"})) as house:
        await house.submit(spec)
        await house.worker().run()
        await house.assert_whole(spec)
        first, second, *_ = await house.store.calls((await house.row()).key)
        assert first.outcome is not None
        assert (first.outcome.stop_reason, first.outcome.usage.estimated) == (None, True)
        assert first.text
        assert second.resume_at > 0
        assert house.simulator.books.restarts == 0


async def test_a_rate_limit_costs_no_attempt_and_cools_the_model(tmp_path):
    jobs = [job("a"), job("b")]
    options = SimulatorOptions(fault_script={1: "http_429"}, retry_after_s=1)
    async with a_house(tmp_path, options) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=1))
        worker = house.worker()
        before = time.monotonic()
        await worker.run()
        assert time.monotonic() - before >= 1
        await house.assert_whole(*jobs)
        assert (await house.row()).attempt == 0
        assert any("rate limit" in notice for notice in worker.progress.notices)


async def test_given_up_after_max_attempts_without_progress(tmp_path):
    good, bad = job("good"), job("bad", mark="always=http_500")
    async with a_house(tmp_path) as house:
        await house.submit(good, bad, limits=BatchLimits(max_attempts=2))
        await house.worker().run()
        await house.assert_whole(good)
        row = await house.row("bad")
        assert row.state is State.DISCARDED
        assert "given up after 2 attempts" in (row.error or "")
        assert [call.outcome is not None for call in await house.store.calls(row.key)] == [True] * 2


async def test_progress_fills_the_retry_budget_again(tmp_path):
    spec = job("a", max_tokens=4000)
    script = dict.fromkeys(range(1, 9), "drop:12")
    async with a_house(tmp_path, SimulatorOptions(fault_script=script)) as house:
        await house.submit(spec, limits=BatchLimits(max_attempts=2))
        await house.worker().run()
        await house.assert_whole(spec)


async def test_a_jobs_own_error_discards_it_alone(tmp_path):
    good, bad = job("good"), job("bad", model="claude-nothing")
    async with a_house(tmp_path) as house:
        await house.submit(good, bad)
        worker = house.worker()
        await worker.run()
        await house.assert_whole(good)
        row = await house.row("bad")
        assert row.state is State.DISCARDED
        assert "claude-nothing" in (row.error or "")


async def test_a_refusal_is_no_document(tmp_path):
    async with a_house(tmp_path) as house:
        await house.submit(job("a", mark="refusal=bio"))
        await house.worker().run()
        row = await house.row()
        assert (row.state, row.finish) == (State.DISCARDED, Finish.REFUSAL)
        assert "bio" in (row.error or "")


async def test_a_refused_key_pauses_the_batch_and_discards_nothing(tmp_path):
    jobs = [job(name) for name in "abc"]
    async with a_house(tmp_path, SimulatorOptions(api_key="another")) as house:
        await house.submit(*jobs)
        await house.worker().run()
        (batch,) = await house.store.batches()
        assert batch.paused is PauseCause.CREDENTIALS
        assert batch.count(State.AVAILABLE) == 3
        assert "test-key" not in (batch.pause_reason or "")


async def test_bounds_cut_a_document_and_say_so(tmp_path):
    async with a_house(tmp_path) as house:
        await house.submit(
            job("a", continuation=ContinuationSpec(max_calls=2)),
            job("b", continuation=ContinuationSpec(max_output_tokens=100)),
        )
        await house.worker().run()
        assert (await house.row("a")).finish is Finish.MAX_CALLS
        row = await house.row("b")
        assert row.finish is Finish.MAX_OUTPUT_TOKENS
        assert row.usage.output_tokens <= 100
        assert house.true_text(job("b")).startswith((await house.text("b")).rstrip())


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-5-5"])
async def test_a_full_context_window_is_counted_before_a_call_is_paid_for(tmp_path, model):
    spec = job("a", mark="tokens=3000", model=model, max_tokens=60)
    async with a_house(tmp_path, SimulatorOptions(context_window_tokens=1500)) as house:
        await house.submit(spec)
        await house.worker().run()
        row = await house.row()
        assert (row.state, row.finish) == (State.COMPLETED, Finish.CONTEXT_WINDOW)
        assert house.true_text(spec).startswith((await house.text()).rstrip())
        assert house.simulator.books.requests_by_kind["count_tokens"] >= 1
        calls = await house.store.calls(row.key)
        assert all(call.text for call in calls), "a call was made that had no room"


async def test_where_nobody_counts_the_call_tells(tmp_path, monkeypatch):
    async def nobody(body):
        return None

    spec = job("a", mark="tokens=3000", max_tokens=200)
    async with a_house(tmp_path, SimulatorOptions(context_window_tokens=1500)) as house:
        monkeypatch.setattr(house.client, "count_tokens", nobody)
        await house.submit(spec)
        await house.worker().run()
        assert (await house.row()).finish is Finish.CONTEXT_WINDOW


async def test_concurrency_of_batch_model_and_process(tmp_path):
    for limits, settings, most in [
        (BatchLimits(concurrency=3), QUICK, 3),
        (BatchLimits(concurrency_by_model={"claude-haiku-4-5": 2}), QUICK, 2),
        (BatchLimits(), WorkerSettings(concurrency=1, checkpoint_s=0.01, poll_s=0.02), 1),
    ]:
        folder = tmp_path / str(most)
        folder.mkdir()
        async with a_house(folder) as house, anyio.create_task_group() as tasks:
            gate = house.simulator.hold(10)
            await house.submit(*(job(f"j{n}") for n in range(8)), limits=limits)
            tasks.start_soon(house.worker(settings=settings).run)
            await house.simulator.books.wait_for(lambda b, most=most: b.streams_open == most)
            gate.release()
        assert house.simulator.books.streams_open_most == most


async def test_higher_priority_goes_first_then_the_order_of_the_file(tmp_path):
    async with a_house(tmp_path) as house:
        order: list[int] = []
        await house.submit(
            job("a"), job("b"), job("c", priority=5), limits=BatchLimits(concurrency=1)
        )
        await house.worker(settled=order.append).run()
        assert [(await house.store.job(key)).id for key in order] == ["c", "a", "b"]


async def test_a_graceful_stop_saves_hands_back_and_charges_nothing(tmp_path):
    jobs = [job("a"), job("b"), job("waiting")]
    async with a_house(tmp_path) as house:
        gate = house.simulator.hold(100)
        await house.submit(*jobs, limits=BatchLimits(concurrency=2))
        # Saved by the stop, and by nothing before it: the interval is longer than the test.
        worker = house.worker(settings=WorkerSettings(checkpoint_s=3600, poll_s=0.02))
        with anyio.fail_after(60):  # the simulator holds its streams until the stop is over
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.run)
                await house.simulator.books.wait_for(lambda b: b.tokens_generated > 40)
                await _streamed(worker, 150)
                worker.stop()
        rows = [await house.row(spec.id) for spec in jobs]
        assert [(row.state, row.attempt, row.rescues) for row in rows] == [
            (State.AVAILABLE, 0, 0)
        ] * 3
        assert all([len(await house.text(spec.id)) > 50 for spec in jobs[:2]])
        assert await house.store.workers() == []
        gate.release()
        await house.worker().run()
        await house.assert_whole(*jobs)
        assert house.simulator.books.restarts == 0


async def test_text_that_was_left_to_gather_is_saved_at_once(tmp_path, monkeypatch):
    """It has waited for its checkpoint where it was not read; waiting once more would double what a
    crash costs."""
    every_turn(monkeypatch)
    async with a_house(tmp_path) as house:
        house.simulator.hold(100)
        await house.submit(job("a"))
        worker = house.worker(settings=WorkerSettings(checkpoint_s=3600, poll_s=0.02))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            with anyio.fail_after(60):
                while not await house.text():  # noqa: ASYNC110  a database tells nobody
                    await anyio.sleep(0.01)
            worker.stop()


async def test_a_cancelled_worker_hands_its_jobs_back(tmp_path):
    spec = job("a")
    async with a_house(tmp_path) as house:
        house.simulator.hold(100)
        await house.submit(spec)
        worker = house.worker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await _streamed(worker, 50)
            tasks.cancel_scope.cancel()
        row = await house.row()
        assert (row.state, row.rescues) == (State.AVAILABLE, 0)
        assert len(await house.text()) >= 50


async def test_a_worker_that_cannot_renew_its_lease_lets_go_and_begins_anew(tmp_path):
    spec = job("a")
    settings = WorkerSettings(
        checkpoint_s=0.01, poll_s=0.02, lease_s=0.4, trust_s=0.2, heartbeat_s=0.05
    )
    async with a_house(tmp_path) as house:
        gate = house.simulator.hold(100)
        await house.submit(spec)
        worker = house.worker(settings=settings)
        renew, house.store.renew_lease = house.store.renew_lease, _never
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await _streamed(worker, 50)
            await house.simulator.books.wait_for(lambda b: b.disconnects > 0)
            house.store.renew_lease = renew
            gate.release()
        await house.assert_whole(spec)
        assert any("lease was lost" in notice for notice in worker.progress.notices)
        assert (await house.row()).claim > 1


async def test_work_goes_on_without_end_until_stopped(tmp_path):
    first, second = job("a"), job("b")
    async with a_house(tmp_path) as house:
        finished: list[int] = []
        worker = house.worker(until_final=False, settled=finished.append)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            for number, spec in enumerate((first, second), 1):
                await house.submit(spec)
                with anyio.fail_after(60):
                    while len(finished) < number:
                        await anyio.lowlevel.checkpoint()
            worker.stop()
        await house.assert_whole(first, second)


async def test_a_fault_of_ours_costs_one_job_not_the_night(tmp_path, monkeypatch):
    jobs = [job("a"), job("b")]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs)
        client = house.client
        traits = client.traits
        calls = iter([True])

        def broken(model):
            if next(calls, False):
                raise ZeroDivisionError("a bug")
            return traits(model)

        monkeypatch.setattr(client, "traits", broken)
        await house.worker().run()
        states = {spec.id: (await house.row(spec.id)).state for spec in jobs}
        assert sorted(states.values()) == [State.COMPLETED, State.DISCARDED]
        (failed,) = [name for name, state in states.items() if state is State.DISCARDED]
        assert "a fault in the program" in ((await house.row(failed)).error or "")


async def _never(worker_id, *, lease_ms):
    await anyio.sleep_forever()


async def _streamed(worker, characters):
    """Wait until so much text has come in."""
    with anyio.fail_after(60):
        while worker.progress.output_characters < characters:
            await anyio.lowlevel.checkpoint()


async def test_a_stream_is_closed_where_until_wants_the_document_to_stop(tmp_path):
    spec = job("a", max_tokens=4_000, until=Until(min_words=40, stop=True))
    async with a_house(tmp_path) as house:
        await house.submit(spec)
        await house.worker().run()
        row = await house.row()
        (call,) = await house.store.calls(row.key)
        assert (row.state, row.finish) == (State.COMPLETED, Finish.UNTIL_MET)
        assert len(call.text.split()) == 40
        assert call.outcome is not None
        assert call.outcome.stop_reason is None
        assert call.outcome.error == "closed: the condition of `until` is met"
