"""Statements that read jobs and calls, and the records that their rows become."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import Row, Select, exists, func, select

from runner.jobs.call import CallOutcome, Charge, Strategy, Usage, Verdict
from runner.jobs.price import Rates
from runner.jobs.states import Finish, State
from runner.store.calls import HELD
from runner.store.portable import among
from runner.store.records import JobRow, SavedCall, WorkerRow
from runner.store.schema import batch, call, chunk, job, job_spec, usage_columns

# All that a job which no call was begun for needs, in one look.
LOAD: Final = (
    select(
        job.c.id,
        job.c.counted_from,
        job_spec.c.shape,
        job_spec.c.settings,
        select(func.max(chunk.c.seq))
        .where(chunk.c.job_key == job.c.key)
        .scalar_subquery()
        .label("last_seq"),
        exists().where(call.c.job_key == job.c.key, call.c.superseded == 0).label("begun"),
    )
    .join(job_spec, job_spec.c.job_key == job.c.key)
    .where(*HELD)
)


def worker_row(row: Row[Any], alive: bool | None, expired: bool) -> WorkerRow:
    lease_until_ms = row.lease_until_ms
    return WorkerRow(row.id, row.host, row.pid, row.started_ms, lease_until_ms, alive, expired)


def with_totals(jobs: Select[Any]) -> Select[Any]:
    """Jobs with their batch's name, their settings, and the sums of their calls."""
    page = jobs.cte("page")
    ended = call.c.ended_ms.is_not(None)
    totals = (
        select(
            call.c.job_key,
            func.count().label("calls"),
            *(
                func.coalesce(func.sum(c).filter(ended), 0).label(c.name)
                for c in (*usage_columns(call), call.c.cost_nano_usd)
            ),
            func.count().filter(ended, call.c.cost_nano_usd.is_(None)).label("unpriced_calls"),
        )
        .where(among(call.c.job_key, select(page.c.key).scalar_subquery()))
        .group_by(call.c.job_key)
        .cte("totals")
    )
    usage = (column.name for column in usage_columns(call))
    sums = ("calls", *usage, "cost_nano_usd", "unpriced_calls")
    return (
        select(
            page,
            batch.c.name.label("batch_name"),
            batch.c.simulated,
            job_spec.c.settings,
            *(func.coalesce(totals.c[name], 0).label(name) for name in sums),
        )
        .join(batch, batch.c.key == page.c.batch_key)
        .join(job_spec, job_spec.c.job_key == page.c.key)
        .outerjoin(totals, totals.c.job_key == page.c.key)
        .order_by(page.c.key)
    )


def usage_of(row: Row[Any]) -> Usage:
    return Usage(
        input_tokens=row.input_tokens,
        cache_creation_input_tokens=row.cache_creation_input_tokens,
        cache_creation_1h_input_tokens=row.cache_creation_1h_input_tokens,
        cache_read_input_tokens=row.cache_read_input_tokens,
        output_tokens=row.output_tokens,
        estimated=bool(row.usage_estimated),
    )


def job_row(row: Row[Any]) -> JobRow:
    return JobRow(
        key=row.key,
        id=row.id,
        batch=row.batch_name,
        batch_key=row.batch_key,
        model=row.model,
        state=State(row.state),
        priority=row.priority,
        claim=row.claim,
        attempt=row.attempt,
        rescues=row.rescues,
        finish=None if row.finish is None else Finish(row.finish),
        error=row.error,
        scheduled_ms=row.scheduled_ms,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        calls=row.calls,
        usage=usage_of(row),
        metadata=json.loads(row.settings)["metadata"],
        simulated=bool(row.simulated),
        cost_nano_usd=row.cost_nano_usd,
        unpriced_calls=row.unpriced_calls,
    )


def saved_call(row: Row[Any], text: str) -> SavedCall:
    outcome = None
    if row.ended_ms is not None:
        outcome = CallOutcome(
            stop_reason=row.stop_reason,
            stop_sequence=row.stop_sequence,
            stop_details=None if row.stop_details is None else json.loads(row.stop_details),
            usage=usage_of(row),
            request_id=row.request_id,
            error=row.error,
            verdict=None if row.verdict is None else Verdict(row.verdict),
            rejected=row.rejected,
            charge=Charge(row.cost_nano_usd, row.prompt_tokens, row.lost_output_tokens),
        )
    return SavedCall(
        key=row.key,
        number=row.number,
        claim=row.claim,
        strategy=None if row.strategy is None else Strategy(row.strategy),
        resume_at=row.resume_at,
        max_tokens=row.max_tokens,
        model=row.model,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        outcome=outcome,
        text=text,
        prompt_tokens=row.prompt_tokens,
        rates=rates_of(row),
        cost_nano_usd=row.cost_nano_usd,
        reserved_nano_usd=row.reserved_nano_usd,
        lost_output_tokens=row.lost_output_tokens,
        dropped_output_tokens=row.dropped_output_tokens,
    )


def rates_of(row: Row[Any]) -> Rates | None:
    """The price that stands in a call's row."""
    if row.input_price is None:
        return None
    return Rates(
        row.input_price,
        row.output_price,
        row.cache_write_5m_price,
        row.cache_write_1h_price,
        row.cache_read_price,
    )
