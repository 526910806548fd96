"""A queue of a million jobs: submitting it, claiming from it, reading it, tidying it.

    python benchmarks/million.py [--jobs N] [--db sqlite|postgres] [--quick]

The job file, of prompts of 1 kB, is submitted by `runner submit`; sizes of 1,000, 100,000 and N jobs are
measured while all of them wait, and N once more where 9 of 10 have ended, 9 of 100 are delayed, and there
are 300 batches. Commands are measured as a whole, start-up and all, beside the same command on an empty
queue, in turns, while another process writes. CPU is user and system time; on PostgreSQL that of the
server's processes is told apart. The file is written where you are, not in /tmp, which may be memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from postgres import Server, a_server
from report import Cpu, Report, arguments, clean_environment

from runner.jobs.call import CallOutcome
from runner.jobs.jobfile import read_job_file
from runner.jobs.spec import BatchLimits, JobSpec
from runner.jobs.states import FINAL, Finish, State
from runner.store import submit
from runner.store.records import CallStart, Lane, Selection, Settlement
from runner.store.store import Store

MODEL = "claude-haiku-4-5"
PROMPT = ('Write a long chapter on "this" and on that.\n' + "It should be of use to all. " * 4) * 6
TEXT = "The quick brown fox jumps over the lazy dog; " * 11
DONE = Settlement(State.COMPLETED, Finish.END_TURN)
ROUNDS = 9
WORK_ROUNDS = 21
FILL = """\
WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < JOBS)
INSERT INTO job (key, batch_key, id, hash, model, state, priority, created_ms, updated_ms)
SELECT n, 1, 'job-' || substr(CAST(10000000 + n - 1 AS TEXT), 2), NO HASH, 'MODEL', 'available', 0, 0, 0
FROM n
"""


def write_job_file(path: Path, jobs: int) -> None:
    with path.open("w") as out:
        for number in range(jobs):
            messages = [{"role": "user", "content": f"{PROMPT}{number}"}]
            params = {"model": MODEL, "max_tokens": 4096, "messages": messages}
            out.write(json.dumps({"custom_id": f"job-{number:07}", "params": params}) + "\n")


# queues


@dataclass
class Queue:
    """A database, and the means to change much of it at once."""

    name: str
    server: Server | None

    def run(self, *statements: str) -> None:
        if self.server is not None:
            for statement in statements:
                asyncio.run(self.server.run(statement, self.name))
            return
        with closing(sqlite3.connect(self.name)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def fill(self, jobs: int) -> None:
        """As many jobs that wait, at once: for what is not about submitting them."""
        message = {"role": "user", "content": "x" * 1_000}
        spec = JobSpec("a", MODEL, (message,), max_tokens=4096)
        words = {
            "JOBS": str(jobs),
            "LIMITS": submit.limits_json(BatchLimits()),
            "MODEL": MODEL,
            "SETTINGS": spec.settings_json(),
            "SHAPE": spec.shape_data().decode(),
            "NO HASH": "CAST('' AS bytea)" if self.server else "x''",
        }
        statements = [
            "INSERT INTO batch (key, name, limits, created_ms) VALUES (1, 'jobs', 'LIMITS', 0)",
            FILL,
            "INSERT INTO job_spec (job_key, settings, shape) SELECT key, 'SETTINGS', 'SHAPE' FROM job",
        ]
        if self.server is not None:
            statements += [
                "SELECT setval('job_key_seq', (SELECT max(key) FROM job))",
                "SELECT setval('batch_key_seq', 1)",
                "ANALYZE",
            ]
        for word, meaning in words.items():
            statements = [statement.replace(word, meaning) for statement in statements]
        self.run(*statements)

    def server_cpu_s(self) -> float:
        return 0.0 if self.server is None else self.server.cpu_s()

    def backends(self) -> dict[int, float]:
        """CPU of each of the server's processes, by the kernel's finest clock."""
        if self.server is None:
            return {}
        return {pid: run_s(pid) for pid in self.server.children()}

    def age(self) -> None:
        """Let 9 of 10 jobs have ended, with a call and a chunk each, delay most others, and let
        there be other batches."""
        self.run(
            "UPDATE job SET state = 'completed', finish = 'end_turn', finalized_ms = key, claim = 1 "
            "WHERE key % 10 < 9 AND state = 'available'",
            "UPDATE job SET finish = 'max_calls' WHERE key % 10000 = 1",
            "UPDATE job SET state = 'discarded', finish = NULL WHERE key % 10000 = 2",
            "UPDATE job SET state = 'scheduled', scheduled_ms = 4000000000000 "
            "WHERE key % 10 = 9 AND key % 100 <> 99 AND state = 'available'",
            "INSERT INTO call (job_key, number, claim, resume_at, max_tokens, model, started_ms, "
            "ended_ms, stop_reason, input_tokens, output_tokens, prompt_tokens, input_price, "
            "output_price, cache_write_5m_price, cache_write_1h_price, cache_read_price, "
            "cost_nano_usd) SELECT key, 1, 1, 0, 4096, model, 1700000000000 + key * 1000, 1, "
            "'end_turn', 300, 120, 300, 1000000000000, 5000000000000, 1250000000000, "
            "2000000000000, 100000000000, 900000 FROM job WHERE finalized_ms = key",
            "UPDATE batch SET (calls, input_tokens, output_tokens, cost_nano_usd, "
            "spent_output_tokens) = (SELECT count(*), sum(input_tokens), sum(output_tokens), "
            "sum(cost_nano_usd), sum(output_tokens) FROM call)",
            "INSERT INTO chunk (job_key, call_key, seq, text) "
            "SELECT job_key, key, 0, 'TEXT' FROM call WHERE input_tokens = 300".replace(
                "TEXT", TEXT
            ),
            "WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 300) "
            "INSERT INTO batch (name, limits, created_ms) "
            "SELECT 'batch-' || n, (SELECT limits FROM batch), 0 FROM n",
            "INSERT INTO job (batch_key, id, hash, model, state, finish, finalized_ms, priority, "
            "created_ms, updated_ms) SELECT b.key, 'job-' || b.key, job.hash, job.model, "
            "'completed', 'end_turn', 1, 0, 0, 0 FROM batch AS b, job "
            "WHERE b.key > 1 AND job.key = (SELECT min(key) FROM job)",
            "INSERT INTO job_spec (job_key, settings, shape) SELECT job.key, s.settings, s.shape "
            "FROM job, job_spec AS s WHERE job.batch_key > 1 "
            "AND s.job_key = (SELECT min(key) FROM job)",
            # So that it does not set in while something is measured.
            "VACUUM ANALYZE" if self.server is not None else "SELECT 1",
        )


@contextmanager
def queues(kind: str, folder: Path) -> Iterator[Callable[[], Queue]]:
    """Makes empty queues."""

    def opened(name: str, server: Server | None) -> Queue:
        async def made() -> None:
            async with await Store.open(name):
                pass

        asyncio.run(made())
        return Queue(name, server)

    if kind == "sqlite":
        yield lambda: opened(tempfile.mkdtemp(dir=folder) + "/runner.db", None)
        return
    with a_server(None) as server:
        yield lambda: opened(asyncio.run(server.queue()), server)


def run_s(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0  # it ended


# commands


@dataclass(frozen=True)
class Ran:
    """What a process took.

    Args:
        peak_mb: the most memory it had.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float


def command(*words: str, queue: Queue | None = None) -> Ran:
    """`runner …`, in a process of its own."""
    database = [] if queue is None else ["--db", queue.name]
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *words, *database],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    # A status of 1 tells of documents that are not complete.
    if os.waitstatus_to_exitcode(status) not in ((0,) if words[0] == "submit" else (0, 1)):
        raise SystemExit(f"runner {' '.join(words)}: {said.decode()}")
    return Ran(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


@contextmanager
def writing(queue: Queue) -> Iterator[None]:
    """Another process claims, saves and settles meanwhile."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--writer", queue.name], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise SystemExit(f"the writer ended with {process.wait()}")
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def write_for_ever(database: str) -> None:
    async with await Store.open(database) as store:
        await register(store, f"writer-{os.getpid()}")
        keys = [row.key for row in await store.batches()][:1]
        print("writes", flush=True)
        while True:
            await one_document(store, f"writer-{os.getpid()}", keys[0])
            await asyncio.sleep(0.002)


async def register(store: Store, worker_id: str) -> None:
    await store.register_worker(worker_id, host="bench", pid=os.getpid(), lease_ms=10**9)


async def one_document(store: Store, worker_id: str, batch_key: int) -> None:
    claims = await store.claim(worker_id, [Lane(batch_key, MODEL, 1)], 1)
    for claim in claims:
        loaded = await store.load(claim)
        call_key = await store.begin_call(
            claim, CallStart(len(loaded.calls) + 1, None, 0, 9, MODEL)
        )
        await store.save(claim, call_key, loaded.next_seq, TEXT)
        await store.end_call_and_settle(claim, call_key, CallOutcome("end_turn"), DONE)


# parts


def measure_parts(report: Report, path: Path, jobs: int) -> None:
    """Where the time of a submission goes."""
    table = report.table("Submitting, part by part", "part", "CPU a job")
    with Cpu() as check:
        file = read_job_file(path)
    table.add("check the file", f"{check.cpu_s / jobs * 1e6:.1f} µs")
    with Cpu() as read:
        sum(1 for _ in file.jobs())
    table.add("read it again", f"{read.cpu_s / jobs * 1e6:.1f} µs")
    with Cpu() as ready:
        sum(len(part) for part in submit.slices(file.jobs()))
    table.add("… and hash its jobs, write their JSON", f"{ready.cpu_s / jobs * 1e6:.1f} µs")


def submit_file(report: Report, queue: Queue, path: Path, jobs: int, most: int) -> None:
    server = queue.server_cpu_s()
    ran = command("submit", str(path), queue=queue)
    server = queue.server_cpu_s() - server
    again = command("submit", str(path), queue=queue) if jobs <= 100_000 else None
    table = next((t for t in report.tables if t.title.startswith("`runner submit`")), None)
    if table is None:
        table = report.table(
            "`runner submit`, start-up and check and all",
            "jobs", "a second of CPU", "a second", "CPU a job", "the server's", "most memory",
            "the same file again, CPU a job",
        )  # fmt: skip
    table.add(
        f"{jobs:,}",
        f"{jobs / ran.cpu_s:,.0f}",
        f"{jobs / ran.wall_s:,.0f}",
        f"{ran.cpu_s / jobs * 1e6:.1f} µs",
        f"{server / jobs * 1e6:.1f} µs" if queue.server else "",
        f"{ran.peak_mb:.0f} MB",
        "" if again is None else f"{again.cpu_s / jobs * 1e6:.1f} µs",
    )
    if jobs == most:
        report.figure(
            f"submit, {jobs:,} jobs, a second of CPU",
            jobs / ran.cpu_s, "/s", goal=40_000, more_is_better=True,
        )  # fmt: skip
        report.figure(f"submit, {jobs:,} jobs, most memory", ran.peak_mb, "MB", goal=200)


@dataclass
class Work:
    """CPU in µs of what a worker does, with that of the server."""

    claim: float
    claim_32: float
    heartbeat: float
    document: float
    lanes: float


@dataclass
class Worked:
    """A queue at work, and what each kind of work cost there."""

    queue: Queue
    store: Store
    batch_key: int
    held: list[Any]
    taken: dict[str, list[float]]

    async def claim(self, size: int) -> None:
        self.held += await self.store.claim("bench", [Lane(self.batch_key, MODEL, size)], size)

    async def cost(
        self, name: str, work: Callable[[], Coroutine[Any, Any, object]], times: int = 10
    ) -> None:
        before = self.queue.backends()
        with Cpu() as used:
            for _ in range(times):
                await work()
        after = self.queue.backends()
        cpu_s = used.cpu_s + sum(
            max(0.0, after[pid] - before[pid]) for pid in before.keys() & after.keys()
        )
        self.taken.setdefault(name, []).append(cpu_s / times * 1e6)

    async def round(self, number: int) -> None:
        await self.cost("claim", lambda: self.claim(1))
        if number % 5 == 0:
            await self.cost("claim_32", lambda: self.claim(32), 2)
        await self.cost("heartbeat", lambda: self.store.renew_lease("bench", lease_ms=10**9))
        if number % 3 == 0:
            await self.cost("document", lambda: one_document(self.store, "bench", self.batch_key))
            await self.cost("lanes", self.store.open_lanes)

    def told(self) -> Work:
        """Medians: a machine that does other things has its moments. The first is to warm up."""
        return Work(**{k: statistics.median(costs[1:]) for k, costs in self.taken.items()})


async def measure_work(small: Queue, queue: Queue) -> tuple[Work, Work]:
    """What a worker does, by turns in both queues, so that both have the same weather."""
    async with AsyncExitStack() as stack:
        works = []
        for one in (small, queue):
            store = await stack.enter_async_context(await Store.open(one.name))
            await register(store, "bench")
            works.append(Worked(one, store, (await store.batches())[0].key, [], {}))
        for number in range(WORK_ROUNDS):
            for work in works:
                await work.round(number)
        for work in works:
            # Only now: who claims a job again finds its page in memory.
            for claim in work.held:
                await work.store.settle(claim, Settlement(State.AVAILABLE))
            await work.store.retire_worker("bench")
        first, second = works
        return first.told(), second.told()


COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("list", "--limit", "20"),
    ("list", "--state", "executing"),
    ("list", "--state", "discarded", "--limit", "20"),
    ("list", "--state", "completed", "--limit", "20"),
    ("list", "--state", "cancelled"),
    ("list", "--finish", "max_calls", "--limit", "20"),
    ("list", "--batch", "batch-300"),
    ("show", "job-0000003"),
)


def measure_commands(report: Report, empty: Queue, full: Queue, what: str, jobs: int) -> None:
    table = report.table(
        f"Commands while another process writes, {jobs:,} jobs, {what}",
        "command", "empty queue", "this queue", "more, CPU", "more, wall",
    )  # fmt: skip
    with writing(full):
        for words in COMMANDS[:1] if what == "waiting" else COMMANDS:
            name = " ".join(words)
            runs: list[tuple[Ran, Ran]] = []
            for _ in range(ROUNDS if words == ("status",) else 3):
                base = ("status",) if words[0] == "show" else words
                base = base[:1] if "--batch" in words else base
                runs.append((command(*base, queue=empty), command(*words, queue=full)))
            few, many = ([ran[side] for ran in runs] for side in (0, 1))
            # Of the quickest runs: what else a machine does makes no run quicker.
            more_wall = min(ran.wall_s for ran in many) - min(ran.wall_s for ran in few)
            more_cpu = statistics.median(b.cpu_s - a.cpu_s for a, b in runs)
            table.add(
                f"`runner {name}`",
                f"{min(ran.wall_s for ran in few):.2f} s",
                f"{min(ran.wall_s for ran in many):.2f} s",
                f"{more_cpu * 1e3:+.0f} ms",
                f"{more_wall * 1e3:+.0f} ms",
            )
            if words == ("status",):
                for kind, more in (("CPU", more_cpu), ("wall", more_wall)):
                    report.figure(
                        f"`runner status`, {jobs:,} jobs {what}, beyond an empty queue, {kind}",
                        more, "s", goal=0.1,
                    )  # fmt: skip


def measure_ledger(report: Report, queue: Queue) -> None:
    table = report.table("The ledger, whole commands", "command", "CPU", "wall", "most memory")
    for by in ("batch", "model", "day", "job"):
        ran = command("cost", "--by", by, queue=queue)
        table.add(
            f"`runner cost --by {by}`", f"{ran.cpu_s:.1f} s", f"{ran.wall_s:.1f} s",
            f"{ran.peak_mb:.0f} MB",
        )  # fmt: skip


def measure_export(report: Report, queue: Queue, folder: Path, jobs: int) -> None:
    title = "`runner export --format jsonl`"
    table = next((t for t in report.tables if t.title == title), None)
    if table is None:
        table = report.table(
            title, "jobs in the queue", "documents", "CPU a document", "wall", "most memory"
        )
    out = folder / "out"
    ran = command("export", "--format", "jsonl", "--out", str(out), queue=queue)
    shutil.rmtree(out)
    documents = round(0.9 * jobs)
    table.add(
        f"{jobs:,}", f"{documents:,}", f"{ran.cpu_s / documents * 1e6:.0f} µs",
        f"{ran.wall_s:.1f} s", f"{ran.peak_mb:.0f} MB",
    )  # fmt: skip


def measure_worker(report: Report, queue: Queue, jobs: int) -> None:
    """The memory of a real worker after some seconds."""
    title = "Memory of `runner work --simulate`, 50 streams"
    table = next((t for t in report.tables if t.title == title), None)
    if table is None:
        table = report.table(title, "jobs in the queue", "most memory")
    queue.run("UPDATE batch SET simulated = 1")
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "work", "--simulate", "--concurrency", "50", "--no-live",
         "--db", queue.name],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(20)
    process.send_signal(signal.SIGINT)
    _, _, used = os.wait4(process.pid, 0)
    queue.run("UPDATE batch SET simulated = 0")
    table.add(f"{jobs:,}", f"{used.ru_maxrss / 1024:.0f} MB")


async def measure_prune(report: Report, queue: Queue, jobs: int, size: int) -> None:
    """A tenth of the queue goes while another process saves.

    Args:
        size: bytes of the file; 0 on a server.
    """
    table = report.table("`prune` of a tenth, beside a worker", "what", "figure")
    waits: list[float] = []
    async with await Store.open(queue.name) as store, await Store.open(queue.name) as other:
        await register(other, "bench")
        batch_key = (await other.batches())[0].key
        done = asyncio.Event()

        async def work() -> None:
            while not done.is_set():
                began = time.perf_counter()
                await one_document(other, "bench", batch_key)
                waits.append(time.perf_counter() - began)

        worker = asyncio.create_task(work())
        with Cpu() as used:
            # Those of the benchmark ended at the moment of their keys.
            selection = Selection(states=FINAL, final_before_ms=jobs // 10)
            receipt = await store.prune(selection)
        done.set()
        await worker
        await other.retire_worker("bench")
    waits.sort()
    table.add("jobs deleted", f"{receipt.jobs:,}")
    table.add("wall", f"{used.wall_s:.1f} s")
    table.add("a document beside it, median", f"{statistics.median(waits) * 1e3:.0f} ms")
    table.add("the slowest", f"{waits[-1] * 1e3:.0f} ms")
    if queue.server is None:
        table.add(
            "the file", f"{size / 1e6:,.0f} MB, {receipt.freed_bytes / 1e6:,.0f} MB given back"
        )


def main() -> None:
    if sys.argv[1:2] == ["--writer"]:
        asyncio.run(write_for_ever(sys.argv[2]))
    parser = arguments(__doc__ or "", quick=True, curve=True)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--db", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument(
        "--only", default="submit,work,commands,ledger,export,worker,prune", metavar="PART,…"
    )
    options = parser.parse_args()
    clean_environment()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was found so far is told
    parts = options.only.split(",")
    most = 20_000 if options.quick else options.jobs
    sizes = sorted({min(1_000, most), min(100_000, most), most})
    if not set(parts) - {"commands", "ledger", "prune"}:
        sizes = [most]
    report = Report("million")
    folder = Path(tempfile.mkdtemp(dir=".", prefix="million-"))
    works: dict[str, list[tuple[int, Work, Work]]] = {"waiting": [], "9 of 10 ended": []}
    try:
        with queues(options.db, folder) as new:
            empty, small = new(), new()
            small.fill(1_000)
            for jobs in sizes:
                print(f"{jobs:,} jobs", file=sys.stderr)
                queue = new()
                if "submit" in parts:
                    path = folder / "jobs.jsonl"
                    write_job_file(path, jobs)
                    if jobs == min(most, 100_000):
                        measure_parts(report, path, jobs)
                    submit_file(report, queue, path, jobs, most)
                    path.unlink()
                else:
                    queue.fill(jobs)
                if "work" in parts:
                    works["waiting"].append((jobs, *asyncio.run(measure_work(small, queue))))
                if "commands" in parts and jobs == most:
                    measure_commands(report, empty, queue, "waiting", jobs)
                if not set(parts) - {"submit"}:
                    continue
                queue.age()
                if "work" in parts and jobs != sizes[0]:
                    works["9 of 10 ended"].append((jobs, *asyncio.run(measure_work(small, queue))))
                if "export" in parts:
                    measure_export(report, queue, folder, jobs)
                if "worker" in parts and jobs in (sizes[0], most):
                    measure_worker(report, queue, jobs)
                if jobs == most:
                    if "commands" in parts:
                        measure_commands(report, empty, queue, "9 of 10 ended, 300 batches", jobs)
                    if "ledger" in parts:
                        measure_ledger(report, queue)
                    if "prune" in parts:
                        size = 0 if queue.server else Path(queue.name).stat().st_size
                        asyncio.run(measure_prune(report, queue, jobs, size))
    finally:
        shutil.rmtree(folder)
        if works["waiting"]:
            tell_work(report, works)
        report.finish(options, x="jobs in the queue", y="CPU, µs", log_x=True)


def tell_work(report: Report, works: dict[str, list[tuple[int, Work, Work]]]) -> None:
    table = report.table(
        "What a worker does, CPU, and how many times that of a queue of 1,000 by turns with it",
        "jobs", "a claim", "a claim of 32", "a heartbeat", "a document, saved once", "open lanes",
    )  # fmt: skip
    for what, found in works.items():
        for jobs, small, work in found:
            pairs = zip(astuple(work), astuple(small), strict=True)
            table.add(f"{jobs:,} {what}", *(f"{a:.0f} µs, {a / b:.2f} ×" for a, b in pairs))
        if found:
            most, small, last = found[-1]
            report.figure(
                f"claim, {most:,} jobs {what}, against 1,000",
                last.claim / small.claim, "×", goal=1.3,
            )  # fmt: skip
    waiting = works["waiting"]
    report.curve("a claim", [n for n, *_ in waiting], [work.claim for *_, work in waiting])
    report.curve("a document", [n for n, *_ in waiting], [work.document for *_, work in waiting])


if __name__ == "__main__":
    main()
