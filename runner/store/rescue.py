"""Workers' signs of life, and what happens to the jobs of those that give none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    Update,
    case,
    cast,
    delete,
    exists,
    literal,
    literal_column,
    null,
    update,
)

from runner.errors import SchemaTooNew
from runner.jobs.states import State
from runner.store import control
from runner.store.broken import break_open_call
from runner.store.engine import driver
from runner.store.events import note
from runner.store.records import EventKind
from runner.store.schema import SCHEMA_VERSION, call, chunk, job, state_in, worker

_PROCESS_DIED = "the process that made this call is gone"


VERSION: Final = "SELECT version_num FROM alembic_version"


def register(
    connection: Connection, worker_id: str, host: str, pid: int, now_ms: int, lease_ms: int
) -> None:
    """Announce a worker.

    Raises:
        SchemaTooNew: the database was upgraded while it was away.
    """
    ((version,),) = driver(connection).execute(VERSION).fetchall()
    if version != SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the database was brought to schema version {version} by another version of this "
            f"program, and this one works with {SCHEMA_VERSION}. What was saved is safe: upgrade "
            "the program here (pip install -U prefill-runner), and start it again."
        )
    connection.execute(
        worker.insert().values(
            id=worker_id, host=host, pid=pid, started_ms=now_ms, lease_until_ms=now_ms + lease_ms
        )
    )


def renew(connection: Connection, worker_id: str, now_ms: int, lease_ms: int) -> bool:
    """False where the row is gone: the worker was rescued."""
    renewed = connection.execute(
        update(worker).where(worker.c.id == worker_id).values(lease_until_ms=now_ms + lease_ms)
    )
    return renewed.rowcount == 1


def retire(connection: Connection, worker_id: str, now_ms: int) -> None:
    """Take a worker's row away; what it still holds goes back to the queue, unharmed."""
    rows = connection.execute(
        update(job)
        .where(job.c.worker_id == worker_id, state_in([State.EXECUTING]))
        .values(state=literal_column(f"'{State.AVAILABLE}'"), worker_id=null(), updated_ms=now_ms)
        .returning(job.c.key, job.c.batch_key, job.c.claim)
    ).all()
    for row in rows:
        break_open_call(connection, row.batch_key, row.key, now_ms, _PROCESS_DIED)
        note(connection, row.key, now_ms, EventKind.HANDED_BACK, row.claim)
    connection.execute(delete(worker).where(worker.c.id == worker_id))


def rescue_statement(
    condition: Sequence[ColumnElement[bool]], max_rescues: int, now_ms: int
) -> Update:
    """The rescue: one statement that looks and writes at once, so that a job which was settled
    or claimed anew after the rescuer looked is left alone.

    A process takes all its jobs down with it, and most have no part in that. A job whose text was
    saved under the claim that died is counted anew: it goes on, however often the power fails.
    """
    progressed = (
        exists()
        .where(call.c.job_key == job.c.key, call.c.claim == job.c.claim)
        .where(chunk.c.job_key == job.c.key, chunk.c.call_key == call.c.key)
    )
    rescues = case((progressed, 1), else_=job.c.rescues + literal_column("1"))
    used_up = rescues > max_rescues
    return (
        update(job)
        .where(state_in([State.EXECUTING]), *condition)
        .values(
            state=case((used_up, State.DISCARDED.value), else_=State.AVAILABLE.value),
            finalized_ms=case((used_up, literal(now_ms)), else_=null()),
            error=case(
                (
                    used_up,
                    literal("its process died ", Text)
                    + cast(rescues, Text)
                    + " times in a row while working on it, each time before any of its text was "
                    "saved",
                ),
                else_=job.c.error,
            ),
            rescues=rescues,
            worker_id=null(),
            updated_ms=now_ms,
        )
        .returning(job.c.key, job.c.id, job.c.batch_key, job.c.claim, job.c.state, job.c.error)
    )


def rescue(
    connection: Connection,
    worker_id: str,
    max_rescues: int,
    now_ms: int,
    lease_until_ms: int | None,
) -> list[str]:
    """Free the jobs of a dead worker and take its row away; the ids of the jobs.

    Args:
        lease_until_ms: the lease that was seen to have run out; nothing is done when the worker
            has renewed it since. None where the process is known to be dead.
    """
    if lease_until_ms is not None:
        expired = connection.execute(
            delete(worker).where(
                worker.c.id == worker_id, worker.c.lease_until_ms == lease_until_ms
            )
        )
        if expired.rowcount == 0:
            return []
    freed = _free(connection, [job.c.worker_id == worker_id], max_rescues, now_ms, worker_id)
    connection.execute(delete(worker).where(worker.c.id == worker_id))
    return freed


def rescue_orphans(connection: Connection, max_rescues: int, now_ms: int) -> list[str]:
    """Free the jobs whose worker has no row any more; their ids."""
    known = exists().where(worker.c.id == job.c.worker_id)
    return _free(connection, [~known], max_rescues, now_ms)


def _free(
    connection: Connection,
    condition: Sequence[ColumnElement[bool]],
    max_rescues: int,
    now_ms: int,
    worker_id: str | None = None,
) -> list[str]:
    rows = connection.execute(rescue_statement(condition, max_rescues, now_ms)).all()
    for row in rows:
        break_open_call(connection, row.batch_key, row.key, now_ms, _PROCESS_DIED)
        note(connection, row.key, now_ms, EventKind.RESCUED, row.claim, worker_id)
        if row.state == State.DISCARDED:
            note(connection, row.key, now_ms, EventKind.DISCARDED, row.claim, None, row.error)
            control.ended(connection, row.batch_key, [(row.id, "its process died")])
    return [row.id for row in sorted(rows, key=lambda row: row.key)]
