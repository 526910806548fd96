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


class unguessed(FunctionElement[Any]):  # noqa: N801
    """A condition that the server makes no guess about, so that it goes by the order asked for.

    A guess rests on statistics. Those of a table that was just filled say that next to no row will
    do, and then reading and sorting all of it looks cheaper than reading in order until enough are
    found.
    """

    name = "unguessed"
    type = NullType()
    inherit_cache = True


@compiles(unguessed, "sqlite")
def _unguessed_in_file(element: unguessed, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(unguessed, "postgresql")
def _unguessed_on_server(element: unguessed, compiler: SQLCompiler, **options: Any) -> str:
    return f"CASE WHEN {compiler.process(element.clauses, **options)} THEN true ELSE false END"


class among(FunctionElement[Any]):  # noqa: N801
    """Whether a value is among those that a query gives: `among(column, query)`.

    A server that is told of a query may believe that most rows will be among them, and read all;
    of an array it believes that it is short, and goes by the column's index.
    """

    name = "among"
    type = NullType()
    inherit_cache = True


@compiles(among, "sqlite")
def _among_in_file(element: among, compiler: SQLCompiler, **options: Any) -> str:
    value, query = (compiler.process(one, **options) for one in element.clauses)
    return f"({value} IN {query})"


@compiles(among, "postgresql")
def _among_on_server(element: among, compiler: SQLCompiler, **options: Any) -> str:
    value, query = (compiler.process(one, **options) for one in element.clauses)
    return f"({value} = ANY (ARRAY{query}))"


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can have an ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
