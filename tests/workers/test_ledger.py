"""The ledger against the simulator's books, request by request."""

from __future__ import annotations

from collections import Counter
from decimal import ROUND_HALF_UP, Decimal

import anyio
import pytest

from runner.jobs.spec import BatchLimits, JobSpec
from runner.messages import backoff
from runner.simulator import FaultKind, SimulatorOptions
from runner.simulator.books import Bill
from runner.store.ledger import By
from runner.store.records import SavedCall
from tests.house import House, a_house, job

pytestmark = pytest.mark.anyio

# Typed in by hand, in dollars a million tokens: input, output, write for 5 minutes and for an
# hour, read.
PRICE_LIST = {
    "claude-haiku-4-5": ("1", "5", "1.25", "2", "0.1"),
    "claude-opus-4-5": ("5", "25", "6.25", "10", "0.5"),
    "claude-haiku-5-5": ("0.1", "0.5", "0.125", "0.2", "0.01"),
    "claude-sonnet-5-5": ("2", "10", "2.5", "4", "0.1"),
    "claude-opus-5-5": ("4", "20", "5", "8", "0.2"),
}
# What the API does to one request in four. What pauses a batch or ends a job is left out.
FAULTS = {
    "http_429": 0.03,
    "http_500": 0.03,
    "http_529": 0.03,
    "drop": 0.04,
    "error_overloaded": 0.03,
    "clean_end": 0.03,
    "invalid_json": 0.02,
    "duplicate_events": 0.03,
    "split_packets": 0.03,
}


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch):
    monkeypatch.setattr(backoff, "RATE_LIMIT_LEAST_S", 0.05)


def cost_nano_usd(bill: Bill) -> int:
    tokens = (
        bill.input_tokens,
        bill.output_tokens,
        bill.cache_creation_5m_tokens,
        bill.cache_creation_1h_tokens,
        bill.cache_read_tokens,
    )
    prices = map(Decimal, PRICE_LIST[bill.model])
    usd = sum(count * price for count, price in zip(tokens, prices, strict=True)) / 1_000_000
    return int((usd * 10**9).to_integral_value(ROUND_HALF_UP))


def mixed(count: int) -> list[JobSpec]:
    """Jobs of every kind: models of both strategies, thinking, refusals, marks for the cache."""
    style = "Write as a patient harbour master would, and never hurry. " * 150
    jobs = []
    for n in range(count):
        model = list(PRICE_LIST)[n % len(PRICE_LIST)]
        mark = "tokens=200"
        if n % 4 == 1 and model != "claude-haiku-4-5":
            mark += " thinks=25"
        if n % 11 == 3:
            mark += " refusal refusal_after=40"
        ttl = {0: None, 1: "5m", 2: "1h"}[n % 3]
        system: object = style if n % 2 else None
        if ttl is not None:
            control = {"type": "ephemeral", "ttl": ttl}
            system = ({"type": "text", "text": style, "cache_control": control},)
        jobs.append(job(f"j{n}", mark=mark, model=model, system=system))
    return jobs


async def run(house: House, jobs: list[JobSpec]) -> tuple[list[SavedCall], dict[str, Bill]]:
    await house.submit(*jobs, limits=BatchLimits(concurrency=8))
    with anyio.fail_after(60):
        await house.worker().run()
    books = house.simulator.books
    await books.wait_for(lambda books: books.streams_open == 0)
    bills = {bill.request_id: bill for bill in books.bills}
    calls = []
    for spec in jobs:
        calls += await house.store.calls((await house.row(spec.id)).key, superseded=True)
    return calls, bills


async def test_the_ledger_is_the_books_for_every_finished_call(tmp_path) -> None:
    options = SimulatorOptions(seed=7, faults=FAULTS, retry_after_s=0)
    async with a_house(tmp_path, options, read_timeout_s=20) as house:
        calls, bills = await run(house, mixed(33))
        (row,) = await house.store.batches()
        (account,) = await house.store.accounts(By.BATCH)

    seen: Counter[str] = Counter()
    for call in calls:
        assert call.outcome is not None
        usage, charge = call.outcome.usage, call.outcome.charge
        if usage.estimated or not usage.total_input_tokens:
            continue
        bill = bills[call.outcome.request_id]
        written = bill.cache_creation_5m_tokens + bill.cache_creation_1h_tokens
        assert usage.input_tokens == bill.input_tokens
        assert usage.cache_creation_input_tokens == written
        assert usage.cache_creation_1h_input_tokens == bill.cache_creation_1h_tokens
        assert usage.cache_read_input_tokens == bill.cache_read_tokens
        assert usage.output_tokens == bill.output_tokens
        assert charge.cost_nano_usd == cost_nano_usd(bill), bill
        seen[call.outcome.stop_reason or "broken"] += 1
        seen["5m"] += bill.cache_creation_5m_tokens > 0
        seen["1h"] += bill.cache_creation_1h_tokens > 0
        seen["read"] += bill.cache_read_tokens > 0
    # The batch was as mixed as it says.
    kinds = ("end_turn", "max_tokens", "refusal", "5m", "1h", "read")
    assert all(seen[kind] for kind in kinds), seen
    # Whatever the API billed stands in the books, and nothing else does.
    assert {call.outcome.request_id for call in calls if call.outcome} >= set(bills)
    whole = sum(call.cost_nano_usd or 0 for call in calls)
    assert row.cost_nano_usd == whole == account.cost
    assert sum(account.costs.values()) == whole
    assert row.unpriced_calls == 0


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-sonnet-5-5"])
async def test_calls_that_broke_are_estimated_within_five_percent_in_sum(
    tmp_path, model, monkeypatch
) -> None:
    # How the batch writes is learned from its first calls, and asked for again before each.
    monkeypatch.setattr("runner.workers.needs.FRESH_S", 0)
    kinds = ("drop", "error_overloaded", "clean_end", "error_api")
    faults = {n: kinds[n // 2 % 4] for n in range(30, 200, 2)}
    options = SimulatorOptions(seed=3, fault_script=faults, tokens_per_event=2)
    thinks = " thinks=30" if model == "claude-sonnet-5-5" else ""
    jobs = [
        job(f"j{n}", mark=f"tokens=400{thinks}", model=model, max_tokens=150) for n in range(36)
    ]
    async with a_house(tmp_path, options) as house:
        calls, bills = await run(house, jobs)
    broken = [call for call in calls if call.outcome and call.outcome.usage.estimated]
    true = [bills[call.outcome.request_id] for call in broken if call.outcome]
    assert len(broken) >= 40
    ours = sum(call.cost_nano_usd or 0 for call in broken)
    assert ours == pytest.approx(sum(map(cost_nano_usd, true)), rel=0.05)


async def test_a_request_that_was_turned_away_costs_nothing_at_any_price(tmp_path) -> None:
    options = SimulatorOptions(fault_script={1: FaultKind.HTTP_500})
    async with a_house(tmp_path, options) as house:
        await run(house, [job("a", model="local-llama")])
        turned_away, *others = await house.store.calls((await house.row()).key)
        (row,) = await house.store.batches()
    assert (turned_away.cost_nano_usd, turned_away.rates) == (0, None)
    # Nobody knows what the others cost, and that is not nothing.
    assert others
    assert {call.cost_nano_usd for call in others} == {None}
    assert (row.cost_nano_usd, row.unpriced_calls) == (0, len(others))


async def test_the_job_files_price_is_charged(tmp_path) -> None:
    from runner.jobs.price import Rates

    rates = Rates(7_000_000_000, 8_000_000_000, 1, 2, 3)
    async with a_house(tmp_path) as house:
        await house.submit(
            job("a", model="local-llama"), limits=BatchLimits(prices={"local-llama": rates})
        )
        await house.worker().run()
        row = await house.row()
        assert row.cost_nano_usd == 7_000 * row.usage.input_tokens + 8_000 * row.usage.output_tokens
        assert row.unpriced_calls == 0


async def test_a_call_that_was_let_go_on_its_way_is_taken_to_be_billed(tmp_path) -> None:
    options = SimulatorOptions(fault_script={1: "slow_start:60"})
    async with a_house(tmp_path, options) as house:
        await house.submit(job("a"))
        worker = house.worker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await house.simulator.books.wait_for(lambda books: books.faults["slow_start"] > 0)
            worker.stop()
        (call,) = await house.store.calls((await house.row()).key)
    assert call.outcome is not None
    assert call.outcome.usage.estimated
    assert call.outcome.usage.input_tokens > 0
    assert call.cost_nano_usd == 1_000 * call.outcome.usage.input_tokens


async def test_a_call_that_nothing_came_of_in_time_is_taken_to_be_billed(tmp_path) -> None:
    """The request was sent, and its answer may have been on its way for all that time."""
    options = SimulatorOptions(fault_script={1: "slow_start:60"})
    async with a_house(tmp_path, options, read_timeout_s=0.3) as house:
        await house.submit(job("a"))
        await house.worker().run()
        silent, *others = await house.store.calls((await house.row()).key)
        (row,) = await house.store.batches()
    assert silent.outcome is not None
    assert "fell silent" in (silent.outcome.error or "")
    assert silent.outcome.usage.estimated
    assert silent.cost_nano_usd == 1_000 * silent.outcome.usage.input_tokens > 0
    assert row.cost_nano_usd == sum(call.cost_nano_usd or 0 for call in (silent, *others))
