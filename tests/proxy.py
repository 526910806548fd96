"""A network that fails on purpose, between the store and a PostgreSQL server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from random import Random

from sqlalchemy.engine import URL, make_url


class Trouble(StrEnum):
    NONE = "none"
    LOSE_ANSWER = "the next COMMIT is done, and its answer is lost"
    LOSE_COMMIT = "the next COMMIT never arrives"
    SILENT = "nothing passes, and nobody is told; later it arrives"


class Proxy:
    """Passes bytes on, until it is told otherwise."""

    def __init__(self, url: URL) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.lead_to(url)
        self.trouble = Trouble.NONE
        self.cuts = 0
        self.luckless = 0.0  # the part of COMMITs whose answer is lost or that never arrive
        self._random = Random(1)
        # Done, in a thread, after a COMMIT was lost and before anybody can connect again.
        self._open = asyncio.Event()
        self._open.set()
        self.meanwhile: Callable[[], object] = lambda: None
        self.then: URL | None = None  # where connections go once a COMMIT was lost
        self.late_s = 0.0  # how much later each answer comes
        self.port = 0

    def lead_to(self, url: URL) -> None:
        """Where connections go from now on; those that stand end."""
        self._server = _socket(url)
        self.cut()

    def cut(self) -> None:
        """End all connections that stand."""
        if self._loop is not None:
            for task in self._tasks.copy():
                self._loop.call_soon_threadsafe(task.cancel)

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, near: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._open.wait()
        try:
            far, server = await asyncio.open_unix_connection(self._server)
        except OSError:  # it is down: whoever connects is sent away
            client.close()
            return
        answers = asyncio.ensure_future(self._pass_on(far, client))
        try:
            await self._ask(near, server, answers)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            answers.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await answers
            server.close()
            client.close()

    async def _ask(
        self, near: asyncio.StreamReader, server: asyncio.StreamWriter, answers: asyncio.Task[None]
    ) -> None:
        while data := await near.read(65536):
            if b"COMMIT;" in data and self._random.random() < self.luckless:
                self.trouble = self._random.choice([Trouble.LOSE_ANSWER, Trouble.LOSE_COMMIT])
            if b"COMMIT;" in data and self.trouble in {Trouble.LOSE_ANSWER, Trouble.LOSE_COMMIT}:
                trouble, self.trouble = self.trouble, Trouble.NONE
                self.cuts += 1
                if self.then is not None:
                    self._server = _socket(self.then)
                if trouble is Trouble.LOSE_ANSWER:
                    answers.cancel()
                    server.write(data)
                    # In order: the server does what it was sent before it sees the end.
                    server.write_eof()
                    await asyncio.sleep(0)
                self._open.clear()
                await asyncio.to_thread(self.meanwhile)
                self._open.set()
                return
            await self._noise()
            server.write(data)
            await server.drain()

    async def _pass_on(self, far: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await far.read(65536):
            await self._noise()
            if self.late_s:
                await asyncio.sleep(self.late_s)
            client.write(data)
            await client.drain()
        client.close()

    async def _noise(self) -> None:
        """Hold back what has come until the silence is over."""
        while self.trouble is Trouble.SILENT:  # noqa: ASYNC110  set by another thread
            await asyncio.sleep(0.01)


def _socket(url: URL) -> str:
    return f"{url.query['host']}/.s.PGSQL.5432"


@contextmanager
def a_proxy(database: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy, and the database's URL through it."""
    url = make_url(database)
    proxy = Proxy(url)
    ready, loops = threading.Event(), []

    async def main() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await proxy.serve(ready, stop)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(200)
    through = url.set(host="127.0.0.1", port=proxy.port, query={})
    try:
        yield proxy, through.render_as_string(hide_password=False)
    finally:
        ((loop, stop),) = loops
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
