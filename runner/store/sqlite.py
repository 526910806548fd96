"""A queue in a file of SQLite, as a `Database`."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine

from runner.errors import StoreError
from runner.store import engine, migrate
from runner.store.bare import Driver
from runner.store.database import Reads
from runner.store.file_reads import FileReads
from runner.store.locks import WorkerLocks

T = TypeVar("T")


class SqliteFile:
    """A file of SQLite; see `runner.store.database.Database`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def named(cls, name: str | Path) -> SqliteFile:
        return cls(engine.database_path(name))

    @property
    def path(self) -> Path:
        return self._path

    @property
    def one_clock(self) -> bool:
        return False  # it is this machine's, which somebody may set

    @property
    def shown(self) -> str:
        return str(self._path)

    def identity(self) -> str:
        return str(self._path.resolve())

    def missing(self) -> str:
        return f"no database at {self._path}; run `runner run FILE` first or name one with --db."

    def current(self) -> str | None:
        return migrate.current(self._path)

    def upgrade(self) -> None:
        migrate.upgrade(self._path)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def look(self, work: Callable[[Driver], T]) -> T:
        try:
            with closing(engine.connect(self._path, mode="ro")) as connection:
                return work(connection)
        except sqlite3.Error as error:
            raise (self.explained(error) or self.refused(error)) from error

    def reading(self) -> FileReads:
        return FileReads(engine.reading_engine(self._path), engine.READERS)

    def writing(self) -> SqliteSession:
        return SqliteSession(engine.writing_engine(self._path))

    def watcher(self, connections: Reads) -> SqliteWatcher:  # noqa: ARG002  the face of Database
        return SqliteWatcher(self._path)

    def listener(self) -> None:
        """Nobody tells: a look at a file costs nothing."""

    def locks(self) -> WorkerLocks:
        return WorkerLocks(self._path)

    def explained(self, error: BaseException) -> StoreError | None:
        return engine.explained(error, self._path)

    def refused(self, error: BaseException) -> BaseException:
        return engine.refused(error, self._path)

    def cut(self, error: BaseException) -> bool:  # noqa: ARG002  the face of Database
        return False  # a file is not far away

    def passing(self, error: BaseException) -> bool:  # noqa: ARG002  the face of Database
        return False  # one writer: nobody can get in its way but by a lock, which is waited for


class SqliteSession:
    """The writing connection. Its transactions take the write lock at their beginning."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def transaction(self, work: Callable[[Connection], T], *, beside: bool) -> T:  # noqa: ARG002
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin():
            return work(self._connection)

    def disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            # What is not committed is gone with the connection, as it must be.
            with contextlib.suppress(Exception):
                connection.close()

    close = disconnect


class SqliteWatcher:
    """Only the answers of one connection can be compared, so it has its own; and it is asked here
    and now, because the four microseconds it takes are less than handing it to a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    async def version(self) -> int:
        if self._connection is None:
            self._connection = engine.connect(self._path, mode="ro")
        ((version,),) = self._connection.execute("PRAGMA data_version").fetchall()
        return int(version)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
