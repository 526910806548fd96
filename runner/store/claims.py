"""Claiming: which jobs a worker holds, and when waiting jobs may be claimed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Update, exists, literal_column, null, select, union_all, update

from runner.jobs.states import State, allowed_before
from runner.store.records import Claim, Lane
from runner.store.schema import WAITING, batch, job, state_in, worker

# SQLite joins at most 500 SELECTs in one statement.
MAX_LANES: Final = 400
PROMOTE_AT_ONCE: Final = 1000


def claim_statement(worker_id: str, lanes: Sequence[Lane], limit: int, now_ms: int) -> Update:
    """The claim: of each lane its best jobs, of these the best, marked as the worker's own.

    One statement, so that no two workers can take the same job; each lane reads only the first
    entries of the partial index `job_available`.
    """
    best = []
    for lane in lanes:
        open_batch = exists().where(batch.c.key == lane.batch_key, batch.c.paused.is_(None))
        jobs = (
            select(job.c.key, job.c.priority)
            .where(
                job.c.batch_key == lane.batch_key,
                job.c.model == lane.model,
                state_in(allowed_before(State.EXECUTING)),
                open_batch,
            )
            .order_by(job.c.priority.desc(), job.c.key)
            .limit(lane.free)
            .subquery()
        )
        best.append(select(jobs.c.key, jobs.c.priority))
    offered = union_all(*best).subquery()
    chosen = (
        select(offered.c.key)
        .order_by(offered.c.priority.desc(), offered.c.key)
        .limit(limit)
        .scalar_subquery()
    )
    # A worker that was rescued meanwhile is no worker: nobody would look after its jobs.
    registered = exists().where(worker.c.id == worker_id)
    return (
        update(job)
        .where(job.c.key.in_(chosen), registered)
        .values(
            state=literal_column(f"'{State.EXECUTING}'"),
            claim=job.c.claim + literal_column("1"),
            worker_id=worker_id,
            updated_ms=now_ms,
        )
        .returning(
            job.c.key,
            job.c.claim,
            job.c.batch_key,
            job.c.id,
            job.c.model,
            job.c.attempt,
            job.c.priority,
        )
    )


def claim(
    connection: Connection, worker_id: str, lanes: Sequence[Lane], limit: int, now_ms: int
) -> list[Claim]:
    """Claim up to `limit` jobs: best priority first, then oldest, at most `free` of each lane."""
    claimed: list[Claim] = []
    useful = [lane for lane in lanes if lane.free > 0]
    while useful and len(claimed) < limit:
        some, useful = useful[:MAX_LANES], useful[MAX_LANES:]
        statement = claim_statement(worker_id, some, limit - len(claimed), now_ms)
        rows = connection.execute(statement).all()
        # RETURNING keeps no order.
        claimed += [
            Claim(
                job_key=row.key,
                number=row.claim,
                worker_id=worker_id,
                batch_key=row.batch_key,
                job_id=row.id,
                model=row.model,
                attempt=row.attempt,
            )
            for row in sorted(rows, key=lambda row: (-row.priority, row.key))
        ]
    return claimed


def promote_statement(now_ms: int) -> Update:
    """Waiting jobs whose time has come, oldest time first."""
    due = (
        select(job.c.key)
        .where(state_in(WAITING), job.c.scheduled_ms <= now_ms)
        .order_by(job.c.scheduled_ms)
        .limit(PROMOTE_AT_ONCE)
        .scalar_subquery()
    )
    return (
        update(job)
        .where(job.c.key.in_(due))
        .values(
            state=literal_column(f"'{State.AVAILABLE}'"), scheduled_ms=null(), updated_ms=now_ms
        )
    )


def promote(connection: Connection, now_ms: int) -> int:
    """Make some waiting jobs available whose time has come; how many."""
    return connection.execute(promote_statement(now_ms)).rowcount
