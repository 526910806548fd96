"""Connections to the SQLite file: how it is named, opened, and how its errors read.

Two engines: one connection that writes, where every transaction takes the write lock at its
beginning (a transaction that reads first and writes later fails at once when another wrote in
between); and a few that only read and never wait for the writer.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from runner.errors import NotADatabase, StoreBlocked, StoreError, StoreUnavailable
from runner.store.bare import Driver, PostgresDriver

BUSY_TIMEOUT_MS: Final = 10_000
READERS: Final = 4
SQLITE_MAGIC: Final = b"SQLite format 3\x00"

# Only these, so that a disk that cannot be read is not waited for.
_CANNOT_GROW = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)
_SQLITE_URLS = frozenset({"sqlite", "sqlite+aiosqlite", "sqlite+pysqlite"})
# Pages of the log that are written before they go into the file. Those that are written again and again,
# the end of the chunks and of their index, go there once for all of them: with 1,000 pages, a third more
# is written. The index of the log looks through 4,062 at once, so reads cost no more than with few.
_LOG_PAGES: Final = 4_000
_WRITER_PRAGMAS = (
    f"busy_timeout = {BUSY_TIMEOUT_MS}",
    "synchronous = FULL",
    "foreign_keys = ON",
    f"wal_autocheckpoint = {_LOG_PAGES}",
    "journal_size_limit = 67108864",
)


def database_path(database: str | Path) -> Path:
    """The file that a path or an SQLAlchemy URL names.

    Raises:
        StoreUnavailable: the URL is of another kind of database, or names no file.
    """
    name = str(database)
    if isinstance(database, str) and "://" in name:
        try:
            url = make_url(name)
        except (ArgumentError, ValueError):
            raise StoreUnavailable(  # without the name: there may be a password in it
                "that is not a database URL. Give a path, sqlite:///PATH, or "
                "postgresql+asyncpg://USER@HOST/DATABASE."
            ) from None
        if url.drivername not in _SQLITE_URLS:
            raise StoreUnavailable(
                f"databases of the kind '{url.drivername}' are not supported. "
                "Give a path, sqlite:///PATH, or postgresql+asyncpg://USER@HOST/DATABASE."
            )
        name = url.database or ""
    if name in {"", ":memory:"}:
        raise StoreUnavailable(
            "a database in memory would be gone with the process, and the documents with it. "
            "Name a file."
        )
    return Path(name).absolute()


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """A bare connection in autocommit mode.

    Args:
        mode: "ro", "rw", or "rwc" to create the file.
    """
    return sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
    )


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to write-ahead logging, so that readers and the writer do not wait."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            # Changing the journal mode does not wait by busy_timeout, so it is waited for here.
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def writing_engine(path: Path, *, create: bool = False) -> Engine:
    """The engine of the writer thread. Each of its transactions begins with the write lock."""

    def opened() -> sqlite3.Connection:
        connection = connect(path, mode="rwc" if create else "rw")
        try:
            if create:
                # Settled for good by the first table: what a prune frees can leave the file in
                # portions, while others work; VACUUM would lock them out and copy everything.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
            for pragma in _WRITER_PRAGMAS:
                connection.execute("PRAGMA " + pragma).fetchall()
            use_wal(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=opened, poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "begin")
    def _immediate(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path) -> Engine:
    """The engine of all reads. Its connections cannot write, and hold no snapshot for long."""

    def opened() -> sqlite3.Connection:
        connection = connect(path, mode="ro")
        connection.execute("PRAGMA query_only = ON").fetchall()
        return connection

    return create_engine(
        "sqlite://",
        creator=opened,
        poolclass=QueuePool,
        pool_size=READERS,
        max_overflow=0,
        pool_reset_on_return=None,
        hide_parameters=True,
    )


def driver(connection: Connection) -> Driver:
    """The bare connection below, for the few statements that run many times a second."""
    if connection.dialect.name == "postgresql":
        return PostgresDriver(connection)
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


def storable(text: str) -> str:
    """Text as a database can hold it: a lone half of a surrogate pair becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def refused(error: BaseException, path: Path) -> BaseException:
    """What a single statement's error means to the caller; never with a prompt or text in it."""
    if isinstance(error, (sqlite3.Error, DBAPIError)):
        wrapped = StoreError(f"the database {path} refused a statement: {_words(error)}")
        wrapped.__cause__ = error
        return wrapped
    return error


def _code(error: BaseException) -> int | None:
    """SQLite's primary result code of an error, whoever wrapped it."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code: Any = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def _extended_code(error: BaseException) -> int | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    return code


def explained(error: BaseException, path: Path) -> StoreError | None:
    """What an error of the database means to the reader.

    None where it is not the state of the file or the disk but a single statement that is at fault.
    """
    match _code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBlocked(
                f"the database {path} has been locked by another program for "
                f"{BUSY_TIMEOUT_MS / 1000:g} seconds",
                "Close what holds it (a database browser, a backup)",
            )
        case sqlite3.SQLITE_FULL:
            return StoreBlocked(f"the disk that holds {path} is full", "Make room")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return StoreUnavailable(
                f"the database {path} cannot be written: the file, its folder or its disk is "
                "read-only for you. Change its permissions, or name another with --db."
            )
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailable(
                f"the database {path} cannot be opened. Check that its folder exists and that "
                "you may read and write there, or name another with --db."
            )
        case sqlite3.SQLITE_IOERR if _extended_code(error) in _CANNOT_GROW:
            # What a quota gives, and some disks when they are full.
            return StoreBlocked(
                f"the disk that holds {path} takes nothing more ({_words(error)})",
                "Make room, or check the disk and its quota",
            )
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(
                f"the disk that holds {path} failed to read or write ({_words(error)}). "
                "Check the disk, then run the same command again."
            )
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return NotADatabase(
                f"{path} is damaged or not a database ({_words(error)}). It was left as it is: "
                "copy it away with its -wal file before anything else, and name another with --db."
            )
        case _:
            return None


def _words(error: BaseException) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error)
