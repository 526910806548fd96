"""A soak: processes that share a queue are killed again and again while the API has bad days.

    python benchmarks/soak.py [--minutes 30 | --documents N | --jobs N] [--db postgres]

Each of the processes works on the same database; one of them, drawn by lot, dies by SIGKILL every
`--kill-every-s` seconds and another takes its place. The simulated API answers one request in five
with a fault of some kind. The queue is kept filled; when the time is up nobody is killed any more,
the rest is finished, and every document is compared with the one that an endless answer would have
given. `--documents N` goes on, kills and all, until N documents are finished. `--jobs N` instead
submits N short jobs at once, kills nobody, and ends when they are done. `--max-cost-usd X` gives the
batch a budget, which runs out and is raised by as much again and again; what is spent and set aside
is compared with it at every kill.

`--db` names the database; `--db postgres` starts the server of the tests' wheel, with its own
settings (`fsync` on). On a server, connections are terminated by lot as well, and the wheel's server
is itself killed every `--server-kill-every-s` seconds and started again.

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
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from runner.errors import StoreBlocked
from runner.jobs.price import nano_usd, usd
from runner.jobs.spec import BatchLimits, BatchSpec, JobSpec
from runner.jobs.states import State
from runner.library import documents, lift_pauses, open_store
from runner.messages.client import MessagesClient
from runner.simulator import Simulator, SimulatorOptions
from runner.store.bare import Driver
from runner.store.records import PauseCause
from runner.store.store import Store
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker
from tests.postgres import Server, a_server

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
# Each of these holds up all processes for a while: where so many documents are to be finished,
# they come more seldom.
RESTS = ("http_429", "http_429_no_retry_after", "http_429_ramp")
SELDOM = 0.05
LOOK_S = 2.0
WAITING_AT_LEAST = 100
TOPICS = ("the sea", "old maps", "bread", "the night sky", "bridges", "snow", "clocks", "rivers")


# What must not be, by what it is called.
NEVER = {
    "documents_ended_twice": "SELECT count(*) FROM (SELECT job_key FROM job_event"
    " WHERE kind = 'completed' GROUP BY job_key HAVING count(*) > 1) AS twice",
    "chunks_of_overtaken_workers": "SELECT count(*) FROM (SELECT call.claim < max(call.claim) OVER"
    " (PARTITION BY chunk.job_key ORDER BY chunk.key) AS late FROM chunk"
    " JOIN call ON call.key = chunk.call_key) AS claims WHERE late",
    "calls_left_open": "SELECT count(*) FROM call WHERE ended_ms IS NULL",
}
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name"
    " LIKE 'runner %' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
)


def spec(number: int, *, short: bool, tokens: int = 0) -> JobSpec:
    topic = TOPICS[number % len(TOPICS)]
    tokens = 12 if short else tokens
    length = f"[[simulate: tokens={tokens}]]" if tokens else ""
    return JobSpec(
        id=f"job-{number}",
        model="claude-haiku-4-5",
        messages=({"role": "user", "content": f"Write document {number} about {topic}. {length}"},),
        max_tokens=max(100, tokens // 2) if tokens else 400,
    )


async def work(database: str, base_url: str, *, until_final: bool, concurrency: int) -> None:
    """A process of the fleet: works until it is told to stop, or killed."""
    client = MessagesClient(
        api_key="soak", base_url=base_url, read_timeout_s=READ_TIMEOUT_S, one_block=False
    )
    async with open_store(database, create=False) as store:
        await lift_pauses(store)
        settings = WorkerSettings(
            concurrency=50 if until_final else concurrency, checkpoint_s=CHECKPOINT_S
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


class Network:
    """What becomes of the server, and of the connections to it. Of a file, nothing."""

    def __init__(self, database: str, server: Server | None, every_s: float, seed: int) -> None:
        self.kills = 0
        self.terminated = 0
        self._on_a_server = "://" in database
        self._server = server
        self._every_s = every_s
        self._random = random.Random(seed)
        self._killed_at = time.monotonic()

    async def bad_moment(self, store: Store) -> None:
        """A connection is terminated by lot, and the server killed when its time has come."""
        if not self._on_a_server:
            return
        self.terminated += len(await asyncio.to_thread(store.database.look, _terminate))
        if self._server is None or time.monotonic() - self._killed_at < self._every_s:
            return
        await asyncio.to_thread(self._server.crash)
        await asyncio.sleep(self._random.uniform(0, 3))
        await asyncio.to_thread(self._server.start)
        self.kills += 1
        self._killed_at = time.monotonic()


def _terminate(sql: Driver) -> list[object]:
    return list(sql.execute(TERMINATE).fetchall())


async def soak(arguments: argparse.Namespace, database: str, server: Server | None) -> int:
    short = bool(arguments.jobs)
    seldom = dict.fromkeys(RESTS, SELDOM if arguments.documents else 1.0)
    faults = {name: rate * seldom.get(name, 1.0) for name, rate in FAULTS.items()}
    options = SimulatorOptions(
        seed=arguments.seed,
        tokens_per_second=0.0 if short else TOKENS_PER_SECOND,
        tokens_per_event=1 if short else 4,
        faults={} if short else faults,
    )
    async with Simulator(options) as simulator, open_store(database) as store:
        store.wait_when_blocked(lambda _: None)
        purse = Purse(arguments.max_cost_usd)
        most = arguments.documents or sys.maxsize
        queue = Queue(store, purse, most, arguments.tokens)
        if short:
            specs = [spec(n, short=True) for n in range(arguments.jobs)]
            await store.submit(purse.batch, specs)
            queue.submitted = arguments.jobs
        else:
            await queue.fill()
        command = [sys.executable, __file__, "--work", database, simulator.base_url]
        command += ["--concurrency", str(arguments.concurrency)]
        fleet = Fleet(command + ["--until-final"] * short, arguments.processes, arguments.seed)
        network = Network(database, server, arguments.server_kill_every_s, arguments.seed)
        started = time.monotonic()
        await fleet.fill()
        if short:
            for process in fleet.processes:
                await process.wait()
        else:
            await bad_days(arguments, store, fleet, queue, network)
            await finish(store, fleet, purse)
        await fleet.stop()
        seconds = time.monotonic() - started
        count, wrong, states = await wrong_documents(store, simulator)
        books = simulator.books
        never = {name: await asyncio.to_thread(_count, store, sql) for name, sql in NEVER.items()}
        check = await store.check()
        result = {
            "minutes": round(seconds / 60, 1),
            "processes": arguments.processes,
            "kills": fleet.kills,
            "server_kills": network.kills,
            "connections_terminated": network.terminated,
            "processes_that_ended_by_themselves": 0 if short else fleet.ended_by_themselves,
            "requests": books.requests,
            "faults_met": sum(books.faults.values()),
            "faults": dict(sorted(books.faults.items())),
            "documents": count,
            "states": dict(states),
            "documents_wrong": wrong,
            **never,
            "divergences": books.divergences,
            "restarts": books.restarts,
            "tokens_generated": books.tokens_generated,
            "tokens_generated_twice": books.tokens_generated_twice,
            "generated_twice_percent": round(
                100 * books.tokens_generated_twice / max(1, books.tokens_generated), 3
            ),
            "workers_left": len(await store.workers()),
            "check": check,
            "spent_usd": purse.spent_usd,
            "budget_raised": purse.raised,
            "budget_passed": purse.passed,
            "database": "PostgreSQL" if "://" in database else f"SQLite {sqlite3.sqlite_version}",
        }
    print(json.dumps(result, indent=2))
    well = not (wrong or check or books.divergences or purse.passed or any(never.values()))
    return 0 if well and count == queue.submitted else 1


def _count(store: Store, statement: str) -> int:
    def ask(sql: Driver) -> int:
        ((count,),) = sql.execute(statement).fetchall()
        return int(count)

    return store.database.look(ask)


class Queue:
    """Keeps jobs waiting, until all have been submitted."""

    def __init__(self, store: Store, purse: Purse, most: int, tokens: int) -> None:
        self.submitted = 0
        self.purse = purse
        self._store, self._most, self._tokens = store, most, tokens

    async def fill(self) -> None:
        waiting = WAITING_AT_LEAST if self._most == sys.maxsize else self._most
        missing = min(waiting - await self._store.unfinished(), self._most - self.submitted)
        if missing > 0:
            numbers = range(self.submitted, self.submitted + missing)
            specs = [spec(n, short=False, tokens=self._tokens) for n in numbers]
            await self._store.submit(self.purse.batch, specs)
            self.submitted += missing


async def bad_days(
    arguments: argparse.Namespace, store: Store, fleet: Fleet, queue: Queue, network: Network
) -> None:
    """Kill and fill until the time is up, or all documents are there."""
    end = time.monotonic() + 60 * arguments.minutes
    kill_at = time.monotonic() + arguments.kill_every_s
    while time.monotonic() < end:
        await asyncio.sleep(min(LOOK_S, arguments.kill_every_s))
        await fleet.fill()
        if time.monotonic() >= kill_at:
            await fleet.kill_one()
            await network.bad_moment(store)
            kill_at = time.monotonic() + arguments.kill_every_s
        await queue.purse.look(store)
        await lift_pauses(store)
        await queue.fill()
        left = await store.unfinished()
        told = f"{fleet.kills} kills, {network.kills} of the server"
        print(f"{told}, {queue.submitted} jobs, {left} unfinished", file=sys.stderr)
        if not left:
            break


async def finish(store: Store, fleet: Fleet, purse: Purse) -> None:
    """Wait until everything is final; the API's faults go on, only nobody is killed."""
    while await store.unfinished():
        await fleet.fill()
        await purse.look(store)
        await lift_pauses(store)
        await asyncio.sleep(1)
    await purse.look(store)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--db", default="", help="a file, a URL, or `postgres`")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--documents", type=int, default=0, help="so many, and no more")
    parser.add_argument("--tokens", type=int, default=0, help="of each document")
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY, help="of each process")
    parser.add_argument("--server-kill-every-s", type=float, default=45)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kill-every-s", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--max-cost-usd", type=float, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs=2, metavar=("DATABASE", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--until-final", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        database, url = arguments.work
        try:
            asyncio.run(
                work(
                    database,
                    url,
                    until_final=arguments.until_final,
                    concurrency=arguments.concurrency,
                )
            )
        except StoreBlocked:  # the server is down as it begins: another will
            return 1
        return 0
    with ExitStack() as stack:
        # A short name, for a server's socket lies there.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        server: Server | None = None
        database = arguments.db or str(folder / "runner.db")
        if database == "postgres":
            server = stack.enter_context(a_server(folder, settings=("max_connections = 200",)))
            database = server.empty()
        return asyncio.run(soak(arguments, database, server))


if __name__ == "__main__":
    sys.exit(main())
