"""Brings a database file to the schema of this program, or says why it cannot be.

Looking costs no Alembic: it is imported only when there is something to do.
"""

from __future__ import annotations

import socket
import sqlite3
import time
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from runner import faults
from runner.errors import NotADatabase, RunnerError, SchemaTooNew, StoreUnavailable
from runner.store.engine import SQLITE_MAGIC, connect, driver, explained, refused, writing_engine
from runner.store.locks import WorkerLocks
from runner.store.schema import APPLICATION_ID, SCHEMA_VERSION

VERSION_TABLE: Final = "alembic_version"


def head() -> str:
    """The schema version this program works with."""
    return SCHEMA_VERSION


def current(path: Path) -> str | None:
    """The schema version of a database file; None where there is none yet.

    Raises:
        NotADatabase: the file is something else, or damaged.
        StoreUnavailable: the file cannot be read.
    """
    try:
        if not path.exists():
            return None
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise StoreUnavailable(f"{path} is {kind}, not a database. Name a file with --db.")
        with path.open("rb") as file:
            start = file.read(len(SQLITE_MAGIC))
        if start == b"":
            return None
    except OSError as error:
        raise StoreUnavailable(
            f"the database {path} cannot be read: {error.strerror}. "
            "Check its permissions, or name another with --db."
        ) from error
    if start != SQLITE_MAGIC:
        raise NotADatabase(
            f"{path} is not a database but some other file; it was left as it is. "
            "Name a database with --db."
        )
    try:
        connection = connect(path, mode="ro")
        try:
            return _version(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise (explained(error, path) or refused(error, path)) from error


def upgrade(path: Path) -> None:
    """Create the database or bring it up to date; safe when several processes do so at once.

    Raises:
        SchemaTooNew: a newer version of this program wrote it.
        NotADatabase: the file is something else, or damaged.
        StoreUnavailable: the file cannot be made or written, or a worker of an older version is
            at it.
    """
    version = current(path)
    if version == SCHEMA_VERSION:
        return
    if version is not None:
        refuse_newer(version, str(path))
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"the folder {path.parent} of the database does not exist. "
            "Make it, or name another database with --db."
        )
    try:
        _upgrade(path)
    except RunnerError:
        raise
    except Exception as error:
        raise (explained(error, path) or refused(error, path)) from error


def scripts() -> Path:
    """The folder of the migrations: inside an installed package, beside that of a clone."""
    package = Path(__file__).parents[1]
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def _upgrade(path: Path) -> None:
    engine = writing_engine(path, create=True)
    # The transaction begins with the write lock: of several processes one migrates, the others
    # wait here and then find nothing to do.
    with engine.begin() as connection:
        _refuse_while_worked_on(connection, path)
        faults.hit("migration.before")
        run_scripts(connection)
        faults.hit("migration.middle")
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def run_scripts(connection: Connection, upto: str = "head") -> None:
    """Run the migrations that are missing, in the transaction of a connection.

    Args:
        upto: the version to stop at.
    """
    from alembic import command  # half a second that most starts can save
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, upto)


def _refuse_while_worked_on(connection: Connection, path: Path) -> None:
    """Leave a database alone that a worker of an older version works on: it knows nothing of what
    the newer tables are for, and would spend past a budget.

    Raises:
        StoreUnavailable: there is one.
    """
    sql = driver(connection)
    tables = {name for (name,) in sql.execute("SELECT name FROM sqlite_master").fetchall()}
    if VERSION_TABLE not in tables:
        return
    if sql.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA_VERSION,)]:
        return
    locks, here, now_ms = WorkerLocks(path), socket.gethostname(), time.time_ns() // 1_000_000
    workers = sql.execute("SELECT id, host, pid, lease_until_ms FROM worker").fetchall()
    for worker_id, host, pid, lease_until_ms in workers:
        alive = locks.alive(worker_id) if host == here else None
        if alive or (alive is None and lease_until_ms > now_ms):
            raise worked_on(str(path), pid, host)


def worked_on(shown: str, pid: int, host: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{shown} is worked on by an older version of this program: process {pid} on {host}. "
        "Let it finish, or stop it with Ctrl-C, then give the same command again. "
        "What was saved is safe."
    )


def _version(connection: sqlite3.Connection, path: Path) -> str | None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master").fetchall()}
    if not tables and application_id in {0, APPLICATION_ID}:
        return None
    if application_id != APPLICATION_ID or VERSION_TABLE not in tables:
        raise NotADatabase(
            f"{path} is the database of another program; it was left as it is. "
            "Name another with --db."
        )
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        raise NotADatabase(f"{path} is damaged: it does not tell its version.")
    version = str(row[0])
    refuse_newer(version, str(path))
    return version


def refuse_newer(version: str, shown: str) -> None:
    known = {script.name.partition("_")[0] for script in (scripts() / "versions").glob("*.py")}
    if version in known:
        return
    raise SchemaTooNew(
        f"{shown} has schema version {version}, which a newer version of this program wrote; "
        f"this one knows versions up to {SCHEMA_VERSION}. Upgrade the program "
        "(pip install -U prefill-runner), or name another database with --db."
    )
