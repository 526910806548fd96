"""Waiting out what keeps the database from being used for a while: a full disk, a foreign lock.

A command that cannot write says so and ends. A process that works through the night waits: its
writes stay in their queue, nothing is lost, and it goes on by itself when there is room again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from runner.errors import StoreBlocked

RETRY_S: Final = 1.0

Told = Callable[[StoreBlocked | None], None]


class Patience:
    """Shared by all that uses one database; asked from the event loop and from the writer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._over.set()
        self._told: Told | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._blocked = False
        self._ended = asyncio.Event()

    def begin(self, told: Told) -> None:
        """Wait from now on.

        Args:
            told: called in the running event loop, with the error when waiting begins, and with
                None when it is over.
        """
        with self._lock:
            self._told, self._loop = told, asyncio.get_running_loop()
            self._blocked = False
            self._ended = asyncio.Event()
            self._over.clear()

    def end(self) -> None:
        """Wait for nothing any more; what waits now fails."""
        self._over.set()
        with self._lock:
            loop, ended = self._loop, self._ended
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(ended.set)

    def wait(self, error: StoreBlocked) -> bool:
        """Wait a moment, blocking this thread. False: the error is to be told."""
        if self._over.is_set():
            return False
        self._tell(error)
        return not self._over.wait(RETRY_S)

    async def sleep(self, error: StoreBlocked) -> bool:
        """The same, for a task: without a thread, for hundreds may wait at once."""
        if self._over.is_set():
            return False
        self._tell(error)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), RETRY_S)
        return not self._over.is_set()

    def worked(self) -> None:
        """The database took a write."""
        if self._blocked:
            self._tell(None)

    def _tell(self, error: StoreBlocked | None) -> None:
        with self._lock:
            if self._blocked == (error is not None):
                return
            self._blocked = error is not None
            told, loop = self._told, self._loop
        if told is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(told, error)
