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

from runner.store.database import is_thorough

RECYCLE_S: Final = 1_800


class ReadingConnections:
    """
    Args:
        engine: without a pool; its statements are transactions of their own.
        patient: the same with much longer time-outs, for thorough questions.
        most: connections open at once; who comes when all are taken waits.
        era: connections of an era before are not used any more.
        transactions: each question is a transaction, which the engine begins by its own words.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        patient: AsyncEngine,
        most: int,
        era: Callable[[], int] = lambda: 0,
        *,
        transactions: bool = False,
    ) -> None:
        self._engine = engine
        self._patient = patient
        self._transactions = transactions
        self._era = era
        self._turns = asyncio.Semaphore(most)
        self._cuts = 0
        self._busy = 0
        self._freed = asyncio.Event()
        self._idle: list[_Idle] = []

    async def rows(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Sequence[Row[Any]]:
        """Ask one question. After an error no connection that was made before is used again: what
        cut one may have cut them all."""
        async with self._turns:
            if is_thorough(statement):
                return await self._thoroughly(statement, values)
            one = await self._one()
            self._busy += 1
            try:
                found = await self._answer(one.connection, statement, values)
            except BaseException:
                self._cuts += 1
                await drop(one.connection)
                raise
            else:
                self._idle.append(one)
                return found
            finally:
                self._busy -= 1
                self._freed.set()

    async def _thoroughly(
        self, statement: Executable, values: Mapping[str, object] | None
    ) -> Sequence[Row[Any]]:
        """Such questions are rare: each has a connection of its own, in the place of an idle one."""
        if self._idle:
            await drop(self._idle.pop().connection)
        async with self._patient.connect() as connection:
            return await self._answer(connection, statement, values)

    async def _answer(
        self,
        connection: AsyncConnection,
        statement: Executable,
        values: Mapping[str, object] | None,
    ) -> Sequence[Row[Any]]:
        if not self._transactions:
            return (await connection.execute(statement, values)).all()
        async with connection.begin():
            return (await connection.execute(statement, values)).all()

    async def close(self) -> None:
        while self._idle:
            with suppress(Exception):
                await self._idle.pop().connection.close()
        await self._engine.dispose()
        await self._patient.dispose()

    async def _one(self) -> _Idle:
        while True:
            while self._idle:
                one = self._idle.pop()
                if one.era == self._now() and time.monotonic() - one.made_s < RECYCLE_S:
                    return one
                await drop(one.connection)
            era = self._now()
            try:
                return _Idle(await self._engine.connect(), time.monotonic(), era)
            except Exception:
                # A server may have none left for us: then one that is in use will do.
                if not self._busy:
                    raise
                self._freed.clear()
                await self._freed.wait()

    def _now(self) -> tuple[int, int]:
        return self._era(), self._cuts


class _Idle(NamedTuple):
    """A connection that nobody uses now."""

    connection: AsyncConnection
    made_s: float
    era: tuple[int, int]


async def drop(connection: AsyncConnection) -> None:
    """Close a connection that may be spoiled: not in order, for a server that does not answer
    would be waited for."""
    with suppress(Exception):
        await connection.invalidate()
        await connection.close()
