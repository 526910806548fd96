"""Bare SQL, for the few statements that run many times a second, on both databases.

Statements are written once, with SQLite's numbered parameters. Where PostgreSQL needs other words,
both stand side by side in one `Sql`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, Final, Protocol, Self, cast

from sqlalchemy import AdaptedConnection, ClauseElement, Connection, Executable
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

_PARAMETER: Final = re.compile(r"\?(\d*)")
_GIVES_ROWS: Final = re.compile(r"^\s*(SELECT|WITH)\b|\bRETURNING\b")


class Sql(str):
    """A statement for SQLite that PostgreSQL needs in other words.

    Args:
        postgres: the same statement there, with the same parameters.
    """

    __slots__ = ("postgres",)
    postgres: str

    def __new__(cls, sqlite: str, *, postgres: str) -> Self:
        statement = super().__new__(cls, sqlite)
        statement.postgres = postgres
        return statement


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> Sequence[Any]: ...


class Driver(Protocol):
    """A connection that takes statements as they are."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows: ...
    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Told:
    """The answer of a PostgreSQL server."""

    rowcount: int
    rows: Sequence[Any] = ()

    def fetchone(self) -> Any:
        return self.rows[0] if self.rows else None

    def fetchall(self) -> Sequence[Any]:
        return self.rows


class PostgresDriver:
    """The same face on PostgreSQL, in the connection's transaction.

    Statements go to the driver's own connection: what SQLAlchemy does around each would cost more
    than the journey. An answer's rows are tuples, as SQLite's are.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = cast(AdaptedConnection, connection.connection.dbapi_connection)

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        words = in_postgres(sql)
        values = [_storable(value) for value in parameters]
        if _GIVES_ROWS.search(words):
            rows = self._connection.run_async(lambda driver: driver.fetch(words, *values))
            return _Told(len(rows), rows)
        status = self._connection.run_async(lambda driver: driver.execute(words, *values))
        return _Told(int(status.rpartition(" ")[2]))

    def control(self, words: str) -> str:
        """Begin or end a transaction; what the server says to it."""
        status: str = self._connection.run_async(lambda driver: driver.execute(words))
        return status

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> None:
        words = in_postgres(sql)
        rows = [tuple(map(_storable, row)) for row in parameters]
        if rows:
            self._connection.run_async(lambda driver: driver.executemany(words, rows))


def _storable(value: Any) -> Any:
    """The one character that the server holds in no text, NUL, becomes U+FFFD."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd") if "\0" in value else value
    if isinstance(value, list):
        return [_storable(one) for one in value]
    return value


def in_postgres(sql: str) -> str:
    """A statement in PostgreSQL's words and with its parameters, `$1` and so on."""
    return _dollars(sql.postgres if isinstance(sql, Sql) else sql)


@lru_cache(maxsize=512)
def _dollars(sql: str) -> str:
    places = count(1)
    return _PARAMETER.sub(lambda found: f"${found[1] or next(places)}", sql)


def quick(
    connection: Connection, statement: Executable, values: Mapping[str, object]
) -> tuple[Sequence[Any], int]:
    """Run a statement of SQLAlchemy's that runs for each call; its rows as tuples, and their number.

    On SQLite the words are made once and handed to the driver, for what SQLAlchemy does around each
    statement costs several times what SQLite does.
    """
    if connection.dialect.name != "sqlite":
        result = connection.execute(statement, values)
        rows = result.all() if result.returns_rows else ()
        return rows, result.rowcount
    words, names, defaults = _words(statement)
    bound = {**defaults, **values}
    driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
    cursor = driver.execute(words, [bound[name] for name in names])
    found = cursor.fetchall()
    return found, len(found) if found else cursor.rowcount


@lru_cache(maxsize=64)
def _words(statement: Executable) -> tuple[str, tuple[str, ...], dict[str, object]]:
    """A statement in SQLite's words, the names of its parameters in order, and those it brings."""
    compiled = cast(ClauseElement, statement).compile(dialect=sqlite_dialect())
    names = getattr(compiled, "positiontup", None) or ()
    return str(compiled), tuple(names), dict(compiled.params)


def both(sql: str) -> Sql:
    """A statement in PostgreSQL's words, of which SQLite calls two otherwise.

    Args:
        sql: with `least(…)` and `greatest(…)`, which are min and max there.
    """
    return Sql(sql.replace("least(", "min(").replace("greatest(", "max("), postgres=sql)
