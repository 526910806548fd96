"""Processes that die with all their calls open, and what the ledger makes of these calls."""

from __future__ import annotations

from operator import mul
from random import Random

from runner.jobs.spec import BatchLimits, BatchSpec
from runner.simulator import Simulator, SimulatorOptions
from runner.simulator.books import Bill
from runner.store.store import Store
from tests.crash.mortal import Mortal
from tests.house import job
from tests.strangers import a_stranger

CHECKPOINT_S = 0.05
# USD a million tokens, from the price list: input, output, cache write for 5 minutes and for an
# hour, cache read.
PRICES = {
    "claude-haiku-4-5": (1.0, 5.0, 1.25, 2.0, 0.1),
    "claude-sonnet-4-6": (3.0, 15.0, 3.75, 6.0, 0.3),
}


def cost(bill: Bill) -> float:
    tokens = (
        bill.input_tokens,
        bill.output_tokens,
        bill.cache_creation_5m_tokens,
        bill.cache_creation_1h_tokens,
        bill.cache_read_tokens,
    )
    return sum(map(mul, tokens, PRICES[bill.model])) / 1e6


async def die(
    database: str,
    *,
    kills: int,
    jobs: int,
    document_tokens: int,
    max_tokens: int,
    model: str = "claude-haiku-4-5",
    tokens_per_second: float = 100,
    concurrency: int = 16,
    thinks: int = 0,
) -> dict[str, float]:
    """Kill process after process at random moments, finish the rest, and hold the ledger's calls
    that died against the simulator's bills for them: what each came to, in sum."""
    mark = f"tokens={document_tokens}" + (f" thinks={thinks}" if thinks else "")
    random = Random(5)
    settings = {"concurrency": concurrency, "checkpoint_s": CHECKPOINT_S}
    specs = [job(f"j{n}", mark=mark, max_tokens=max_tokens, model=model) for n in range(jobs)]
    async with Simulator(
        SimulatorOptions(
            seed=5, tokens_per_second=tokens_per_second, first_token_s=0.05, tokens_per_event=3
        )
    ) as simulator:
        books = simulator.books
        async with await Store.open(database) as store:
            await store.submit(BatchSpec("b", BatchLimits(concurrency=concurrency)), specs)
        async with Mortal(database, simulator.base_url, **settings) as mortal:
            between = jobs * (document_tokens + thinks) // kills
            for _ in range(kills):
                await mortal.tell("begin")
                # How a batch writes is learned from its first calls.
                await books.wait_for(lambda books: books.billed_requests >= concurrency)
                moment = books.tokens_generated + random.randint(1, between)
                await books.wait_for(lambda books, at=moment: books.tokens_generated >= at)
                assert await mortal.tell("kill") == "dead"
            await mortal.tell("begin")
            assert await mortal.tell("wait") == "0"
        await books.wait_for(lambda books: books.streams_open == 0)
        bills = list(books.bills)
    with a_stranger(database) as stranger:
        rows = stranger.execute(
            "SELECT request_id, input_tokens + cache_creation_input_tokens"
            " + cache_read_input_tokens, output_tokens, cost_nano_usd, usage_estimated FROM call"
        )
    known = {row[0] for row in rows if not row[4]}
    died = [row for row in rows if row[4]]
    true = [bill for bill in bills if bill.request_id not in known]
    return {
        "died": len(died),
        "billed": len(true),
        "input": sum(row[1] for row in died),
        "input_billed": sum(
            bill.input_tokens
            + bill.cache_creation_5m_tokens
            + bill.cache_creation_1h_tokens
            + bill.cache_read_tokens
            for bill in true
        ),
        "output": sum(row[2] for row in died),
        "output_billed": sum(bill.output_tokens for bill in true),
        "cost": sum(row[3] for row in died) / 1e9,
        "cost_billed": sum(map(cost, true)),
    }
