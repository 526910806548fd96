"""Which database a store works on: a file of SQLite, or a PostgreSQL server.

Everything that differs between the two as a whole stands behind `Database`; single statements that
differ stand side by side in `runner.store.bare.Sql`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Executable, Row
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from runner.errors import StoreError, StoreUnavailable
from runner.store.bare import Driver

T = TypeVar("T")
Statement = TypeVar("Statement", bound=Executable)


class Replaced(Exception):
    """Another server has taken the place of the one before, and may lack its last commits."""


def thorough(statement: Statement) -> Statement:
    """A statement that reads whole tables: it may take an hour, where others are given up soon."""
    return statement.execution_options(thorough=True)


def is_thorough(statement: Executable) -> bool:
    return bool(statement.get_execution_options().get("thorough"))


class Session(Protocol):
    """The connection of the writer thread; used by that thread alone."""

    def transaction(self, work: Callable[[Connection], T], *, beside: bool) -> T:
        """Apply work and commit it; what it gave.

        Given the very same work again after an error, it is applied only if it was not committed.

        Args:
            beside: others may write at the same time, because the work guards its rows itself.

        Raises:
            Replaced: told once, before anything is applied there; what was in doubt then stays so.
        """

    def disconnect(self) -> None:
        """Let go of a connection that may be spoiled; the next transaction makes another."""

    def close(self) -> None:
        """The end of it."""


class Reads(Protocol):
    """The connections that read."""

    async def rows(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Sequence[Row[Any]]:
        """What a statement finds, by what is committed now."""

    async def close(self) -> None: ...


class Watcher(Protocol):
    """Tells when somebody wrote."""

    async def version(self) -> int:
        """Differs from before when anybody committed meanwhile."""

    def close(self) -> None: ...


class Listener(Protocol):
    """Hears hints; see `runner.store.hints`."""

    async def listen(self, heard: Callable[[], None]) -> None: ...


class Locks(Protocol):
    """The operating system's word on workers; see `runner.store.locks`."""

    def acquire(self, worker_id: str) -> bool: ...
    def release(self, worker_id: str) -> None: ...
    def release_all(self) -> None: ...
    def alive(self, worker_id: str) -> bool | None: ...
    def forget(self, worker_id: str) -> None: ...


class Database(Protocol):
    """A database, before anything is opened."""

    @property
    def shown(self) -> str:
        """Its name as messages show it; never with a password."""

    @property
    def path(self) -> Path | None:
        """The file; None where there is none."""

    @property
    def one_clock(self) -> bool:
        """Whether all who use it go by the same clock."""

    def identity(self) -> str:
        """What tells it from all others, by whatever name it was reached. Blocks."""

    def missing(self) -> str:
        """What to say where no queue is there yet."""

    def current(self) -> str | None:
        """The version of its schema; None where there is none yet. Blocks."""

    def upgrade(self) -> None:
        """Bring it to the schema of this program. Blocks."""

    def now_ms(self) -> int:
        """The time that decides."""

    def look(self, work: Callable[[Driver], T]) -> T:
        """Read with bare SQL on a connection of its own. Blocks."""

    def reading(self) -> Reads:
        """The connections of all reads."""

    def writing(self) -> Session: ...

    def watcher(self, connections: Reads) -> Watcher:
        """
        Args:
            connections: those of the reads.
        """

    def listener(self) -> Listener | None:
        """Hears at once that there is work; None where looking is all there is."""

    def locks(self) -> Locks: ...

    def explained(self, error: BaseException) -> StoreError | None:
        """What an error means to the reader, where it is the state of the database that is at
        fault; None where it is a single statement."""

    def refused(self, error: BaseException) -> BaseException:
        """What a single statement's error means to the caller."""

    def cut(self, error: BaseException) -> bool:
        """Whether the connection is gone, so that the same read on another may succeed."""

    def passing(self, error: BaseException) -> bool:
        """Whether the same work, applied again at once, can be expected to succeed."""


def the_database(name: str | Path) -> Database:
    """The database that a path or a URL names.

    Raises:
        StoreUnavailable: the URL is of another kind of database, or names no file; or the driver
            for it is not installed.
    """
    from runner.store.sqlite import SqliteFile

    # Also where a slash is missing: such a URL is no file's name.
    if isinstance(name, str) and re.match(r"postgres(ql)?(\+\w*)?:", name, re.IGNORECASE):
        try:
            url = make_url(name)
        except (ArgumentError, ValueError):
            raise StoreUnavailable(  # without the name: there may be a password in it
                "that is not a database URL. Give postgresql+asyncpg://USER@HOST:PORT/DATABASE."
            ) from None
        # Imported here: who works on a file needs nothing of the server's driver.
        try:
            from runner.store.postgres import PostgresDatabase
        except ModuleNotFoundError as error:
            if error.name != "asyncpg":
                raise
            raise StoreUnavailable(
                "for a database on PostgreSQL the driver asyncpg is needed: "
                "pip install 'prefill-runner[postgres]'."
            ) from None
        return PostgresDatabase(url)
    return SqliteFile.named(name)
