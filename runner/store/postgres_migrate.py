"""Brings a PostgreSQL database to the schema of this program, or says why it cannot be.

A database may be shared with another program: the mark of ours is the comment on the table that
holds the version.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from runner import faults
from runner.errors import NotADatabase, StoreUnavailable
from runner.store import migrate
from runner.store.schema import SCHEMA_VERSION, metadata

MARK: Final = "the version of a queue of prefill-runner"

# The first that tells a transaction's number and what became of it in the words used here.
OLDEST_SERVER: Final = 13

_TABLES: Final = text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
_IS_OURS: Final = text(
    "SELECT obj_description(CAST('alembic_version' AS regclass), 'pg_class') = :mark"
)
_AT_WORK: Final = text(
    "SELECT host, pid FROM worker "
    "WHERE lease_until_ms > extract(epoch FROM clock_timestamp()) * 1000 LIMIT 1"
)


def refuse_older(version: tuple[int | str, ...] | None, shown: str) -> None:
    """
    Args:
        version: of the server, as its dialect tells.

    Raises:
        StoreUnavailable: the server is too old for this program.
    """
    major = version[0] if version else OLDEST_SERVER
    if isinstance(major, int) and major < OLDEST_SERVER:
        raise StoreUnavailable(
            f"the server of the database {shown} is PostgreSQL {major}, and "
            f"{OLDEST_SERVER} or newer is needed. Name a newer server with --db, or a file."
        )


def current(connection: Connection, shown: str) -> str | None:
    """The schema version of a database; None where there is no queue yet.

    Raises:
        NotADatabase: it holds another program's tables of the same names.
        SchemaTooNew: a newer version of this program wrote it.
    """
    tables = set(connection.execute(_TABLES).scalars())
    if migrate.VERSION_TABLE not in tables:
        foreign = sorted(tables & set(metadata.tables))
        if foreign:
            raise _another(shown, foreign[0])
        return None
    if not connection.execute(_IS_OURS, {"mark": MARK}).scalar_one():
        raise _another(shown, migrate.VERSION_TABLE)
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if version is None:
        raise NotADatabase(f"the database {shown} is damaged: it does not tell its version.")
    migrate.refuse_newer(str(version), f"the database {shown}")
    return str(version)


def upgrade(connection: Connection, shown: str, *, turn: int) -> None:
    """Create the queue's tables or bring them up to date; safe when several processes do so.

    Args:
        connection: in a transaction.
        turn: the advisory lock that writers take in turn.

    Raises:
        StoreUnavailable: a worker of an older version works on it.
    """
    if current(connection, shown) == SCHEMA_VERSION:
        return
    connection.execute(text(f"SELECT pg_advisory_xact_lock({turn:d})"))
    version = current(connection, shown)
    if version == SCHEMA_VERSION:
        return
    if version is not None:
        # It knows nothing of what the newer tables are for, and would spend past a budget.
        for host, pid in connection.execute(_AT_WORK).all():
            raise migrate.worked_on(f"the database {shown}", pid, host)
    faults.hit("migration.before")
    migrate.run_scripts(connection)
    faults.hit("migration.middle")
    connection.exec_driver_sql(f"COMMENT ON TABLE {migrate.VERSION_TABLE} IS '{MARK}'")


def _another(shown: str, table: str) -> NotADatabase:
    return NotADatabase(
        f"the database {shown} has a table '{table}' of another program; it was left as it is. "
        "Give the queue a database of its own (`createdb runner`), or a schema of its own."
    )
