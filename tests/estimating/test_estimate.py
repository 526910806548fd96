"""Estimates put together: shared beginnings, bounds, memory, time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from runner.cli.rehearsing import rehearse
from runner.estimating.amounts import Amounts
from runner.estimating.clock import Binding, Limits, Load, Speed, time_of
from runner.estimating.estimate import Sources, estimate
from runner.estimating.evidence import Ground
from runner.estimating.forecast import Seen, as_warm
from runner.estimating.result import BatchEstimate
from runner.estimating.survey import Survey
from runner.jobs.call import Usage
from runner.jobs.price import Price, Rates
from runner.jobs.spec import BatchLimits, BatchSpec, Caching, ContinuationSpec, JobSpec, Until
from runner.messages.client import MessagesClient
from runner.messages.models import traits
from runner.simulator import Simulator, SimulatorOptions
from runner.store.records import FinishedJob

pytestmark = pytest.mark.anyio

PRICE = Price(Rates(1_000_000_000, 5_000_000_000, 1_250_000_000, 2_000_000_000, 100_000_000))
ANTHROPIC = "https://api.anthropic.com"
MODEL = "claude-sonnet-5-5"
STYLE = " ".join(f"Rule {n}: write plainly and mind the reader." for n in range(400))


def job(n: int, prompt: str = "Answer question {} in about 150 words.", **changes: Any) -> JobSpec:
    spec = JobSpec(
        f"j{n}", MODEL, ({"role": "user", "content": prompt.format(n)},), max_tokens=1_000
    )
    return replace(spec, **changes)


async def of(
    jobs: Sequence[JobSpec], limits: BatchLimits | None = None, **sources: Any
) -> BatchEstimate:
    batch = BatchSpec("b", limits or BatchLimits())
    found = Sources(**{"price_of": lambda *_: PRICE, "base_url": ANTHROPIC} | sources)
    return await estimate(batch, lambda: iter(jobs), {spec.model for spec in jobs}, found)


def dollars(amounts: Amounts) -> float:
    assert amounts.cost_nano_usd is not None
    return amounts.cost_nano_usd / 1e9


async def test_a_shared_beginning_is_paid_once_and_read_by_the_others() -> None:
    jobs = [job(n, system=STYLE) for n in range(100)]
    shared = await of(jobs)
    alone = await of([replace(one, caching=Caching.OFF) for one in jobs])
    total, without = shared.total.expected, alone.total.expected
    assert total.input_tokens == pytest.approx(without.input_tokens, rel=0.001)
    assert without.cache_read_tokens == 0
    assert total.cache_read_tokens > 0.9 * total.input_tokens
    assert 0 < total.cache_write_tokens < 0.02 * total.input_tokens
    assert dollars(total) < 0.5 * dollars(without)


@pytest.mark.parametrize("rehearsed", [True, False])
async def test_shared_beginnings_come_near_the_simulated_truth(
    rehearsed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.estimating.estimate.REHEARSED_JOBS", 20)
    jobs = [job(n, system=STYLE) for n in range(80)]
    async with Simulator(SimulatorOptions(tokens_per_event=64)) as server:
        client = MessagesClient(api_key="k", base_url=server.base_url, one_block=False)

        async def trial(batch: BatchSpec, some: Sequence[JobSpec]) -> list[FinishedJob]:
            return await rehearse(client, batch, some)

        found = await of(jobs, client=client, rehearse=trial if rehearsed else None)
        # All of them, in a world where nothing was cached before.
        true_jobs = [replace(one, system=STYLE + " So be it.") for one in jobs]
        done = await rehearse(client, BatchSpec("b"), true_jobs)
        await client.aclose()
    assert len(done) == 80
    true = sum(
        PRICE.rates(usage.total_input_tokens).cost(usage) for one in done for usage in one.calls
    )
    ground = Ground.REHEARSED if rehearsed else Ground.PROMPT
    assert found.grounds == {ground: 80}
    assert dollars(found.total.expected) == pytest.approx(true / 1e9, rel=0.15)
    reads = sum(usage.cache_read_input_tokens for one in done for usage in one.calls)
    assert found.total.expected.cache_read_tokens == pytest.approx(reads, rel=0.1)


async def test_a_rehearsal_that_ended_before_its_long_documents_is_not_believed() -> None:
    jobs = [job(n, "Tell me of number {}.", max_tokens=2_000) for n in range(10)]

    async def trial(finished: int) -> BatchEstimate:
        async def done(batch: BatchSpec, some: Sequence[JobSpec]) -> list[FinishedJob]:
            return [
                FinishedJob(1, spec, (Usage(input_tokens=10, output_tokens=100),))
                for spec in some[:finished]
            ]

        return await of(jobs, rehearse=done)

    assert (await trial(9)).grounds == {Ground.REHEARSED: 10}
    assert (await trial(5)).grounds == {Ground.ASSUMED: 10}


async def test_a_document_that_is_sure_to_go_on_is_cached() -> None:
    long = job(0, "Write of bees.", until=Until(min_words=9_000))
    sure = await of([long])
    off = await of([replace(long, caching=Caching.OFF)])
    assert sure.total.expected.cache_read_tokens > 0
    assert dollars(sure.total.expected) < dollars(off.total.expected)
    # Others may be: that is in the low figure only.
    wished = await of([job(0, "Write of bees in 9,000 words.")])
    assert wished.total.expected.cache_read_tokens == 0
    assert wished.total.low.cache_read_tokens > 0


async def test_the_price_of_long_prompts_holds_from_their_length_on() -> None:
    dear = replace(PRICE, tiers=((1_000, Rates(*(10 * PRICE.base.input,) * 5)),))
    short, long = job(0, "In 100 words."), job(1, "word " * 10_000 + "Sum up in 100 words.")
    costs = [
        dollars((await of([one], price_of=lambda *_: dear)).total.expected) for one in (short, long)
    ]
    assert costs[1] > 10 * costs[0]


async def test_a_jobs_own_budget_ends_it() -> None:
    long = job(0, "Write of bees in 20,000 words.")
    bounded = replace(long, continuation=ContinuationSpec(max_cost_nano_usd=20_000_000))
    assert dollars((await of([long])).total.expected) > 0.1
    assert dollars((await of([bounded])).total.high) <= 0.02


async def test_a_file_of_many_jobs_is_never_held() -> None:
    read = 0

    def jobs() -> Iterator[JobSpec]:
        nonlocal read
        for n in range(2_000):
            read += 1
            yield job(n, "x" * 10_000 + f" {n} In 100 words.")

    sources = Sources(price_of=lambda *_: PRICE, base_url=ANTHROPIC)
    tracemalloc.start()
    found = await estimate(BatchSpec("b"), jobs, {MODEL}, sources)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.documents == 2_000
    assert read <= 4_000
    assert peak < 15_000_000  # two portions of jobs, where all of them would be 20 MB


def seen(*calls: Usage) -> Seen:
    kind = Survey(lambda model: traits(model, ANTHROPIC)).kind_of(job(0))
    return Seen(kind, 150, calls)


def test_what_one_document_wrote_for_all_is_counted_once() -> None:
    cold = Usage(input_tokens=10, cache_creation_input_tokens=5_000, output_tokens=100)
    warm = Usage(input_tokens=10, cache_read_input_tokens=5_000, output_tokens=100)
    as_if, written = as_warm([seen(cold), seen(warm), seen(warm)])
    assert [one.calls[0] for one in as_if] == [warm, warm, warm]
    assert written == [5_000]
    alone, nothing = as_warm([seen(cold)])
    assert (alone[0].calls[0], nothing) == (cold, [])


AMOUNTS = Amounts(calls=600, input_tokens=6_000_000, output_tokens=600_000)
ONE = Amounts(calls=1, input_tokens=10_000, output_tokens=1_000)


LOAD = Load(AMOUNTS, ONE, Speed(100, 0.0), 10, "class")


@pytest.mark.parametrize(
    ("load", "own", "seconds", "binding"),
    [
        (LOAD, Limits(), 600, Binding.CONCURRENCY),
        (replace(LOAD, longest=ONE * 1_000), Limits(), 10_000, Binding.LONGEST_DOCUMENT),
        (LOAD, Limits(requests_per_minute=30), 1_200, Binding.REQUESTS),
        (LOAD, Limits(input_tokens_per_minute=200_000), 1_800, Binding.INPUT),
        (LOAD, Limits(output_tokens_per_minute=10_000), 3_600, Binding.OUTPUT),
        (replace(LOAD, concurrency=5), Limits(), 1_200, Binding.CONCURRENCY),
        (LOAD, Limits(10**9, 10**9, 10**9), 600, Binding.CONCURRENCY),
    ],
)
def test_time_goes_by_what_binds(load: Load, own: Limits, seconds: float, binding: Binding) -> None:
    found, by = time_of([load], concurrency=10, own=own)
    assert found == pytest.approx(seconds)
    assert by is binding


def test_limits_that_the_api_told_hold_for_a_class_of_models_together() -> None:
    told = {"class": Limits(output_tokens_per_minute=10_000)}
    one, _ = time_of([LOAD], concurrency=10, told=told)
    two, _ = time_of([LOAD, LOAD], concurrency=10, told=told)
    apart, _ = time_of([LOAD, replace(LOAD, rate_class="other")], concurrency=10, told=told)
    assert (one, two, apart) == (3_600, 7_200, 3_600)


def test_cache_reads_count_against_no_limit() -> None:
    load = replace(LOAD, amounts=replace(AMOUNTS, cache_read_tokens=AMOUNTS.input_tokens))
    by = time_of([load], concurrency=10, own=Limits(input_tokens_per_minute=1))[1]
    assert by is Binding.CONCURRENCY
