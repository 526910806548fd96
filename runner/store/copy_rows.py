"""The rows of a batch on their way from one database to another, in slices.

A slice is some jobs in the order of their keys with all that hangs on them. It is read with bare
SQL and written in one transaction under keys of the new place; the order of keys stays, and with
it every document, which is a fold over its calls in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, LargeBinary, Table, Text

from runner.errors import StoreError
from runner.jobs.states import UNFINISHED, State
from runner.store.bare import Driver, Sql
from runner.store.copy_marks import Arriving, move_on
from runner.store.database import Database
from runner.store.engine import driver
from runner.store.schema import (
    batch,
    call,
    chunk,
    job,
    job_event,
    job_spec,
    learned,
    model_memory,
    pace,
    shared_prefix,
)
from runner.store.submit import NEXT_KEYS

Row = tuple[Any, ...]

LOOKED_AT_ONCE: Final = 2_000  # jobs
CHARACTERS_A_TOKEN: Final = 4  # roughly: it only makes slices larger or smaller
SLICE_CHARACTERS: Final = 4_000_000
SLICE_ROWS: Final = 20_000
PREFIXES_AT_ONCE: Final = 5_000
COUNTED_AT_ONCE: Final = 50_000  # jobs
THROWN_AT_ONCE: Final = 500  # jobs

# How long its text is, is told by what its calls were billed, and how many chunks there are by the
# number of the last: reading all chunks of so many long documents would take a server minutes.
SIZES: Final = f"""\
SELECT job.key,
  length(job_spec.shape) + {CHARACTERS_A_TOKEN} * coalesce((
    SELECT sum(call.output_tokens) FROM call WHERE call.job_key = job.key), 0),
  coalesce((SELECT max(chunk.seq) FROM chunk WHERE chunk.job_key = job.key), -1) + 1
FROM job JOIN job_spec ON job_spec.job_key = job.key
WHERE job.batch_key = ? AND job.key > ? ORDER BY job.key LIMIT ?
"""  # noqa: S608  a number of our own
OF_SLICE: Final = "(SELECT key FROM job WHERE batch_key = ?1 AND key BETWEEN ?2 AND ?3)"
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
KINDS: Final = "SELECT model, state, finish, jobs FROM job_count WHERE batch_key = ? AND jobs > 0"
# Of the next jobs of a batch: the last of them, and how many events they have.
EVENTS: Final = """\
WITH looked_at AS (SELECT key FROM job WHERE batch_key = ? AND key > ? ORDER BY key LIMIT ?)
SELECT max(key), (SELECT count(*) FROM job_event WHERE job_key IN (SELECT key FROM looked_at))
FROM looked_at HAVING count(*) > 0
"""
SOME_JOBS: Final = "SELECT key FROM job WHERE batch_key = ? ORDER BY key LIMIT ?"


def names(table: Table, without: Collection[str] = ()) -> list[str]:
    return [column.name for column in table.columns if column.name not in without]


def _listed(table: Table, columns: Sequence[str]) -> str:
    return ", ".join(f"{table.name}.{name}" for name in columns)


# `key` first, so that it is known by its place; chunks and events get theirs from the database.
JOB: Final = names(job, ["batch_key"])
SPEC: Final = names(job_spec)
CALL: Final = names(call)
CHUNK: Final = names(chunk, ["key"])
EVENT: Final = names(job_event, ["key"])
HEADER: Final = names(batch, ["key", "copied_to", "copied_from"])
LEARNED: Final = names(learned, ["batch_key"])
PREFIX: Final = names(shared_prefix, ["batch_key"])
PREFIXES: Final = f"""\
SELECT {", ".join(PREFIX)} FROM shared_prefix WHERE batch_key = ? AND hash > ? ORDER BY hash LIMIT ?
"""  # noqa: S608  our own names


@dataclass(frozen=True, slots=True)
class Slice:
    """Some jobs with all that hangs on them, rows as they are at the place they leave."""

    jobs: list[Row]
    specs: list[Row]
    calls: list[Row]
    chunks: list[Row]
    events: list[Row]

    @property
    def last_key(self) -> int:
        return int(self.jobs[-1][0])


@dataclass(frozen=True, slots=True)
class Header:
    """What a batch has beside its jobs.

    Args:
        columns: of its own row, by name.
        kinds: how many jobs there are of each kind; those that are not final are one kind, for
            some of them may become due meanwhile.
    """

    columns: dict[str, Any]
    learned: list[Row]
    kinds: dict[Row, int]


def slices(database: Database, batch_key: int, after: int) -> Iterator[Slice]:
    """All jobs beyond a key, in portions that make good transactions and fit in memory."""
    for sizes in _portions(database, SIZES, batch_key, after, LOOKED_AT_ONCE):
        for first, last in _ranges(sizes):
            yield database.look(partial(_slice, keys=(batch_key, first, last)))


def _portions(
    database: Database, statement: str, batch_key: int, after: Any, size: int
) -> Iterator[list[Row]]:
    """The rows that a statement gives of a batch, beyond a place, so many at once.

    Args:
        statement: takes the batch, the place and the number; a row begins with its place.
    """
    while found := database.look(
        partial(_fetched, statement=statement, values=(batch_key, after, size))
    ):
        after = found[-1][0]
        yield found


def _fetched(sql: Driver, statement: str, values: Sequence[Any]) -> list[Row]:
    return [tuple(row) for row in sql.execute(statement, values).fetchall()]


def _ranges(sizes: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """First and last key of each slice."""
    first, last, characters, rows = 0, 0, 0, 0
    for key, length, chunks in sizes:
        if first and (characters + length > SLICE_CHARACTERS or rows + chunks > SLICE_ROWS):
            yield first, last
            first, characters, rows = 0, 0, 0
        first, last = first or key, key
        characters, rows = characters + length, rows + chunks
    yield first, last


def _slice(sql: Driver, keys: tuple[int, int, int]) -> Slice:
    def read(table: Table, columns: Sequence[str], key: str, order: str) -> list[Row]:
        statement = (
            f"SELECT {_listed(table, columns)} FROM {table.name} "  # noqa: S608  our own names
            f"WHERE {table.name}.{key} IN {OF_SLICE} ORDER BY {order}"
        )
        return _fetched(sql, statement, keys)

    return Slice(
        read(job, JOB, "key", "job.key"),
        read(job_spec, SPEC, "job_key", "job_spec.job_key"),
        read(call, CALL, "job_key", "call.key"),
        read(chunk, CHUNK, "job_key", "chunk.job_key, chunk.seq"),
        read(job_event, EVENT, "job_key", "job_event.key"),
    )


def header(sql: Driver, batch_key: int) -> Header:
    own = f"SELECT {', '.join(HEADER)} FROM batch WHERE key = ?"  # noqa: S608  our own names
    figures = f"SELECT {', '.join(LEARNED)} FROM learned WHERE batch_key = ?"  # noqa: S608
    row = sql.execute(own, (batch_key,)).fetchone()
    if row is None:
        raise StoreError("the batch was pruned away while it was copied.")
    return Header(
        dict(zip(HEADER, row, strict=True)),
        _fetched(sql, figures, (batch_key,)),
        kinds(sql, batch_key),
    )


def kinds(sql: Driver, batch_key: int) -> dict[Row, int]:
    """How many jobs a batch has of each kind, by its kept counts."""
    found: dict[Row, int] = {}
    for model, state, finish, jobs in sql.execute(KINDS, (batch_key,)).fetchall():
        kind = (model, "unfinished" if State(state) in UNFINISHED else state, finish)
        found[kind] = found.get(kind, 0) + jobs
    return found


def events(database: Database, batch_key: int) -> int:
    """How many events the jobs of a batch have: one more for each order given to one of them."""
    portions = _portions(database, EVENTS, batch_key, 0, COUNTED_AT_ONCE)
    return sum(events for portion in portions for _, events in portion)


def prefixes(database: Database, batch_key: int) -> Iterator[list[Row]]:
    """What is known of beginnings that its jobs share, in portions."""
    return _portions(database, PREFIXES, batch_key, b"", PREFIXES_AT_ONCE)


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


def shared(sql: Driver) -> dict[Table, list[Row]]:
    """What a database knows of models and rate limits, whatever the batch."""
    return {
        table: _fetched(sql, f"SELECT {_listed(table, names(table))} FROM {table.name}", ())  # noqa: S608
        for table in (model_memory, pace)
    }


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
