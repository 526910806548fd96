"""The connections that only read: a few, kept open, each for one question at a time.

A pool that hands out, tries, resets and takes back a connection costs several times what a short
question to a server does; nothing of that is needed where no transaction outlives its statement.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import Executable, Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

RECYCLE_S: Final = 1_800


class ReadingConnections:
    """
    Args:
        engine: without a pool; its statements are transactions of their own.
        most: connections open at once; who comes when all are taken waits.
    """

    def __init__(self, engine: AsyncEngine, most: int) -> None:
        self._engine = engine
        self._turns = asyncio.Semaphore(most)
        self._idle: list[tuple[AsyncConnection, float]] = []  # with the time each was made

    async def rows(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Sequence[Row[Any]]:
        """Ask one question. After an error the connections that were idle are not used again:
        what cut one may have cut them all."""
        async with self._turns:
            connection, made_s = await self._connection()
            try:
                found = (await connection.execute(statement, values)).all()
            except BaseException:
                await drop(connection)
                await self._let_go()
                raise
            self._idle.append((connection, made_s))
            return found

    async def close(self) -> None:
        while self._idle:
            connection, _ = self._idle.pop()
            with suppress(Exception):
                await connection.close()
        await self._engine.dispose()

    async def _connection(self) -> tuple[AsyncConnection, float]:
        while self._idle:
            connection, made_s = self._idle.pop()
            if time.monotonic() - made_s < RECYCLE_S:
                return connection, made_s
            await drop(connection)
        return await self._engine.connect(), time.monotonic()

    async def _let_go(self) -> None:
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            await drop(connection)


async def drop(connection: AsyncConnection) -> None:
    """Close a connection that may be spoiled: not in order, for a server that does not answer
    would be waited for."""
    with suppress(Exception):
        await connection.invalidate()
        await connection.close()
