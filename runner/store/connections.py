"""The connections that only read: a few, kept open, each for one question at a time.

A pool that hands out, tries, resets and takes back a connection costs several times what a short
question to a server does; nothing of that is needed where no transaction outlives its statement.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sqlalchemy import Executable, Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

RECYCLE_S: Final = 1_800


class ReadingConnections:
    """
    Args:
        engine: without a pool; its statements are transactions of their own.
        most: connections open at once; who comes when all are taken waits.
        era: connections of an era before are not used any more.
    """

    def __init__(self, engine: AsyncEngine, most: int, era: Callable[[], int] = lambda: 0) -> None:
        self._engine = engine
        self._era = era
        self._turns = asyncio.Semaphore(most)
        self._idle: list[_Idle] = []

    async def rows(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Sequence[Row[Any]]:
        """Ask one question. After an error the connections that were idle are not used again:
        what cut one may have cut them all."""
        async with self._turns:
            one = await self._one()
            try:
                found = (await one.connection.execute(statement, values)).all()
            except BaseException:
                self._idle.append(one)
                await self._let_go()
                raise
            self._idle.append(one)
            return found

    async def close(self) -> None:
        while self._idle:
            with suppress(Exception):
                await self._idle.pop().connection.close()
        await self._engine.dispose()

    async def _one(self) -> _Idle:
        while self._idle:
            one = self._idle.pop()
            if one.era == self._era() and time.monotonic() - one.made_s < RECYCLE_S:
                return one
            await drop(one.connection)
        return _Idle(await self._engine.connect(), time.monotonic(), self._era())

    async def _let_go(self) -> None:
        idle, self._idle = self._idle, []
        for one in idle:
            await drop(one.connection)


class _Idle(NamedTuple):
    """A connection that nobody uses now."""

    connection: AsyncConnection
    made_s: float
    era: int


async def drop(connection: AsyncConnection) -> None:
    """Close a connection that may be spoiled: not in order, for a server that does not answer
    would be waited for."""
    with suppress(Exception):
        await connection.invalidate()
        await connection.close()
