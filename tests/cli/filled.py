"""A database with a document of every kind, made through the real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runner.jobs.call import CallOutcome, Charge, Strategy, Usage, Verdict
from runner.jobs.spec import BatchSpec, JobSpec
from runner.jobs.states import Finish, State
from runner.store.records import CallStart, Claim, Lane, PauseCause, Settlement
from runner.store.store import Store

MODEL = "claude-haiku-4-5"
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31mred‮gnol\r\nsecond line [bold]markup[/bold]"
WHOLE = "Once upon a time there was a heron, and it waited."
CUT = "The badger dug and dug"
HALF = "The owl looked "
# 100 + 1.25 * 20 + 0.1 * 30 + 5 * 400 millionths of a dollar.
CALL_NANO_USD = 2_128_000


def job(id: str, prompt: str = "Write a story.") -> JobSpec:
    return JobSpec(
        id=id,
        model=MODEL,
        messages=({"role": "user", "content": prompt},),
        metadata={"part": id},
    )


class Writer:
    """Writes documents as a worker does."""

    def __init__(self, store: Store, worker_id: str = "w1") -> None:
        self.store, self.worker_id = store, worker_id
        self.seq = 0

    async def begin(self) -> Writer:
        await self.store.register_worker(self.worker_id, host="h", pid=1, lease_ms=60_000)
        return self

    async def claim(self, batch_key: int) -> Claim:
        (claim,) = await self.store.claim(self.worker_id, [Lane(batch_key, MODEL, 1)], 1)
        self.seq = (await self.store.load(claim)).next_seq
        return claim

    async def open_call(self, claim: Claim, number: int, resume_at: int) -> int:
        first = number == 1
        start = CallStart(
            number=number,
            strategy=None if first else Strategy.PREFILL,
            resume_at=resume_at,
            max_tokens=400,
            model=MODEL,
        )
        call_key = await self.store.begin_call(claim, start)
        if not first:
            await self.store.judge(claim, call_key, Verdict.EXACT)
        return call_key

    async def save(self, claim: Claim, call_key: int, text: str) -> None:
        await self.store.save(claim, call_key, self.seq, text)
        self.seq += 1

    async def settle(
        self,
        claim: Claim,
        call_key: int,
        stop_reason: str | None,
        settlement: Settlement,
        error: str | None = None,
    ) -> None:
        await self.store.end_call_and_settle(
            claim, call_key, outcome(stop_reason, error=error), settlement
        )


def outcome(stop_reason: str | None, *, error: str | None = None) -> CallOutcome:
    return CallOutcome(
        stop_reason,
        usage=Usage(100, 20, 30, 400, estimated=stop_reason is None),
        request_id="req_1",
        error=error,
        charge=Charge(CALL_NANO_USD, prompt_tokens=150),
    )


async def fill(database: str | Path) -> None:
    """Batch `animals`: heron (complete, two calls), badger (cut), fox (failed), owl (being
    written), mole (waiting); batch `dull`: one complete document, and it is paused."""
    async with await Store.open(database) as store:
        ids = ("heron", "badger", "fox", "owl", "mole")
        receipt = await store.submit(BatchSpec("animals"), list(map(job, ids)))
        key = receipt.batch_key
        writer = await Writer(store).begin()

        claim = await writer.claim(key)
        call = await writer.open_call(claim, 1, 0)
        await writer.save(claim, call, WHOLE[:20])
        await writer.save(claim, call, WHOLE[20:30] + " ")
        await store.end_call(claim, call, outcome("max_tokens"))
        call = await writer.open_call(claim, 2, 30)
        await writer.save(claim, call, WHOLE[30:])
        done = Settlement(State.COMPLETED, finish=Finish.END_TURN)
        await writer.settle(claim, call, "end_turn", done)

        claim = await writer.claim(key)
        call = await writer.open_call(claim, 1, 0)
        await writer.save(claim, call, CUT)
        cut = Settlement(State.COMPLETED, finish=Finish.MAX_CALLS)
        await writer.settle(claim, call, "max_tokens", cut)

        claim = await writer.claim(key)
        call = await writer.open_call(claim, 1, 0)
        await writer.save(claim, call, HOSTILE)
        failed = Settlement(State.DISCARDED, error=HOSTILE)
        await writer.settle(claim, call, None, failed, error=HOSTILE)

        claim = await writer.claim(key)
        call = await writer.open_call(claim, 1, 0)
        await writer.save(claim, call, HALF)

        receipt = await store.submit(BatchSpec("dull"), [job("heron")])
        claim = await writer.claim(receipt.batch_key)
        call = await writer.open_call(claim, 1, 0)
        await writer.save(claim, call, "Dull.")
        await writer.settle(claim, call, "end_turn", done)
        await store.pause(receipt.batch_key, PauseCause.CREDENTIALS, HOSTILE)


def make(database: str) -> str:
    """Fill a database."""
    asyncio.run(fill(database))
    return database
