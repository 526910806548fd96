"""Expressions that SQLite and PostgreSQL spell differently."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


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


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can have an ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
