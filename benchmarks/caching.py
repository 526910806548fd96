"""What prompt caching saves: the simulator's billed input with the project's caching and without.

Run: python benchmarks/caching.py [--jobs 200] [--shapes 40] [--played 4000] [--seed 0]

(a) A beginning of 20,000 tokens that 200 jobs share. (b) One document of ten calls, on its own:
with a length that its `until` asks for, and with one that nobody knows (`caching: eager`). (c) Batches drawn at random,
`--shapes` of them made by the real worker, scaled small, and `--played` of them played through by
`benchmarks/bills.py`. For a model that goes on from a prefill and for one that is asked by a turn.

The input cost is that of the simulator's books: plain, written for 5 minutes and for an hour, read,
each at the model's own price. Prints a table; the exit status is 1 where less is saved than is
promised, or where a batch is dearer with caching (with `eager`: by more than one bet may lose).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from bills import bill, shape

from runner.jobs.spec import BatchLimits, BatchSpec, Caching, JobSpec, Until
from runner.messages.caching import Multiples
from runner.messages.client import MessagesClient
from runner.messages.prices import price_of
from runner.simulator import Simulator
from runner.simulator.books import Books
from runner.store.store import Store
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker

# Least that is cached: 4,096 and 512 tokens. A call's text of 5,000 and of 1,500 tokens is above or
# soon above it, so that from the second or third call on a cache could help at all.
PREFILL, TURN = "claude-haiku-4-5", "claude-sonnet-5-5"
ANSWER_TOKENS = {PREFILL: 5_000, TURN: 1_500}
WORDS = "the tide comes in and goes out again and nobody asks it why "  # 12 words, 12 tokens
LEAST_SAVED_SHARED, LEAST_SAVED_DOCUMENT = 0.80, 0.60
FIRST_STAKE = 1 / 11  # of one document's input
WAYS = ((True, False), (False, False), (False, True))  # lengths are known; `caching: eager`


@dataclass
class Run:
    """What one batch's input was billed for."""

    plain: int
    minutes: int
    hour: int
    read: int
    calls: int

    def worth(self, multiples: Multiples) -> float:
        written = multiples.write_5m * self.minutes + multiples.write_1h * self.hour
        return self.plain + written + multiples.read * self.read


async def run(jobs: list[JobSpec], concurrency: int, caching: Caching) -> Run:
    """Make a batch's documents by a real worker, and read the simulator's books."""
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator() as simulator, await Store.open(Path(folder) / "runner.db") as store:
            client = MessagesClient(api_key="k", base_url=simulator.base_url, one_block=False)
            specs = [replace(job, caching=caching) for job in jobs]
            await store.submit(BatchSpec("b", BatchLimits(concurrency=concurrency)), specs)
            settings = WorkerSettings(checkpoint_s=0.05, poll_s=0.02)
            await Worker(store, client, settings=settings).run()
            await client.aclose()
            assert (await store.batches())[0].unfinished == 0
            return of(simulator.books)


def of(books: Books) -> Run:
    return Run(
        books.input_tokens,
        books.cache_creation_5m_tokens,
        books.cache_creation_1h_tokens,
        books.cache_read_tokens,
        books.requests_by_kind["messages"],
    )


def multiples_of(model: str) -> Multiples:
    price = price_of(model, base_url="https://api.anthropic.com", at=datetime.now(UTC), own={})
    return Multiples.of(None if price is None else price.base)


async def compare(
    jobs: list[JobSpec], concurrency: int, caching: Caching = Caching.AUTO
) -> tuple[Run, Run, float]:
    """Both runs, and the part of the input's cost that is saved."""
    multiples = multiples_of(jobs[0].model)
    without = await run(jobs, concurrency, Caching.OFF)
    with_it = await run(jobs, concurrency, caching)
    saved = 1 - with_it.worth(multiples) / without.worth(multiples)
    return without, with_it, saved


def job(id: str, model: str, *, shared: int, own: int, tokens: int, answer: int) -> JobSpec:
    """A job with a beginning of so many tokens, a prompt of its own and a document of so many."""
    system = f"{WORDS * (shared // 12)}." if shared else None
    prompt = f"{id}: {WORDS * (own // 12)} [[simulate: tokens={tokens}]]"
    messages = ({"role": "user", "content": prompt},)
    return JobSpec(id, model, messages, max_tokens=answer, system=system)


def line(what: str, without: Run, with_it: Run, saved: float) -> None:
    print(
        f"{what:62} {without.plain:>10,} {with_it.plain:>9,} {with_it.minutes:>8,} "
        f"{with_it.hour:>6,} {with_it.read:>10,} {saved:>7.1%}"
    )


async def shared(model: str, jobs: int) -> float:
    batch = [job(f"j{n}", model, shared=20_000, own=24, tokens=60, answer=200) for n in range(jobs)]
    without, with_it, saved = await compare(batch, 20)
    line(f"(a) {model}, {jobs} jobs share 20,000 tokens", without, with_it, saved)
    return saved


async def document(model: str, *, known: bool) -> float:
    answer = ANSWER_TOKENS[model]
    one = job("d", model, shared=0, own=100, tokens=10 * answer - answer // 2, answer=answer)
    if known:
        one = replace(one, until=Until(min_words=5 * answer))
    way = Caching.AUTO if known else Caching.EAGER
    without, with_it, saved = await compare([one], 1, way)
    length = "`until` tells its length" if known else "length unknown, eager"
    line(f"(b) {model}, {without.calls} calls, {length}", without, with_it, saved)
    return saved


async def random_batches(number: int, seed: int, *, known: bool, eager: bool) -> tuple[int, bool]:
    """Batches by the real worker, scaled small: how many were dearer, and whether none by more
    than may be."""
    dearer, most, kept, cost = 0, 0.0, True, [0.0, 0.0]
    for n in range(number):
        random = Random(seed * 1_000_003 + n)
        model = random.choice(["claude-sonnet-4-5", TURN])  # 1,024 and 512 are cached
        size, answer = random.choice((1, 2, 3, 8, 20)), random.choice((150, 400, 900))
        calls, even = random.choice((1, 2, 3, 4, 6, 10)), random.random() < 0.5
        own, begin = random.choice((24, 300, 1_500)), random.choice((0, 600, 1_500, 4_000))
        lengths = [answer * (calls if even else random.randint(1, calls)) for _ in range(size)]
        batch = [
            job(f"j{i}", model, shared=begin, own=own, tokens=length - answer // 3, answer=answer)
            for i, length in enumerate(lengths)
        ]
        if known:
            batch = [
                replace(one, until=Until(min_words=length // 2))
                for one, length in zip(batch, lengths, strict=True)
            ]
        way = Caching.EAGER if eager else Caching.AUTO
        without, with_it, saved = await compare(batch, random.choice((1, 3, 10)), way)
        plain = without.worth(multiples_of(model))
        cost[0] += plain
        cost[1] += with_it.worth(multiples_of(model))
        if saved < 0:
            dearer += 1
            most = max(most, -saved)
            whole = sum(begin + own + 200 + k * answer for k in range(max(lengths) // answer))
            kept &= -saved * plain <= may_lose(whole, plain)
    what = f"(c) {number} made by the worker, {_way(known=known, eager=eager)}"
    told(what, number, dearer, most, 1 - cost[1] / cost[0])
    return dearer, kept


def _way(*, known: bool, eager: bool) -> str:
    return f"lengths {'known' if known else 'unknown'}{', eager' if eager else ''}"


def may_lose(whole: float, plain: float) -> float:
    """What bets may cost a batch in vain.

    Args:
        whole: the input of its longest document.
        plain: all its input, without caching.
    """
    return max(whole * FIRST_STAKE, plain / 20)


def played(number: int, seed: int, *, known: bool, eager: bool) -> tuple[int, bool]:
    """Batches played through: how many were dearer, and whether none by more than may be."""
    dearer, most, kept, cost = 0, 0.0, True, [0.0, 0.0]
    for n in range(number):
        some = replace(shape(Random(seed * 1_000_003 + n), known=known), eager=eager)
        without, with_it = bill(some)
        cost[0] += without
        cost[1] += with_it
        if with_it > without * (1 + 1e-9):
            dearer += 1
            most = max(most, with_it / without - 1)
            one = some.shared_tokens + some.own_tokens + 130
            whole = sum(one + k * some.answer_tokens for k in range(max(some.calls)))
            kept &= with_it - without <= may_lose(whole, without)
    what = f"(c) {number} played through, {_way(known=known, eager=eager)}"
    told(what, number, dearer, most, 1 - cost[1] / cost[0])
    return dearer, kept


def told(what: str, number: int, dearer: int, most: float, saved: float) -> None:
    worst = f", by {most:.1%} at most" if dearer else ""
    print(f"{what:62} dearer: {dearer} of {number}{worst}; saved in sum {saved:.1%}")


async def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--jobs", type=int, default=200)
    options.add_argument("--shapes", type=int, default=40)
    options.add_argument("--played", type=int, default=4_000)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    print(f"{'':62} {'without':>10} {'plain':>9} {'5m':>8} {'1h':>6} {'read':>10} {'saved':>7}")
    kept = True
    for model in (PREFILL, TURN):
        kept &= await shared(model, args.jobs) >= LEAST_SAVED_SHARED
        for known in (True, False):
            kept &= await document(model, known=known) >= LEAST_SAVED_DOCUMENT
    for known, eager in WAYS:
        dearer, within = played(args.played // 3, args.seed, known=known, eager=eager)
        kept &= within if eager else not dearer
    for known, eager in WAYS:
        dearer, within = await random_batches(args.shapes // 3, args.seed, known=known, eager=eager)
        kept &= within if eager else not dearer
    print("as promised" if kept else "NOT as promised")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
