"""How long the command line takes to start: wall and CPU time of whole processes.

    python benchmarks/cli_start.py [--times 7]

`--help`, `status` on a small database, and `run` from its start to its first request at a server
that is there already. The least of several runs is printed: whatever else the machine does only
adds to it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

RUNNER = [sys.executable, "-m", "runner"]
JOBS = """\
version: 1
batch: small
defaults: {model: claude-haiku-4-5, max_tokens: 200}
jobs:
  - {id: one, prompt: Write a sentence.}
"""


def measure(name: str, times: int, work: Callable[[], float]) -> None:
    walls, cpus = [], []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(work())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"{name:<24} wall {min(walls):5.2f} s   CPU {min(cpus):5.2f} s")


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


def first_request(server: FirstRequest, jobs: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{server.port}"}
        began = time.perf_counter()
        run = subprocess.Popen(
            [*RUNNER, "run", jobs, "--db", f"{folder}/runner.db"],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        took = server.wait() - began
        run.kill()
        run.wait()
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=7)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        jobs, database = f"{folder}/jobs.yaml", f"{folder}/runner.db"
        Path(jobs).write_text(JOBS)
        whole("submit", jobs, "--db", database)
        measure("--help", times, lambda: whole("--help"))
        measure("run --help", times, lambda: whole("run", "--help"))
        measure("status", times, lambda: whole("status", "--db", database))
        server = FirstRequest()
        measure("run, to first request", times, lambda: first_request(server, jobs))


if __name__ == "__main__":
    main()
