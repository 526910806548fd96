"""How long the command line takes to start: wall and CPU time of whole processes.

    python benchmarks/cli_start.py [--times 7] [--quick] [--json FILE]

`--help`, `status` on a small database, and `run` from its start to its first request at a server
that is there already; with a file of SQLite and with a PostgreSQL server on this machine. The least
of several runs is told: whatever else the machine does only adds to it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from postgres import a_server
from report import Report, Table, arguments, children_cpu_s, clean_environment

RUNNER = [sys.executable, "-m", "runner"]
JOBS = """\
version: 1
batch: small
defaults: {model: claude-haiku-4-5, max_tokens: 200}
jobs:
  - {id: one, prompt: Write a sentence.}
"""


class Starts:
    """Measures commands, each several times."""

    def __init__(self, report: Report, table: Table, times: int) -> None:
        self._report = report
        self._table = table
        self._times = times

    def measure(self, name: str, work: Callable[[], float], goal_s: float | None = None) -> None:
        walls, cpus = [], []
        for _ in range(self._times):
            before = children_cpu_s()
            walls.append(work())
            cpus.append(children_cpu_s() - before)
        self._table.add(name, f"{min(walls):.2f} s", f"{min(cpus):.2f} s")
        if goal_s is not None:
            # What else the machine does adds to the wall time, even to the least of it.
            self._report.figure(f"{name}, CPU", min(cpus), "s", goal=goal_s)


def whole(*args: str) -> float:
    began = time.perf_counter()
    subprocess.run([*RUNNER, *args], check=True, capture_output=True)
    return time.perf_counter() - began


class FirstRequest:
    """A server that notes when somebody connects, and says no more."""

    def __init__(self) -> None:
        self.port = 0
        self.came = 0.0
        self._ready, self._came = Event(), Event()
        Thread(target=asyncio.run, args=(self._serve(),), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _take(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readline()
        self.came = time.perf_counter()
        self._came.set()

    def wait(self) -> float:
        self._came.wait()
        self._came.clear()
        return self.came


def first_request(server: FirstRequest, jobs: str, database: str | None = None) -> float:
    with tempfile.TemporaryDirectory() as folder:
        database = database or f"{folder}/runner.db"
        environment = os.environ | {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{server.port}"}
        began = time.perf_counter()
        run = subprocess.Popen(
            [*RUNNER, "run", jobs, "--db", database],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        took = server.wait() - began
        run.kill()
        run.wait()
        return took


def main() -> None:
    parser = arguments(__doc__, quick=True)
    parser.add_argument("--times", type=int, default=7)
    options = parser.parse_args()
    clean_environment()
    report = Report("cli_start")
    table = report.table("How long a command takes to start", "command", "wall", "CPU")
    starts = Starts(report, table, 3 if options.quick else options.times)
    server = FirstRequest()
    with tempfile.TemporaryDirectory() as folder:
        jobs, database = f"{folder}/jobs.yaml", f"{folder}/runner.db"
        Path(jobs).write_text(JOBS)
        whole("submit", jobs, "--db", database)
        starts.measure("`--help`", lambda: whole("--help"), 0.15)
        starts.measure("`run --help`", lambda: whole("run", "--help"))
        starts.measure("`status`, small database", lambda: whole("status", "--db", database), 0.8)
        starts.measure("`run` to its first request", lambda: first_request(server, jobs), 2.5)
        with a_server(None) as postgres:
            status = asyncio.run(postgres.queue())
            whole("submit", jobs, "--db", status)
            starts.measure(
                "`status`, small database, PostgreSQL", lambda: whole("status", "--db", status), 0.8
            )
            starts.measure(
                "`run` to its first request, PostgreSQL",
                # Each in a queue of its own: nobody else can tell that a killed one is dead.
                lambda: first_request(server, jobs, asyncio.run(postgres.queue())),
                2.5,
            )
    report.finish(options)


if __name__ == "__main__":
    main()
