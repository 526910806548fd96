"""Bare SQL, for the few statements that run many times a second, on both databases.

Statements are written once, with SQLite's numbered parameters. Where PostgreSQL needs other words,
both stand side by side in one `Sql`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Final, Protocol, Self

from sqlalchemy import Connection

_PARAMETER: Final = re.compile(r"\?(\d*)")


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


class PostgresDriver:
    """The same face on PostgreSQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        return self._connection.exec_driver_sql(in_postgres(sql), tuple(parameters) or None)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> None:
        rows = [tuple(row) for row in parameters]
        if rows:
            self._connection.exec_driver_sql(in_postgres(sql), rows)


def in_postgres(sql: str) -> str:
    """A statement in PostgreSQL's words and with its parameters, `$1` and so on."""
    return _dollars(sql.postgres if isinstance(sql, Sql) else sql)


@lru_cache(maxsize=512)
def _dollars(sql: str) -> str:
    places = count(1)
    return _PARAMETER.sub(lambda found: f"${found[1] or next(places)}", sql)


def both(sql: str) -> Sql:
    """A statement in PostgreSQL's words, of which SQLite calls two otherwise.

    Args:
        sql: with `least(…)` and `greatest(…)`, which are min and max there.
    """
    return Sql(sql.replace("least(", "min(").replace("greatest(", "max("), postgres=sql)
