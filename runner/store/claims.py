"""Claiming: which jobs a worker holds, and when waiting jobs may be claimed again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    any_,
    bindparam,
    exists,
    func,
    literal_column,
    null,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from runner.jobs.states import State, allowed_before
from runner.store.events import note_all
from runner.store.records import Claim, EventKind, Lane
from runner.store.schema import WAITING, batch, job, state_in, worker

# SQLite joins at most 500 SELECTs in one statement.
MAX_LANES: Final = 400
PROMOTE_AT_ONCE: Final = 1000


@cache
def claim_statement(lanes: int, *, skipping: bool = False) -> ReturningUpdate[Any]:
    """The claim: of each lane its best jobs, of these the best, marked as the worker's own.

    One statement, so that no two workers can take the same job; each lane reads only the first
    entries of the partial index `job_available`.

    Args:
        skipping: of each lane the best jobs that no other transaction holds, and these are held:
            the words of PostgreSQL.
    """
    best = []
    for lane in range(lanes):
        batch_key = bindparam(f"batch_{lane}", type_=job.c.batch_key.type)
        jobs = (
            select(job.c.key, job.c.priority)
            .where(
                job.c.batch_key == batch_key,
                job.c.model == bindparam(f"model_{lane}"),
                state_in(allowed_before(State.EXECUTING)),
                exists().where(batch.c.key == batch_key, batch.c.paused.is_(None)),
            )
            .order_by(job.c.priority.desc(), job.c.key)
            .limit(bindparam(f"free_{lane}"))
        )
        if skipping:
            held = jobs.with_for_update(of=job, skip_locked=True).cte(f"lane_{lane}")
            best.append(select(held.c.key, held.c.priority))
        else:
            offer = jobs.subquery()
            best.append(select(offer.c.key, offer.c.priority))
    offered = union_all(*best).subquery()
    chosen = (
        select(offered.c.key)
        .order_by(offered.c.priority.desc(), offered.c.key)
        .limit(bindparam("most"))
        .scalar_subquery()
    )
    # An array, so that the server looks up each key, however many it guesses they will be.
    among = job.c.key == any_(func.array(chosen)) if skipping else job.c.key.in_(chosen)
    # A worker that was rescued meanwhile is no worker: nobody would look after its jobs.
    registered = exists().where(worker.c.id == bindparam("holder"))
    return (
        update(job)
        .where(among, registered)
        .values(
            state=literal_column(f"'{State.EXECUTING}'"),
            claim=job.c.claim + literal_column("1"),
            worker_id=bindparam("holder"),
            updated_ms=bindparam("now_ms"),
        )
        .returning(
            job.c.key,
            job.c.claim,
            job.c.batch_key,
            job.c.id,
            job.c.model,
            job.c.attempt,
            job.c.priority,
            job.c.rescues,
        )
    )


# A job that was claimed and is given back in the same transaction: nobody has seen it.
LEAVE: Final = (
    update(job)
    .where(job.c.key == bindparam("left_key"))
    .values(state=literal_column(f"'{State.AVAILABLE}'"), worker_id=null())
)


def claim(
    connection: Connection,
    worker_id: str,
    lanes: Sequence[Lane],
    limit: int,
    now_ms: int,
    suspect_from: int | None = None,
    alone: bool = True,
) -> list[Claim]:
    """Claim up to `limit` jobs: best priority first, then oldest, at most `free` of each lane.

    Args:
        suspect_from: a job rescued so often is claimed only alone; None: jobs are not suspected.
        alone: the worker has no other job that a suspect could take down with it.
    """
    claimed = _claim(connection, worker_id, lanes, limit, now_ms)
    suspects = [c for c in claimed if suspect_from is not None and c.rescues >= suspect_from]
    if not suspects:
        return claimed
    kept = suspects[:1] if alone else [c for c in claimed if c not in suspects]
    left = [{"left_key": c.job_key} for c in claimed if c not in kept]
    if left:
        connection.execute(LEAVE, left)
    return kept


def _claim(
    connection: Connection, worker_id: str, lanes: Sequence[Lane], limit: int, now_ms: int
) -> list[Claim]:
    claimed: list[Claim] = []
    useful = [lane for lane in lanes if lane.free > 0]
    while useful and len(claimed) < limit:
        some, useful = useful[:MAX_LANES], useful[MAX_LANES:]
        values: dict[str, object] = {
            "holder": worker_id,
            "most": limit - len(claimed),
            "now_ms": now_ms,
        }
        for number, lane in enumerate(some):
            values[f"batch_{number}"] = lane.batch_key
            values[f"model_{number}"] = lane.model
            values[f"free_{number}"] = lane.free
        statement = claim_statement(len(some), skipping=connection.dialect.name != "sqlite")
        rows = connection.execute(statement, values).all()
        taken = ((row.key, row.claim) for row in rows)
        note_all(connection, taken, now_ms, EventKind.CLAIMED, worker_id)
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
                rescues=row.rescues,
            )
            for row in sorted(rows, key=lambda row: (-row.priority, row.key))
        ]
    return claimed


# Waiting jobs whose time has come, longest due first.
PROMOTE: Final = (
    update(job)
    .where(
        job.c.key.in_(
            select(job.c.key)
            .where(state_in(WAITING), job.c.scheduled_ms <= bindparam("now_ms"))
            .order_by(job.c.scheduled_ms)
            .limit(PROMOTE_AT_ONCE)
            .scalar_subquery()
        )
    )
    .values(
        state=literal_column(f"'{State.AVAILABLE}'"),
        scheduled_ms=null(),
        updated_ms=bindparam("now_ms"),
    )
)


def promote(connection: Connection, now_ms: int) -> int:
    """Make some waiting jobs available whose time has come; how many."""
    return connection.execute(PROMOTE, {"now_ms": now_ms}).rowcount
