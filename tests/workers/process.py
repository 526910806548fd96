"""A working process for tests that need real ones, with lease times of their own.

`python -m tests.workers.process DATABASE URL SETTINGS AHEAD` works until every job is final and
tells its notices on stdout, a line each. SETTINGS are those of `WorkerSettings`, as JSON; by AHEAD
seconds its wall clock is ahead of ours.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

from runner.library import open_store
from runner.messages.client import MessagesClient
from runner.workers.progress import Progress
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker

SHORT_LEASE: dict[str, Any] = {
    "lease_s": 2.0,
    "trust_s": 1.2,
    "heartbeat_s": 0.2,
    "rescue_s": 0.2,
    "poll_s": 0.05,
    "checkpoint_s": 0.02,
}


class Aloud(Progress):
    def notice(self, text: str) -> None:
        print(text, flush=True)


async def work(database: str, base_url: str, settings: WorkerSettings) -> None:
    client = MessagesClient(api_key="test-key", base_url=base_url, one_block=False)
    async with open_store(database) as store:
        await Worker(store, client, settings=settings, progress=Aloud()).run()
    await client.aclose()


class Process:
    """Such a process, as a test holds it."""

    def __init__(self, database: str, base_url: str, *, ahead_s: int = 0, **settings: Any) -> None:
        self._lines: asyncio.StreamReader
        self._command = [
            *(sys.executable, "-m", "tests.workers.process"),
            *(database, base_url, json.dumps(settings), str(ahead_s)),
        ]

    async def __aenter__(self) -> Process:
        self.child = await asyncio.create_subprocess_exec(
            *self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.child.returncode is None:
            self.child.kill()
        await self.child.communicate()

    async def tells(self, words: str) -> str:
        """Wait for a line with these words."""
        assert self.child.stdout is not None
        async with asyncio.timeout(90):
            while line := await self.child.stdout.readline():
                if words in line.decode():
                    return line.decode()
        raise AssertionError(f"it ended and never told {words!r}")

    async def ends(self) -> str:
        """Wait for its end, which must be a good one; the rest of what it told."""
        async with asyncio.timeout(240):
            told, errors = await self.child.communicate()
        assert self.child.returncode == 0, errors.decode()
        assert b"Traceback" not in errors
        return told.decode()


def set_clock(ahead_s: int) -> None:
    """Let this process have another time of day."""
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + ahead_s
    time.time_ns = lambda: right_ns() + ahead_s * 1_000_000_000


if __name__ == "__main__":
    set_clock(int(sys.argv[4]))
    asyncio.run(work(sys.argv[1], sys.argv[2], WorkerSettings(**json.loads(sys.argv[3]))))
