"""The rows of a batch that arrive: written under keys of their new place, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, LargeBinary, Table, Text

from runner.store.bare import Driver, Sql
from runner.store.copy_marks import Arriving, move_on
from runner.store.copy_rows import CALL, CHUNK, EVENT, JOB, LEARNED, PREFIX, SPEC, Row, Slice, names
from runner.store.engine import driver
from runner.store.schema import call, chunk, job, job_event, job_spec, learned, shared_prefix
from runner.store.submit import NEXT_KEYS

THROWN_AT_ONCE: Final = 500  # jobs

# The keys of so many new calls, as ranges.
NEXT_CALLS: Final = Sql(
    """\
SELECT coalesce(max(key), 0) + 1, coalesce(max(key), 0) + ?1 FROM call
""",
    postgres="""\
SELECT key, key FROM (
  SELECT nextval('call_key_seq') AS key FROM generate_series(1, CAST(?1 AS bigint))
) AS fresh
ORDER BY key
""",
)
SOME_JOBS: Final = "SELECT key FROM job WHERE batch_key = ? ORDER BY key LIMIT ?"


def put_slice(
    connection: Connection, batch_key: int, portion: Slice, before: Arriving, after: Arriving
) -> int:
    """Write a slice; how many NUL characters of it this database could not hold.

    Raises:
        StoreError: another process copies the batch as well.
    """
    sql = driver(connection)
    move_on(sql, batch_key, before, after)
    job_keys = _fresh(sql, NEXT_KEYS, [row[0] for row in portion.jobs])
    call_keys = _fresh(sql, NEXT_CALLS, [row[0] for row in portion.calls])
    jobs = [(job_keys[key], batch_key, *rest) for key, *rest in portion.jobs]
    calls = [(call_keys[key], job_keys[of], *rest) for key, of, *rest in portion.calls]
    chunks = [(job_keys[of], call_keys[in_call], *rest) for of, in_call, *rest in portion.chunks]
    lost = put(connection, job, ["key", "batch_key", *JOB[1:]], jobs)
    for table, columns, rows in (
        (job_spec, SPEC, [(job_keys[of], *rest) for of, *rest in portion.specs]),
        (call, CALL, calls),
        (chunk, CHUNK, chunks),
        (job_event, EVENT, [(job_keys[of], *rest) for of, *rest in portion.events]),
    ):
        lost += put(connection, table, columns, rows)
    return lost


def _fresh(sql: Driver, statement: str, old: Sequence[int]) -> dict[int, int]:
    """New keys, in the order of the old ones."""
    if not old:
        return {}
    ranges = sql.execute(statement, (len(old),)).fetchall()
    new = chain.from_iterable(range(first, last + 1) for first, last in ranges)
    return dict(zip(old, new, strict=True))


def put(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    end: str = "",
) -> int:
    """Insert rows; how many NUL characters this database could not hold.

    Args:
        end: of the statement, such as what to do on a conflict.
    """
    if not rows:
        return 0
    sql, into = driver(connection), f"INSERT INTO {table.name} ({', '.join(columns)})"
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(columns))
        sql.executemany(f"{into} VALUES ({places}) {end}", rows)
        return 0
    # One statement for all rows: the trigger that counts jobs runs once a statement.
    arrays = [f"CAST(?{n} AS {_array(table, name)})" for n, name in enumerate(columns, 1)]
    lost = sum(value.count("\0") for row in rows for value in row if isinstance(value, str))
    values: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
    if lost:
        values = [
            [v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in column]
            for column in values
        ]
    sql.execute(f"{into} SELECT * FROM unnest({', '.join(arrays)}) {end}", values)  # noqa: S608
    return lost


def _array(table: Table, column: str) -> str:
    kind = table.c[column].type
    if isinstance(kind, Text):
        return "text[]"
    if isinstance(kind, LargeBinary):
        return "bytea[]"
    return "bigint[]" if isinstance(kind, BigInteger) else "integer[]"


def put_prefixes(connection: Connection, batch_key: int, rows: list[Row]) -> None:
    keyed = [(batch_key, *row) for row in rows]
    put(connection, shared_prefix, ["batch_key", *PREFIX], keyed, end="ON CONFLICT DO NOTHING")


def put_learned(connection: Connection, batch_key: int, rows: list[Row]) -> None:
    put(connection, learned, ["batch_key", *LEARNED], [(batch_key, *row) for row in rows])


def put_shared(connection: Connection, found: dict[Table, list[Row]]) -> None:
    """Add what is not known here yet; what is known stays, for it is newer or as good."""
    for table, rows in found.items():
        put(connection, table, names(table), rows, end="ON CONFLICT DO NOTHING")


def throw_away(connection: Connection, batch_key: int) -> bool:
    """Take some jobs of a copy away that never became whole; False once all of it is gone."""
    sql = driver(connection)
    keys = [key for (key,) in sql.execute(SOME_JOBS, (batch_key, THROWN_AT_ONCE)).fetchall()]
    if keys:
        connection.execute(job.delete().where(job.c.key.in_(keys)))
        return True
    for statement in (
        "DELETE FROM job_count WHERE batch_key = ?",
        "DELETE FROM batch WHERE key = ? AND paused = 'copy'",
    ):
        sql.execute(statement, (batch_key,))
    return False
