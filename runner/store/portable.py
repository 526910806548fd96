"""Expressions that SQLite and PostgreSQL spell differently."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType


class larger(FunctionElement[int]):  # noqa: N801  written like the functions of SQL
    """The larger of two values of one row; NULL where one of them is."""

    name = "larger"
    type = BigInteger()
    inherit_cache = True


class smaller(FunctionElement[int]):  # noqa: N801
    """The smaller of two values of one row; NULL where one of them is."""

    name = "smaller"
    type = BigInteger()
    inherit_cache = True


@compiles(larger, "sqlite")
def _max(element: larger, compiler: SQLCompiler, **options: Any) -> str:
    return f"max({compiler.process(element.clauses, **options)})"


@compiles(smaller, "sqlite")
def _min(element: smaller, compiler: SQLCompiler, **options: Any) -> str:
    return f"min({compiler.process(element.clauses, **options)})"


# Not `greatest` and `least`, which pass a NULL by.
@compiles(larger, "postgresql")
def _larger(element: larger, compiler: SQLCompiler, **options: Any) -> str:
    a, b = (compiler.process(value, **options) for value in element.clauses)
    return f"CASE WHEN {a} > {b} THEN {a} WHEN {b} >= {a} THEN {b} END"


@compiles(smaller, "postgresql")
def _smaller(element: smaller, compiler: SQLCompiler, **options: Any) -> str:
    a, b = (compiler.process(value, **options) for value in element.clauses)
    return f"CASE WHEN {a} < {b} THEN {a} WHEN {b} <= {a} THEN {b} END"


class beyond(FunctionElement[Any]):  # noqa: N801
    """Whether a row stands in a group, and beyond a place in it: `beyond(group, place, of, after)`.

    With an index on (group, place), to be ordered by these two. A server that is told of an
    equality would rather read all places in their order, and hope to meet the group soon.
    """

    name = "beyond"
    type = NullType()  # a boolean would be compared with 1 on SQLite, which no index serves
    inherit_cache = True


@compiles(beyond, "sqlite")
def _beyond_in_file(element: beyond, compiler: SQLCompiler, **options: Any) -> str:
    group, place, of, after = (compiler.process(one, **options) for one in element.clauses)
    return f"({group} = {of} AND {place} > {after})"


@compiles(beyond, "postgresql")
def _beyond_on_server(element: beyond, compiler: SQLCompiler, **options: Any) -> str:
    group, place, of, after = (compiler.process(one, **options) for one in element.clauses)
    return f"(({group}, {place}) > ({of}, {after}) AND {group} <= {of})"


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can have an ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
