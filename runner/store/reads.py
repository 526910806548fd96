"""Reading: queries that never wait for the writer, from this process or another."""

from __future__ import annotations

import asyncio
import difflib
import json
import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Executable, Row, Select, exists, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.errors import NotFound
from runner.jobs.call import CallOutcome, Strategy, Usage, Verdict
from runner.jobs.spec import JobSpec
from runner.jobs.states import UNFINISHED, Finish, State
from runner.jobs.traits import PrefillAnswer
from runner.store import memory
from runner.store.calls import HELD, HOLDS, fence, lost
from runner.store.engine import connect, explained, reading_engine, refused
from runner.store.records import (
    BatchRow,
    Claim,
    JobRow,
    LoadedJob,
    OpenLane,
    PauseCause,
    SavedCall,
    TextPiece,
    WorkerRow,
)
from runner.store.schema import (
    WAITING,
    batch,
    call,
    chunk,
    job,
    job_count,
    job_spec,
    state_in,
    usage_columns,
    worker,
)
from runner.store.submit import limits_from_json

PAGE: Final = 500
NEAREST_AMONG: Final = 5_000

# All that a job which no call was begun for needs, in one look.
LOAD: Final = (
    select(
        job.c.id,
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
# The kept counts that are wrong, and those that are missing.
COUNTS_DIFFER: Final = """\
WITH counted AS (
  SELECT batch_key, model, state, coalesce(finish, '') AS finish, count(*) AS jobs
  FROM job GROUP BY 1, 2, 3, 4
), kept AS (
  SELECT batch_key, model, state, finish, jobs FROM job_count WHERE jobs <> 0
)
SELECT 'kept' AS side, * FROM (SELECT * FROM kept EXCEPT SELECT * FROM counted)
UNION ALL
SELECT 'counted', * FROM (SELECT * FROM counted EXCEPT SELECT * FROM kept)
"""
TOTALS_DIFFER: Final = """\
SELECT batch.name FROM batch
LEFT JOIN (
  SELECT job.batch_key, count(*) AS calls, sum(call.input_tokens) AS input_tokens,
    sum(call.cache_creation_input_tokens) AS cache_creation_input_tokens,
    sum(call.cache_read_input_tokens) AS cache_read_input_tokens,
    sum(call.output_tokens) AS output_tokens
  FROM call JOIN job ON job.key = call.job_key WHERE call.ended_ms IS NOT NULL GROUP BY 1
) AS counted ON counted.batch_key = batch.key
WHERE (batch.calls, batch.input_tokens, batch.cache_creation_input_tokens,
    batch.cache_read_input_tokens, batch.output_tokens)
  <> (coalesce(counted.calls, 0), coalesce(counted.input_tokens, 0),
    coalesce(counted.cache_creation_input_tokens, 0),
    coalesce(counted.cache_read_input_tokens, 0), coalesce(counted.output_tokens, 0))
"""


class Reader:
    """The reading connections of one database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine: AsyncEngine = reading_engine(path)
        self._watcher: sqlite3.Connection | None = None
        self._running: set[asyncio.Future[Sequence[Row[Any]]]] = set()

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(self._running)
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        await self._engine.dispose()

    async def rows(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Sequence[Row[Any]]:
        # In a task of its own: cancelled in the middle, a connection would be left half-used, and
        # whoever waits for the next free one could wait for ever.
        reading = asyncio.ensure_future(self._rows(statement, values))
        self._running.add(reading)
        reading.add_done_callback(self._running.discard)
        return await asyncio.shield(reading)

    async def _rows(
        self, statement: Executable, values: Mapping[str, object] | None
    ) -> Sequence[Row[Any]]:
        try:
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, values)).all()
        except DBAPIError as error:
            raise (explained(error, self._path) or refused(error, self._path)) from error

    def data_version(self) -> int:
        """Grows when another connection committed.

        Only the answers of one connection can be compared, so it has its own; and asked here and
        now, because the four microseconds it takes are less than handing it to a thread.
        """
        try:
            if self._watcher is None:
                self._watcher = connect(self._path, mode="ro")
            ((version,),) = self._watcher.execute("PRAGMA data_version").fetchall()
        except sqlite3.Error as error:
            raise (explained(error, self._path) or refused(error, self._path)) from error
        return int(version)

    # batches and workers

    async def batches(self, names: Collection[str] | None) -> list[BatchRow]:
        wanted = select(batch).order_by(batch.c.key)
        counts = select(
            job_count.c.batch_key,
            job_count.c.state,
            job_count.c.finish,
            func.sum(job_count.c.jobs).label("jobs"),
        ).group_by(job_count.c.batch_key, job_count.c.state, job_count.c.finish)
        if names is not None:
            wanted = wanted.where(batch.c.name.in_(names))
            counts = counts.where(
                job_count.c.batch_key.in_(select(batch.c.key).where(batch.c.name.in_(names)))
            )
        rows = await self.rows(wanted)
        by_batch: dict[int, dict[tuple[State, Finish | None], int]] = {}
        for row in await self.rows(counts):
            if row.jobs:
                finish = Finish(row.finish) if row.finish else None
                by_batch.setdefault(row.batch_key, {})[State(row.state), finish] = row.jobs
        return [
            BatchRow(
                key=row.key,
                name=row.name,
                limits=limits_from_json(row.limits),
                paused=None if row.paused is None else PauseCause(row.paused),
                pause_reason=row.pause_reason,
                created_ms=row.created_ms,
                counts=by_batch.get(row.key, {}),
                calls=row.calls,
                usage=_usage_of(row),
            )
            for row in rows
        ]

    async def workers(self) -> Sequence[Row[Any]]:
        return await self.rows(select(worker).order_by(worker.c.started_ms, worker.c.id))

    async def unfinished(self, batch_keys: Collection[int] | None) -> int:
        statement = select(func.coalesce(func.sum(job_count.c.jobs), 0)).where(
            job_count.c.state.in_(sorted(UNFINISHED))
        )
        if batch_keys is not None:
            statement = statement.where(job_count.c.batch_key.in_(batch_keys))
        return int((await self.rows(statement))[0][0])

    async def remembered(self, endpoint: str, model: str) -> PrefillAnswer | None:
        rows = await self.rows(memory.recalled(endpoint, model))
        return PrefillAnswer(rows[0].prefill) if rows else None

    async def open_lanes(self, batch_keys: Collection[int] | None) -> list[OpenLane]:
        statement = (
            select(job_count.c.batch_key, job_count.c.model, job_count.c.jobs)
            .join(batch, batch.c.key == job_count.c.batch_key)
            .where(
                job_count.c.state == State.AVAILABLE,
                job_count.c.jobs > 0,
                batch.c.paused.is_(None),
            )
            .order_by(job_count.c.batch_key, job_count.c.model)
        )
        if batch_keys is not None:
            statement = statement.where(job_count.c.batch_key.in_(batch_keys))
        return [OpenLane(row.batch_key, row.model, row.jobs) for row in await self.rows(statement)]

    async def next_due_ms(self, batch_keys: Collection[int] | None) -> int | None:
        statement = (
            select(job.c.scheduled_ms)
            .where(state_in(WAITING))
            .order_by(job.c.scheduled_ms)
            .limit(1)
        )
        if batch_keys is not None:
            statement = statement.where(job.c.batch_key.in_(batch_keys))
        rows = await self.rows(statement)
        return rows[0].scheduled_ms if rows else None

    # jobs

    async def jobs(
        self,
        batch_name: str | None,
        states: Collection[State],
        finishes: Collection[Finish],
        limit: int | None,
    ) -> AsyncIterator[JobRow]:
        """Page by page in the order of submission, so that memory stays flat."""
        after, left = 0, limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = page_statement(after, size, batch_name, states, finishes)
            found = [_job_row(row) for row in await self.rows(page)]
            for one in found:
                yield one
            if len(found) < size:
                return
            after = found[-1].key
            left = None if left is None else left - size

    async def find_job(self, reference: str) -> JobRow:
        batch_name, slash, job_id = reference.rpartition("/")
        statement = select(job).where(job.c.id == job_id).order_by(job.c.key)
        if slash:
            key = select(batch.c.key).where(batch.c.name == batch_name).scalar_subquery()
            statement = statement.where(job.c.batch_key == key)
        found = [_job_row(row) for row in await self.rows(_with_totals(statement.limit(20)))]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"{one.batch}/{one.id}" for one in found)
            raise NotFound(f"several batches have a job '{job_id}': say which one of {names}.")
        where = f" in a batch '{batch_name}'" if slash else ""
        raise NotFound(f"there is no job '{job_id}'{where}.{await self._nearest(job_id)}")

    async def job(self, job_key: int) -> JobRow:
        rows = await self.rows(_with_totals(select(job).where(job.c.key == job_key)))
        if not rows:
            raise NotFound(f"there is no job with the key {job_key}.")
        return _job_row(rows[0])

    async def _nearest(self, id: str) -> str:
        like = select(job.c.id).where(job.c.id >= id[:2]).order_by(job.c.id).limit(NEAREST_AMONG)
        ids = [row.id for row in await self.rows(like)]
        if len(ids) < NEAREST_AMONG:
            ids += [r.id for r in await self.rows(select(job.c.id).limit(NEAREST_AMONG))]
        near = difflib.get_close_matches(id, dict.fromkeys(ids), n=3)
        if not near:
            return " `runner list` shows all jobs."
        return " Did you mean " + " or ".join(f"'{one}'" for one in near) + "?"

    async def spec(self, job_key: int) -> JobSpec:
        rows = await self.rows(
            select(job.c.id, job_spec.c.shape, job_spec.c.settings)
            .join(job_spec, job_spec.c.job_key == job.c.key)
            .where(job.c.key == job_key)
        )
        if not rows:
            raise NotFound(f"there is no job with the key {job_key}.")
        return JobSpec.from_json(
            rows[0].id, json.loads(rows[0].shape), json.loads(rows[0].settings)
        )

    async def load(self, claim: Claim) -> LoadedJob:
        rows = await self.rows(LOAD, fence(claim))
        if not rows:
            raise lost(claim)
        spec = JobSpec.from_json(
            rows[0].id, json.loads(rows[0].shape), json.loads(rows[0].settings)
        )
        last_seq = rows[0].last_seq
        if not rows[0].begun:
            return LoadedJob(spec, (), 0 if last_seq is None else last_seq + 1)
        calls = await self.calls(claim.job_key, superseded=False)
        # Once more: while the fence holds, nobody else could write what was read before it.
        if not await self.rows(HOLDS, fence(claim)):
            raise lost(claim)
        return LoadedJob(spec, tuple(calls), 0 if last_seq is None else last_seq + 1)

    async def calls(self, job_key: int, *, superseded: bool) -> list[SavedCall]:
        statement = select(call).where(call.c.job_key == job_key).order_by(call.c.key)
        if not superseded:
            statement = statement.where(call.c.superseded == 0)
        rows = await self.rows(statement)
        pieces = await self.rows(
            select(chunk.c.call_key, chunk.c.text)
            .where(chunk.c.job_key == job_key)
            .order_by(chunk.c.seq)
        )
        texts: dict[int, str] = {}
        for call_key, group in groupby(pieces, key=lambda piece: piece.call_key):
            texts[call_key] = texts.get(call_key, "") + "".join(piece.text for piece in group)
        return [_saved_call(row, texts.get(row.key, "")) for row in rows]

    async def pieces(self, job_key: int, after_seq: int) -> list[TextPiece]:
        rows = await self.rows(
            select(call.c.number, call.c.resume_at, chunk.c.seq, chunk.c.text)
            .join(call, call.c.key == chunk.c.call_key)
            .where(chunk.c.job_key == job_key, chunk.c.seq > after_seq, call.c.superseded == 0)
            .order_by(chunk.c.seq)
        )
        return [TextPiece(row.number, row.resume_at, row.seq, row.text) for row in rows]

    # looking after the file

    async def check(self) -> list[str]:
        problems = [
            row.integrity_check
            for row in await self.rows(text("PRAGMA integrity_check"))
            if row.integrity_check != "ok"
        ]
        problems += [
            f"table {row.table}, row {row.rowid}: its row in {row.parent} is missing"
            for row in await self.rows(text("PRAGMA foreign_key_check"))
        ]
        problems += [
            f"batch {row.batch_key}, {row.model}, {row.state} {row.finish}: "
            f"{row.side} as {row.jobs} jobs, which does not agree"
            for row in await self.rows(text(COUNTS_DIFFER))
        ]
        problems += [
            f"batch '{row.name}': its kept token sums are not those of its calls"
            for row in await self.rows(text(TOTALS_DIFFER))
        ]
        return problems


def page_statement(
    after: int,
    size: int,
    batch_name: str | None,
    states: Collection[State],
    finishes: Collection[Finish],
) -> Select[Any]:
    """The first jobs whose key is beyond `after`."""
    page = select(job).where(job.c.key > after).order_by(job.c.key).limit(size)
    if batch_name is not None:
        key = select(batch.c.key).where(batch.c.name == batch_name).scalar_subquery()
        page = page.where(job.c.batch_key == key)
    if states:
        # Bound, so that no partial index applies: in the order of keys nothing needs sorting.
        page = page.where(job.c.state.in_(sorted(states)))
    if finishes:
        page = page.where(job.c.finish.in_(sorted(finishes)))
    return _with_totals(page)


def worker_row(row: Row[Any], alive: bool | None) -> WorkerRow:
    return WorkerRow(row.id, row.host, row.pid, row.started_ms, row.lease_until_ms, alive)


def _with_totals(jobs: Select[Any]) -> Select[Any]:
    """Jobs with their batch's name, their settings, and the sums of their calls."""
    page = jobs.cte("page")
    ended = call.c.ended_ms.is_not(None)
    totals = (
        select(
            call.c.job_key,
            func.count().label("calls"),
            *(
                func.coalesce(func.sum(c).filter(ended), 0).label(c.name)
                for c in usage_columns(call)
            ),
        )
        .where(call.c.job_key.in_(select(page.c.key)))
        .group_by(call.c.job_key)
        .cte("totals")
    )
    sums = ("calls", *(column.name for column in usage_columns(call)))
    return (
        select(
            page,
            batch.c.name.label("batch_name"),
            job_spec.c.settings,
            *(func.coalesce(totals.c[name], 0).label(name) for name in sums),
        )
        .join(batch, batch.c.key == page.c.batch_key)
        .join(job_spec, job_spec.c.job_key == page.c.key)
        .outerjoin(totals, totals.c.job_key == page.c.key)
        .order_by(page.c.key)
    )


def _usage_of(row: Row[Any]) -> Usage:
    return Usage(
        input_tokens=row.input_tokens,
        cache_creation_input_tokens=row.cache_creation_input_tokens,
        cache_read_input_tokens=row.cache_read_input_tokens,
        output_tokens=row.output_tokens,
        estimated=bool(row.usage_estimated),
    )


def _job_row(row: Row[Any]) -> JobRow:
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
        usage=_usage_of(row),
        metadata=json.loads(row.settings)["metadata"],
    )


def _saved_call(row: Row[Any], text: str) -> SavedCall:
    outcome = None
    if row.ended_ms is not None:
        outcome = CallOutcome(
            stop_reason=row.stop_reason,
            stop_sequence=row.stop_sequence,
            stop_details=None if row.stop_details is None else json.loads(row.stop_details),
            usage=_usage_of(row),
            request_id=row.request_id,
            error=row.error,
            verdict=None if row.verdict is None else Verdict(row.verdict),
            rejected=row.rejected,
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
    )
