"""What the database knows that lets a job file's cost be foreseen: which of its jobs are there
already, what finished documents took, how fast streams came."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Executable, Row, Select, func, select
from sqlalchemy import text as sql

from runner.jobs.spec import JobSpec
from runner.jobs.states import UNFINISHED, Finish, State
from runner.store.records import FinishedJob, KnownJob, LearnedCalls
from runner.store.rows import usage_of
from runner.store.schema import batch, call, job, job_spec, learned

Rows = Callable[[Executable, Mapping[str, object] | None], Awaitable[Sequence[Row[Any]]]]

# Jobs that are looked at for finished ones: nothing that grows with the queue.
LOOKED_AT: Final = 5_000

# For each wanted id one look into the index, however large the queue.
KNOWN: Final = sql(
    """\
SELECT job.id, job.hash, job.state, job.finish,
  CASE WHEN job.state IN ({unfinished}) THEN
    (SELECT coalesce(sum(call.output_tokens), 0) FROM call
     WHERE call.job_key = job.key AND call.superseded = 0)
  ELSE 0 END AS output_tokens
FROM json_each(:ids) AS wanted
CROSS JOIN job ON job.id = wanted.value AND job.batch_key = :batch_key
""".replace("{unfinished}", ", ".join(f"'{state}'" for state in sorted(UNFINISHED)))
)


async def known(rows: Rows, batch_key: int, ids: Iterable[str]) -> dict[str, KnownJob]:
    found = await rows(KNOWN, {"ids": json.dumps(list(ids)), "batch_key": batch_key})
    return {
        row.id: KnownJob(
            bytes(row.hash),
            State(row.state),
            None if row.finish is None else Finish(row.finish),
            row.output_tokens,
        )
        for row in found
    }


async def finished(
    rows: Rows, *, batch_key: int | None, models: Collection[str], simulated: bool, limit: int
) -> list[FinishedJob]:
    """Documents that ended, of one batch in the order of submission, or the newest of all."""
    among = select(job.c.key)
    if batch_key is not None:
        among = among.where(job.c.batch_key == batch_key).order_by(job.c.key)
    else:
        among = among.order_by(job.c.key.desc())
    looked_at = among.limit(LOOKED_AT).subquery()
    ended = await rows(
        select(job.c.key, job.c.id, job.c.batch_key, job_spec.c.shape, job_spec.c.settings)
        .join(looked_at, looked_at.c.key == job.c.key)
        .join(job_spec, job_spec.c.job_key == job.c.key)
        .join(batch, batch.c.key == job.c.batch_key)
        .where(job.c.state.in_([State.COMPLETED.value]), batch.c.simulated == int(simulated))
        .where(job.c.model.in_(sorted(models)))
        .order_by(job.c.key)
        .limit(limit),
        None,
    )
    paid = await rows(
        select(call)
        .where(call.c.job_key.in_([row.key for row in ended]))
        .where(call.c.superseded == 0, call.c.ended_ms.is_not(None))
        .order_by(call.c.job_key, call.c.number),
        None,
    )
    calls = {
        key: tuple(usage_of(row) for row in group)
        for key, group in groupby(paid, key=lambda row: row.job_key)
    }
    return [
        FinishedJob(
            row.batch_key,
            JobSpec.from_json(row.id, json.loads(row.shape), json.loads(row.settings)),
            calls[row.key],
        )
        for row in ended
        if row.key in calls
    ]


def learned_of(model: str, simulated: bool) -> Select[Any]:
    """What all calls to a model have been like, by their number, batches together."""
    sums = list(learned.c)[3:]
    most = learned.c.most_output_tokens
    return (
        select(
            learned.c.number,
            *(
                (func.max(column) if column is most else func.sum(column)).label(column.name)
                for column in sums
            ),
        )
        .join(batch, batch.c.key == learned.c.batch_key)
        .where(learned.c.model == model)
        .where(batch.c.simulated == int(simulated))
        .group_by(learned.c.number)
        .order_by(learned.c.number)
    )


async def learned_by_model(rows: Rows, model: str, simulated: bool) -> list[LearnedCalls]:
    found = await rows(learned_of(model, simulated), None)
    return [LearnedCalls(*tuple(row)) for row in found]
