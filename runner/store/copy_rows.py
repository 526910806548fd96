"""The rows of a batch on their way from one database to another, in slices.

A slice is some jobs in the order of their keys with all that hangs on them. It is read with bare
SQL and written in one transaction under keys of the new place; the order of keys stays, and with
it every document, which is a fold over its calls in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Table

from runner.errors import StoreError
from runner.jobs.states import UNFINISHED, State
from runner.store.bare import Driver
from runner.store.database import Database
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

Row = tuple[Any, ...]

LOOKED_AT_ONCE: Final = 2_000  # jobs
CHARACTERS_A_TOKEN: Final = 4  # roughly: it only makes slices larger or smaller
SLICE_CHARACTERS: Final = 4_000_000
SLICE_ROWS: Final = 20_000
PREFIXES_AT_ONCE: Final = 5_000
COUNTED_AT_ONCE: Final = 50_000  # jobs

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
KINDS: Final = "SELECT model, state, finish, jobs FROM job_count WHERE batch_key = ? AND jobs > 0"
# Of the next jobs of a batch: the last of them, and how many events they have.
EVENTS: Final = """\
WITH looked_at AS (SELECT key FROM job WHERE batch_key = ? AND key > ? ORDER BY key LIMIT ?)
SELECT max(key), (SELECT count(*) FROM job_event WHERE job_key IN (SELECT key FROM looked_at))
FROM looked_at HAVING count(*) > 0
"""


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


def shared(sql: Driver) -> dict[Table, list[Row]]:
    """What a database knows of models and rate limits, whatever the batch."""
    return {
        table: _fetched(sql, f"SELECT {_listed(table, names(table))} FROM {table.name}", ())  # noqa: S608
        for table in (model_memory, pace)
    }
