"""Another program on the same database, with bare SQL and no manners."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import asyncpg

from runner.store.bare import in_postgres
from tests.postgres import connect

Refused = (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)


class Stranger:
    """A connection that commits each statement, unless BEGIN is one."""

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def whole(self) -> bool:
        """Whether the database finds nothing wrong with its own file."""
        return True  # a server tells when it meets something


class SqliteStranger(Stranger):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, values).fetchall()

    def whole(self) -> bool:
        return self.execute("PRAGMA integrity_check") == [("ok",)]


class PostgresStranger(Stranger):
    """In a thread of its own: the test's event loop waits for what it does."""

    def __init__(self, url: str, thread: ThreadPoolExecutor, runner: asyncio.Runner) -> None:
        self._thread, self._runner = thread, runner
        self.connection = self.do(connect(url))

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._thread.submit(self._runner.run, coroutine).result()

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows = self.do(self.connection.fetch(in_postgres(sql), *values))
        return [tuple(row) for row in rows]


@contextmanager
def a_stranger(database: str) -> Iterator[Stranger]:
    if not database.startswith("postgresql"):
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            yield SqliteStranger(connection)
        return
    with ThreadPoolExecutor(1) as thread:
        runner = asyncio.Runner()
        stranger = PostgresStranger(database, thread, runner)
        try:
            yield stranger
        finally:
            stranger.do(stranger.connection.close())
            thread.submit(runner.close).result()
