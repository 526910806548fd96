"""Budgets at work: a batch stops before it passes its own, and goes on when it is raised."""

from __future__ import annotations

from typing import Any

import pytest

from runner.jobs.price import Rates
from runner.jobs.spec import BatchLimits, Budget, ContinuationSpec, JobSpec
from runner.jobs.states import Finish, State
from runner.library import lift_pauses
from runner.simulator import SimulatorOptions
from runner.store.records import BatchRow, PauseCause, Selection
from tests.house import House, a_house, job
from tests.strangers import a_stranger

pytestmark = pytest.mark.anyio

DOLLAR = 1_000_000_000
FREE_INPUT = Rates(0, 5 * DOLLAR, 0, 0, 0)
A_CALL = 80 * 5_000  # nano-dollars: 80 tokens of output at 5 dollars a million
LOCAL = {"model": "local-llama"}  # its price nobody knows


async def batch(house: House) -> BatchRow:
    (row,) = await house.store.batches()
    return row


async def submit(house: House, count: int = 6, **limits: Any) -> list[JobSpec]:
    specs = [job(f"j{number}") for number in range(count)]
    given = {"prices": {"claude-haiku-4-5": FREE_INPUT}} | limits
    await house.submit(*specs, limits=BatchLimits(**given))
    return specs


def events(house: House, kind: str) -> int:
    with a_stranger(house.database) as db:
        ((count,),) = db.execute("SELECT count(*) FROM job_event WHERE kind = ?", (kind,))
    return int(count)


async def test_a_batch_stops_before_it_passes_its_budget_and_goes_on_when_it_is_raised(tmp_path):
    async with a_house(tmp_path) as house:
        specs = await submit(house, max_cost_nano_usd=7 * A_CALL)
        worker = house.worker()
        await worker.run()
        row = await batch(house)
        assert row.paused is PauseCause.BUDGET
        assert 0 < row.cost_nano_usd <= 7 * A_CALL
        assert row.cost_nano_usd > 6 * A_CALL  # what was left would not have done for a call
        assert row.reserved_nano_usd == 0
        assert "`max_cost_usd` of $0.0028 has no room" in str(row.pause_reason)
        assert any("b is paused" in notice for notice in worker.progress.notices)
        assert not any("was billed" in notice for notice in worker.progress.notices)
        for spec in specs:
            assert house.true_text(spec).startswith(await house.text(spec.id))
            assert (await house.row(spec.id)).attempt == 0
        # The same budget again: it says so again, and spends nothing.
        spent, requests = row.cost_nano_usd, house.simulator.books.requests_by_kind["messages"]
        await lift_pauses(house.store)
        await house.worker().run()
        row = await batch(house)
        assert (row.paused, row.cost_nano_usd) == (PauseCause.BUDGET, spent)
        assert house.simulator.books.requests_by_kind["messages"] == requests
        await submit(house, max_cost_nano_usd=1000 * A_CALL)
        await house.worker().run()
        await house.assert_whole(*specs)
        assert house.simulator.books.restarts == 0


async def test_a_batch_that_waits_for_its_budget_is_not_claimed_again_and_again(tmp_path):
    """One long call holds the whole budget: twenty others wait for it, and are asked once each."""
    options = SimulatorOptions(tokens_per_second=150)  # half a second for the call
    async with a_house(tmp_path, options) as house:
        await submit(house, 20, max_cost_nano_usd=A_CALL + A_CALL // 2)
        await house.worker().run()
        row = await batch(house)
        assert row.paused is PauseCause.BUDGET
        assert row.calls == 1
        # Twenty at first, then the one that finds that nothing fits any more.
        assert events(house, "waits") <= 20
        assert events(house, "claimed") <= 22


async def test_a_budget_in_output_tokens(tmp_path):
    async with a_house(tmp_path) as house:
        await submit(house, max_output_tokens=500, prices={})
        await house.worker().run()
        row = await batch(house)
        assert row.paused is PauseCause.BUDGET
        assert 420 < row.spent_output_tokens <= 500
        assert row.spent_output_tokens == row.usage.output_tokens


async def test_what_is_expected_lets_more_calls_run_at_once(tmp_path):
    """Documents of some thirty tokens, and max_tokens many times that."""
    for budget in Budget:
        folder = tmp_path / budget
        folder.mkdir()
        async with a_house(folder, SimulatorOptions(first_token_s=0.03)) as house:
            short = [job(f"s{n}", mark="tokens=12", max_tokens=1_000) for n in range(20)]
            limits = BatchLimits(
                concurrency=8,
                budget=budget,
                max_cost_nano_usd=2_700 * 5_000,  # two at once, and what all of them come to
                prices={"claude-haiku-4-5": FREE_INPUT},
            )
            await house.submit(*short[:6], limits=limits)
            await house.worker().run()
            assert house.simulator.books.streams_open_most <= 2  # nothing is learned yet
            await house.submit(*short, limits=limits)
            await house.worker().run()
            row = await batch(house)
            assert (row.complete, row.reserved_nano_usd) == (20, 0)
            most = house.simulator.books.streams_open_most
            assert most > 2 if budget is Budget.EXPECTED else most <= 2


async def test_a_document_ends_before_it_passes_its_own_budget(tmp_path):
    async with a_house(tmp_path) as house:
        bound = ContinuationSpec(max_cost_nano_usd=2 * A_CALL)
        limits = BatchLimits(prices={"claude-haiku-4-5": FREE_INPUT})
        spec, free = job("a", continuation=bound), job("free")
        await house.submit(spec, free, limits=limits)
        await house.worker().run()
        row = await house.row("a")
        assert (row.state, row.finish, row.calls) == (State.COMPLETED, Finish.MAX_COST, 2)
        assert row.cost_nano_usd <= 2 * A_CALL
        assert str(row.error).startswith("max_cost_usd 0.0008 reached: $0.0008 are spent")
        assert house.true_text(spec).startswith(await house.text("a"))
        await house.assert_whole(free)
        # What was spent before a retry counts no more.
        await house.store.retry(Selection(job_keys=(row.key,)))
        await house.worker().run()
        await house.assert_whole(spec)


async def test_an_old_batch_whose_price_nobody_knows_pauses_and_says_why(tmp_path):
    async with a_house(tmp_path) as house:
        await house.submit(job("a", **LOCAL), limits=BatchLimits(max_cost_nano_usd=DOLLAR))
        await house.worker().run()
        row = await batch(house)
        assert row.paused is PauseCause.BUDGET
        assert "the price of local-llama is not known; give it under `prices`" in str(
            row.pause_reason
        )
        assert row.calls == 0


async def test_an_unknown_price_without_a_budget_is_fine(tmp_path):
    async with a_house(tmp_path) as house:
        await house.submit(job("a", **LOCAL))
        await house.worker().run()
        row = await batch(house)
        assert row.complete == 1
        assert row.unpriced_calls == row.calls


async def test_broken_streams_and_errors_give_back_what_was_set_aside(tmp_path):
    script = {1: "http_529", 2: "drop:30", 3: "http_500", 5: "reset:3", 6: "http_429"}
    options = SimulatorOptions(fault_script=script, retry_after_s=0)
    async with a_house(tmp_path, options) as house:
        specs = await submit(house, 4, max_cost_nano_usd=100 * A_CALL)
        await house.worker().run()
        await house.assert_whole(*specs)
        row = await batch(house)
        assert (row.reserved_nano_usd, row.reserved_output_tokens) == (0, 0)
        assert row.cost_nano_usd <= 100 * A_CALL
