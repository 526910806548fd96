"""The owner's orders: cancel, retry, prune. Each works in portions, so that no worker waits long.

A portion is one transaction: it looks for the next jobs in the order of their keys and changes
them; the state that allows the change stands in the changing statement itself.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final, NamedTuple

from sqlalchemy import (
    Connection,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    update,
)

from runner.jobs.states import COMPLETE, FINAL, State, allowed_before
from runner.store.broken import break_open_call
from runner.store.engine import driver
from runner.store.events import note_of_jobs
from runner.store.records import EventKind, Selection
from runner.store.schema import batch, call, chunk, job, job_count, state_in, usage_columns
from runner.store.selection import conditions
from runner.store.submit import SUPERSEDE

PORTION: Final = 1_000
PRUNED_CHUNKS: Final = 20_000
FREED_PAGES: Final = 2_000
LOOKED_AT: Final = 20_000  # jobs; among a million others those that are meant may be far apart

# A document that is whole has nothing to go on with.
NOT_COMPLETE: Final = or_(job.c.finish.is_(None), job.c.finish.not_in(sorted(COMPLETE)))

CANCELLED: Final = "cancelled by the user"

CANCEL: Final = (
    update(job)
    .where(
        job.c.key.in_(bindparam("keys", expanding=True)),
        state_in(allowed_before(State.CANCELLED)),
    )
    .values(
        state=literal_column(f"'{State.CANCELLED}'"),
        worker_id=null(),
        scheduled_ms=null(),
        finalized_ms=bindparam("now_ms"),
        updated_ms=bindparam("now_ms"),
    )
    .returning(job.c.key, job.c.batch_key)
)
_LAST_NUMBER: Final = (
    select(func.coalesce(func.max(call.c.number), 0))
    .where(call.c.job_key == job.c.key, call.c.superseded == literal_column("0"))
    .scalar_subquery()
)
RETRY: Final = (
    update(job)
    .where(job.c.key.in_(bindparam("keys", expanding=True)), state_in(FINAL))
    .values(
        state=literal_column(f"'{State.AVAILABLE}'"),
        attempt=literal_column("0"),
        rescues=literal_column("0"),
        finish=null(),
        error=null(),
        finalized_ms=null(),
        updated_ms=bindparam("now_ms"),
    )
    .returning(job.c.key)
)
# What was made before counts against no bound any more: so a document that a bound cut goes on.
RETRY_KEEPING: Final = RETRY.where(NOT_COMPLETE).values(counted_from=_LAST_NUMBER)
RETRY_AFRESH: Final = RETRY.values(counted_from=literal_column("0"))
PRUNE: Final = (
    delete(job)
    .where(job.c.key.in_(bindparam("keys", expanding=True)), state_in(FINAL))
    .returning(job.c.key)
)


class Portion(NamedTuple):
    """What was done, and where to go on.

    Args:
        last_key: the last job that was looked at; None where none is left.
        batch_keys: of the jobs that were changed.
    """

    changed: int
    last_key: int | None
    batch_keys: frozenset[int] = frozenset()


def cancel(connection: Connection, selection: Selection, after: int, now_ms: int) -> Portion:
    """Cancel unfinished jobs; a call that runs is ended as broken, its text stays."""
    keys, upto = _next_keys(connection, selection, allowed_before(State.CANCELLED), after)
    if not keys:
        return Portion(0, upto)
    rows = connection.execute(CANCEL, {"keys": keys, "now_ms": now_ms}).all()
    for row in rows:
        break_open_call(connection, row.batch_key, row.key, now_ms, CANCELLED)
    note_of_jobs(connection, [row.key for row in rows], now_ms, EventKind.CANCELLED)
    return Portion(len(rows), keys[-1], frozenset(row.batch_key for row in rows))


def retry(
    connection: Connection, selection: Selection, after: int, now_ms: int, *, afresh: bool
) -> Portion:
    """Put final jobs back in the queue.

    Args:
        afresh: the text so far leaves the document; else it stays, and complete documents are
            left alone.
    """
    keys, upto = _next_keys(connection, selection, FINAL, after)
    if not keys:
        return Portion(0, upto)
    statement = RETRY_AFRESH if afresh else RETRY_KEEPING
    rows = connection.execute(statement, {"keys": keys, "now_ms": now_ms}).all()
    changed = [row.key for row in rows]
    if afresh:
        driver(connection).executemany(SUPERSEDE, [(key,) for key in changed])
    detail = "afresh" if afresh else "keeping the text"
    note_of_jobs(connection, changed, now_ms, EventKind.RETRIED, detail)
    return Portion(len(rows), keys[-1])


def prune(connection: Connection, selection: Selection, after: int) -> Portion:
    """Delete final jobs with all that hangs on them; the batches' sums follow."""
    keys, upto = _next_keys(connection, selection, FINAL, after)
    if not keys:
        return Portion(0, upto)
    keys = keys[: _bearable(connection, keys)]
    usage = usage_columns(call)[:-1]
    sums = connection.execute(
        select(job.c.batch_key, func.count(), *map(func.sum, usage))
        .join(call, call.c.job_key == job.c.key)
        .where(job.c.key.in_(keys), call.c.ended_ms.is_not(None))
        .group_by(job.c.batch_key)
    ).all()
    kept = (batch.c.calls, *usage_columns(batch)[:-1])
    for batch_key, *taken in sums:
        less = {c.name: c - n for c, n in zip(kept, taken, strict=True)}
        connection.execute(update(batch).where(batch.c.key == batch_key).values(less))
    touched = select(job.c.batch_key).where(job.c.key.in_(keys)).distinct()
    batch_keys = frozenset(connection.execute(touched).scalars())
    removed = connection.execute(PRUNE, {"keys": keys}).all()
    return Portion(len(removed), keys[-1], batch_keys)


def remove_empty(connection: Connection, batch_keys: frozenset[int]) -> int:
    """Take away those of the batches that have no job any more; how many."""
    has_jobs = exists().where(job_count.c.batch_key == batch.c.key, job_count.c.jobs > 0)
    removed = connection.execute(
        delete(batch).where(batch.c.key.in_(batch_keys), ~has_jobs).returning(batch.c.key)
    ).all()
    gone = [row.key for row in removed]
    connection.execute(delete(job_count).where(job_count.c.batch_key.in_(gone)))
    return len(gone)


def free_pages(connection: Connection) -> tuple[int, bool]:
    """Give some of the file's unused pages back to the file system; how many bytes, and whether
    there may be more."""
    if connection.dialect.name != "sqlite":
        return 0, False  # a server's own vacuum uses them again
    sql = driver(connection)
    ((size,),) = sql.execute("PRAGMA page_size").fetchall()
    ((unused,),) = sql.execute("PRAGMA freelist_count").fetchall()
    pages = min(unused, FREED_PAGES)
    for _ in range(pages):
        # One at a time: the driver takes a single step of this statement, and a step is a page.
        sql.execute("PRAGMA incremental_vacuum(1)")
    ((left,),) = sql.execute("PRAGMA freelist_count").fetchall()
    return (unused - left) * size, 0 < left < unused


def _next_keys(
    connection: Connection, selection: Selection, allowed: frozenset[State], after: int
) -> tuple[list[int], int | None]:
    """The next jobs that are meant, and how far was looked; None: to the end."""
    beyond = select(job.c.key).where(job.c.key > after).order_by(job.c.key)
    found = beyond.where(*conditions(selection, allowed)).limit(PORTION)
    upto = None
    if selection.job_keys is None:
        upto = connection.execute(beyond.offset(LOOKED_AT - 1).limit(1)).scalar()
        if upto is not None:
            found = found.where(job.c.key <= upto)
    return list(connection.execute(found).scalars()), upto


def _bearable(connection: Connection, keys: list[int]) -> int:
    """How many of these jobs one transaction may delete: by the chunks that go with them.

    By the number of each one's last, for counting them would read all chunks of a thousand jobs,
    however few of these can go at once.
    """
    last = select(func.max(chunk.c.seq)).where(chunk.c.job_key == job.c.key).scalar_subquery()
    rows = connection.execute(select(job.c.key, last).where(job.c.key.in_(keys)))
    chunks: dict[int, int] = {key: 0 if seq is None else seq + 1 for key, seq in rows}
    totals = accumulate(chunks[key] for key in keys)
    return max(1, sum(total <= PRUNED_CHUNKS for total in totals))
