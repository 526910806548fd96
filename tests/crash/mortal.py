"""Processes that work until they are killed: `python -m tests.crash.mortal DATABASE URL [SETTINGS]`.

Everything is imported once, by a process that has neither thread nor loop. Each line on stdin
makes it do something and answer with a line: `begin` forks a child that works on the database,
`kill` ends it by SIGKILL, `wait` waits for its good end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback

import aiohttp  # noqa: F401  imported once, not by every child
import anthropic  # noqa: F401
import asyncpg  # noqa: F401
import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401

from runner.library import open_store
from runner.messages.client import MessagesClient
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker
from tests.house import Impatient


async def work(database: str, base_url: str, settings: WorkerSettings) -> None:
    client = MessagesClient(api_key="test-key", base_url=base_url, one_block=False)
    async with open_store(database) as store:
        await Worker(store, client, settings=settings, random=Impatient()).run()
    await client.aclose()


def begin(database: str, base_url: str, settings: WorkerSettings) -> int:
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            asyncio.run(work(database, base_url, settings))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def main() -> None:
    database, base_url, *rest = sys.argv[1:]
    settings = WorkerSettings(**json.loads(rest[0])) if rest else WorkerSettings()
    pid = 0
    for line in sys.stdin:
        match line.strip():
            case "begin":
                pid = begin(database, base_url, settings)
                print("begun", flush=True)
            case "kill":
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                print("dead", flush=True)
            case "wait":
                _, status = os.waitpid(pid, 0)
                print(os.waitstatus_to_exitcode(status), flush=True)


class Mortal:
    """Such processes, one after another, as a test holds them."""

    def __init__(self, database: str, base_url: str, **settings: object) -> None:
        self._command = [
            *(sys.executable, "-m", "tests.crash.mortal"),
            *(database, base_url, json.dumps(settings)),
        ]
        self._child: asyncio.subprocess.Process

    async def __aenter__(self) -> Mortal:
        pipe = asyncio.subprocess.PIPE
        self._child = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        await self._child.wait()

    async def tell(self, word: str) -> str:
        """`begin`, `kill` or `wait`; the answer."""
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{word}\n".encode())
        async with asyncio.timeout(60):
            return (await stdout.readline()).decode().strip()


if __name__ == "__main__":
    main()
