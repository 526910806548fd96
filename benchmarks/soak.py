"""A soak: processes that share a file are killed again and again while the API has bad days.

Run: python benchmarks/soak.py [--minutes 30] [--processes 4] [--kill-every-s 10] [--jobs 0]
     [--max-cost-usd 0]

Each of the processes works on the same database; one of them, drawn by lot, dies by SIGKILL every
`--kill-every-s` seconds and another takes its place. The simulated API answers one request in five
with a fault of some kind. The queue is kept filled; when the time is up nobody is killed any more,
the rest is finished, and every document is compared with the one that an endless answer would have
given. `--jobs N` instead submits N short jobs at once, kills nobody, and ends when they are done.
`--max-cost-usd X` gives the batch a budget, which runs out and is raised by as much again and again;
what is spent and set aside is compared with it at every kill.

Prints one JSON object; the exit status is 1 if any document is wrong or anything is left open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from runner.jobs.price import nano_usd, usd
from runner.jobs.spec import BatchLimits, BatchSpec, JobSpec
from runner.jobs.states import State
from runner.library import documents, lift_pauses, open_store
from runner.messages.client import MessagesClient
from runner.simulator import Simulator, SimulatorOptions
from runner.store.records import PauseCause
from runner.store.store import Store
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker

TOKENS_PER_SECOND = 100.0
CONCURRENCY = 8
CHECKPOINT_S = 0.25
READ_TIMEOUT_S = 3.0
# One request in five. Left out is what makes a job fail for good by right (404, 413).
FAULTS = {
    "http_400_own_limit": 0.001,
    "http_401": 0.001,
    "http_403": 0.001,
    "http_429": 0.02,
    "http_429_no_retry_after": 0.01,
    "http_429_ramp": 0.01,
    "http_429_spend_cap": 0.001,
    "http_500": 0.01,
    "http_502_html": 0.01,
    "http_503": 0.01,
    "http_504": 0.01,
    "http_529": 0.01,
    "stall": 0.005,
    "pings": 0.005,
    "drop": 0.02,
    "drop_byte": 0.02,
    "reset": 0.01,
    "error_overloaded": 0.01,
    "error_api": 0.01,
    "clean_end": 0.01,
    "invalid_json": 0.01,
    "duplicate_events": 0.01,
    "unknown_events": 0.01,
    "split_packets": 0.01,
}
WAITING_AT_LEAST = 100
TOPICS = ("the sea", "old maps", "bread", "the night sky", "bridges", "snow", "clocks", "rivers")


def spec(number: int, *, short: bool) -> JobSpec:
    topic = TOPICS[number % len(TOPICS)]
    length = "[[simulate: tokens=12]]" if short else ""
    return JobSpec(
        id=f"job-{number}",
        model="claude-haiku-4-5",
        messages=({"role": "user", "content": f"Write document {number} about {topic}. {length}"},),
        max_tokens=400,
    )


async def work(database: str, base_url: str, *, until_final: bool) -> None:
    """A process of the fleet: works until it is told to stop, or killed."""
    client = MessagesClient(
        api_key="soak", base_url=base_url, read_timeout_s=READ_TIMEOUT_S, one_block=False
    )
    async with open_store(database, create=False) as store:
        await lift_pauses(store)
        settings = WorkerSettings(
            concurrency=50 if until_final else CONCURRENCY, checkpoint_s=CHECKPOINT_S
        )
        worker = Worker(store, client, settings=settings, until_final=until_final)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
    await client.aclose()


class Fleet:
    """The processes, and what became of them."""

    def __init__(self, command: list[str], size: int, seed: int) -> None:
        self.processes: list[asyncio.subprocess.Process] = []
        self.kills = 0
        self.ended_by_themselves = 0
        self._command = command
        self._size = size
        self._random = random.Random(seed)

    async def fill(self) -> None:
        alive = [process for process in self.processes if process.returncode is None]
        self.ended_by_themselves += len(self.processes) - len(alive)
        self.processes = alive
        while len(self.processes) < self._size:
            self.processes.append(await asyncio.create_subprocess_exec(*self._command))

    async def kill_one(self) -> None:
        victim = self.processes.pop(self._random.randrange(len(self.processes)))
        victim.kill()
        await victim.wait()
        self.kills += 1
        await self.fill()

    async def stop(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.terminate()
        for process in self.processes:
            await process.wait()


class Purse:
    """The batch's budget: raised each time it runs out, and never to be passed."""

    def __init__(self, step_usd: float) -> None:
        self._step = nano_usd(step_usd)
        self._most = self._step or None
        self.raised = 0
        self.passed = 0
        self.spent_usd = 0.0

    @property
    def batch(self) -> BatchSpec:
        limits = BatchLimits(concurrency=1000, max_attempts=1000, max_cost_nano_usd=self._most)
        return BatchSpec("soak", limits)

    async def look(self, store: Store) -> None:
        (row,) = await store.batches()
        self.spent_usd = float(usd(row.cost_nano_usd))
        if self._most is None:
            return
        self.passed += row.cost_nano_usd + row.reserved_nano_usd > self._most
        if row.paused is PauseCause.BUDGET:
            self._most += self._step
            self.raised += 1
            await store.submit(self.batch, [])


async def wrong_documents(store: Store, simulator: Simulator) -> tuple[int, int, Counter[str]]:
    """Documents in all, those that are not byte for byte the true ones, and how they ended."""
    count = wrong = 0
    states: Counter[str] = Counter()
    async for document in documents(store):
        row = await store.find_job(f"{document.batch}/{document.id}")
        body = await store.spec(row.key)
        true = simulator.true_document(
            {"model": body.model, "max_tokens": 1, "messages": list(body.messages)}
        )
        count += 1
        states[document.state] += 1
        if document.text != true or document.state is not State.COMPLETED:
            wrong += 1
            print(f"wrong: {document.id} {document.state} {document.error}", file=sys.stderr)
    return count, wrong, states


async def soak(arguments: argparse.Namespace, folder: Path) -> int:
    short = bool(arguments.jobs)
    options = SimulatorOptions(
        seed=arguments.seed,
        tokens_per_second=0.0 if short else TOKENS_PER_SECOND,
        tokens_per_event=1 if short else 4,
        faults={} if short else FAULTS,
    )
    database = folder / "runner.db"
    async with Simulator(options) as simulator, open_store(database) as store:
        purse = Purse(arguments.max_cost_usd)
        submitted = arguments.jobs or WAITING_AT_LEAST
        await store.submit(purse.batch, [spec(n, short=short) for n in range(submitted)])
        command = [sys.executable, __file__, "--work", str(database), simulator.base_url]
        fleet = Fleet(command + ["--until-final"] * short, arguments.processes, arguments.seed)
        started = time.monotonic()
        await fleet.fill()
        if short:
            for process in fleet.processes:
                await process.wait()
        else:
            submitted = await bad_days(arguments, store, fleet, purse, submitted)
            await finish(store, fleet, purse)
        await fleet.stop()
        seconds = time.monotonic() - started
        count, wrong, states = await wrong_documents(store, simulator)
        books = simulator.books
        open_calls = sqlite3.connect(database).execute(
            "SELECT count(*) FROM call WHERE ended_ms IS NULL"
        )
        result = {
            "minutes": round(seconds / 60, 1),
            "processes": arguments.processes,
            "kills": fleet.kills,
            "processes_that_ended_by_themselves": 0 if short else fleet.ended_by_themselves,
            "requests": books.requests,
            "faults_met": sum(books.faults.values()),
            "faults": dict(sorted(books.faults.items())),
            "documents": count,
            "states": dict(states),
            "documents_wrong": wrong,
            "divergences": books.divergences,
            "restarts": books.restarts,
            "tokens_generated": books.tokens_generated,
            "tokens_generated_twice": books.tokens_generated_twice,
            "generated_twice_percent": round(
                100 * books.tokens_generated_twice / max(1, books.tokens_generated), 3
            ),
            "calls_left_open": open_calls.fetchone()[0],
            "workers_left": len(await store.workers()),
            "check": await store.check(),
            "spent_usd": purse.spent_usd,
            "budget_raised": purse.raised,
            "budget_passed": purse.passed,
            "sqlite": sqlite3.sqlite_version,
        }
    print(json.dumps(result, indent=2))
    well = not (wrong or result["calls_left_open"] or result["check"] or books.divergences)
    well = well and not purse.passed
    return 0 if well and count == submitted else 1


async def bad_days(
    arguments: argparse.Namespace, store: Store, fleet: Fleet, purse: Purse, submitted: int
) -> int:
    """Kill and fill until the time is up; how many jobs were submitted."""
    end = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < end:
        await asyncio.sleep(arguments.kill_every_s)
        await fleet.fill()
        await fleet.kill_one()
        await purse.look(store)
        await lift_pauses(store)
        missing = WAITING_AT_LEAST - await store.unfinished()
        if missing > 0:
            await store.submit(
                purse.batch, [spec(n, short=False) for n in range(submitted, submitted + missing)]
            )
            submitted += missing
        print(f"{fleet.kills} kills, {submitted} jobs", file=sys.stderr)
    return submitted


async def finish(store: Store, fleet: Fleet, purse: Purse) -> None:
    """Wait until everything is final; the API's faults go on, only nobody is killed."""
    while await store.unfinished():
        await fleet.fill()
        await purse.look(store)
        await lift_pauses(store)
        await asyncio.sleep(1)
    await purse.look(store)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kill-every-s", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--max-cost-usd", type=float, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs=2, metavar=("DATABASE", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--until-final", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        asyncio.run(work(*arguments.work, until_final=arguments.until_final))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(soak(arguments, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
