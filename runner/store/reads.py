"""Reading: queries that never wait for the writer, from this process or another."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Executable, Row, bindparam, func, select

from runner.errors import NotFound, StoreBlocked
from runner.jobs.states import UNFINISHED, Finish, State
from runner.jobs.traits import PrefillAnswer
from runner.store import limits, memory
from runner.store.budget import COLUMNS as BUDGET_COLUMNS
from runner.store.budget import EXECUTING, fitting
from runner.store.database import Database
from runner.store.listing import FEW, Filter, counts, page_statement
from runner.store.patience import Patience
from runner.store.prefixes import SharedPrefix
from runner.store.records import (
    BatchRow,
    EventKind,
    Held,
    JobRow,
    LearnedCalls,
    OpenLane,
    PaceMember,
    PaceRow,
    PauseCause,
    Selection,
)
from runner.store.rows import (
    job_row,
    usage_of,
    with_totals,
)
from runner.store.schema import (
    WAITING,
    batch,
    job,
    job_count,
    job_event,
    learned,
    shared_prefix,
    state_in,
    worker,
)
from runner.store.selection import count_statement
from runner.store.submit import limits_from_json

T = TypeVar("T")

TRIES: Final = 3  # of a question whose connection was cut, before it waits
PAGE: Final = 500
NEAREST_AMONG: Final = 5_000
NEWEST: Final = 4_000  # events that are looked at to tell how fast jobs end

# What a worker holds, and which of it is paused: asked twice a second while others write.
HELD_BY: Final = (
    select(job.c.key, job.c.claim, job.c.batch_key, batch.c.paused, batch.c.pause_reason)
    .join(batch, batch.c.key == job.c.batch_key)
    .where(job.c.worker_id == bindparam("holder"), state_in([State.EXECUTING]))
)


class Reader:
    """The reading connections of one database."""

    def __init__(self, database: Database, patience: Patience) -> None:
        self._database = database
        self._patience = patience
        self._connections = database.reading()
        self._watcher = database.watcher(self._connections)
        self._running: set[asyncio.Future[Any]] = set()

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(self._running)
        self._watcher.close()
        await self._connections.close()

    async def rows(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Sequence[Row[Any]]:
        return await self._patiently(partial(self._connections.rows, statement, values))

    async def data_version(self) -> int:
        """Another number when another connection committed."""
        return await self._patiently(self._watcher.version)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        # In a task of its own: cancelled in the middle, a connection would be left half-used, and
        # whoever waits for the next free one could wait for ever.
        reading = asyncio.ensure_future(self._ask(ask))
        self._running.add(reading)
        reading.add_done_callback(self._done)
        return await asyncio.shield(reading)

    def _done(self, reading: asyncio.Future[Any]) -> None:
        self._running.discard(reading)
        if not reading.cancelled():
            reading.exception()  # who asked may be gone

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        tries = 0
        while True:
            try:
                return await ask()
            except Exception as error:
                tries += 1
                if tries < TRIES and self._database.cut(error):
                    continue  # others may be cut as well
                cause = self._database.explained(error) or self._database.refused(error)
                if cause is error:
                    raise
                if isinstance(cause, StoreBlocked) and await self._patience.sleep(cause):
                    continue
                raise cause from error

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
                usage=usage_of(row),
                simulated=bool(row.simulated),
                cost_nano_usd=row.cost_nano_usd,
                spent_output_tokens=row.spent_output_tokens,
                reserved_nano_usd=row.reserved_nano_usd,
                reserved_output_tokens=row.reserved_output_tokens,
                unpriced_calls=row.unpriced_calls,
            )
            for row in rows
        ]

    async def models(self, batch_key: int) -> list[str]:
        statement = (
            select(job_count.c.model)
            .distinct()
            .where(job_count.c.batch_key == batch_key, job_count.c.jobs > 0)
            .where(job_count.c.state.in_(sorted(UNFINISHED)))
            .order_by(job_count.c.model)
        )
        return [row.model for row in await self.rows(statement)]

    async def workers(self) -> Sequence[Row[Any]]:
        return await self.rows(select(worker).order_by(worker.c.started_ms, worker.c.id))

    async def paces(self) -> list[PaceRow]:
        members: dict[str, list[PaceMember]] = {}
        for row in await self.rows(limits.MEMBERS):
            member = PaceMember(row.worker_id, row.concurrency, row.in_flight, row.seen_ms)
            members.setdefault(row.limit_key, []).append(member)
        return [
            PaceRow(
                limit_key=row.limit_key,
                name=row.name,
                cooled_until_ms=row.cooled_until_ms,
                cause=row.cause,
                requests_per_minute=row.requests_per_minute,
                input_tokens_per_minute=row.input_tokens_per_minute,
                output_tokens_per_minute=row.output_tokens_per_minute,
                updated_ms=row.updated_ms,
                members=tuple(members.get(row.limit_key, ())),
            )
            for row in await self.rows(limits.SHARED)
        ]

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
            select(
                job_count.c.batch_key,
                job_count.c.model,
                job_count.c.jobs,
                EXECUTING.label("executing"),
                batch.c.name,
                batch.c.simulated,
                batch.c.limits,
                *BUDGET_COLUMNS,
            )
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
        lanes = [
            OpenLane(
                row.batch_key,
                row.model,
                row.jobs,
                fitting(row, row.executing),
                row.name,
                bool(row.simulated),
                row.limits,
            )
            for row in await self.rows(statement)
        ]
        return [lane for lane in lanes if lane.most != 0]

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
        batch_key = None
        if batch_name is not None:
            known = await self.rows(select(batch.c.key).where(batch.c.name == batch_name))
            if not known:
                return
            batch_key = known[0].key
        wanted = Filter.of(batch_key, states, finishes)
        if wanted is None:
            return
        (count,) = await self.rows(counts(wanted))
        if not count.matching:
            return
        few = count.among <= FEW
        after, left = 0, limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = page_statement(wanted, after, size, few=few)
            found = [job_row(row) for row in await self.rows(page)]
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
        found = [job_row(row) for row in await self.rows(with_totals(statement.limit(20)))]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"{one.batch}/{one.id}" for one in found)
            raise NotFound(f"several batches have a job '{job_id}': say which one of {names}.")
        where = f" in a batch '{batch_name}'" if slash else ""
        raise NotFound(f"there is no job '{job_id}'{where}.{await self._nearest(job_id)}")

    async def job(self, job_key: int) -> JobRow:
        rows = await self.rows(with_totals(select(job).where(job.c.key == job_key)))
        if not rows:
            raise NotFound(f"there is no job with the key {job_key}.")
        return job_row(rows[0])

    async def _nearest(self, id: str) -> str:
        like = select(job.c.id).where(job.c.id >= id[:2]).order_by(job.c.id).limit(NEAREST_AMONG)
        ids = [row.id for row in await self.rows(like)]
        if len(ids) < NEAREST_AMONG:
            ids += [r.id for r in await self.rows(select(job.c.id).limit(NEAREST_AMONG))]
        near = difflib.get_close_matches(id, dict.fromkeys(ids), n=3)
        if not near:
            return " `runner list` shows all jobs."
        return " Did you mean " + " or ".join(f"'{one}'" for one in near) + "?"

    async def shared_prefixes(
        self, batch_key: int, hashes: Collection[bytes] | None, limit: int | None
    ) -> list[SharedPrefix]:
        table = shared_prefix.c
        statement = (
            select(table.hash, table.jobs, table.warm_until_ms, table.warming_until_ms)
            .where(table.batch_key == batch_key)
            .limit(limit)
        )
        if hashes is not None:
            statement = statement.where(table.hash.in_(hashes))
        rows = await self.rows(statement)
        return [SharedPrefix(r.hash, r.jobs, r.warm_until_ms, r.warming_until_ms) for r in rows]

    async def learned(self, batch_key: int, model: str) -> list[LearnedCalls]:
        statement = (
            select(*list(learned.c)[2:])
            .where(learned.c.batch_key == batch_key, learned.c.model == model)
            .order_by(learned.c.number)
        )
        rows = await self.rows(statement)
        return [LearnedCalls(**row._mapping) for row in rows]  # noqa: SLF001  public in spite of its name

    async def last_ends(self, since_ms: int) -> list[tuple[int, int]]:
        """Batch and time of the newest jobs' ends, newest first, by a short look at the last
        events: nothing that grows with the queue."""
        newest = (
            select(job_event.c.key, job_event.c.job_key, job_event.c.kind, job_event.c.at_ms)
            .order_by(job_event.c.key.desc())
            .limit(NEWEST)
            .subquery()
        )
        rows = await self.rows(
            select(job.c.batch_key, newest.c.at_ms)
            .join(job, job.c.key == newest.c.job_key)
            .where(newest.c.kind.in_([EventKind.COMPLETED, EventKind.DISCARDED]))
            .where(newest.c.at_ms >= since_ms)
            .order_by(newest.c.key.desc())
        )
        return [(row.batch_key, row.at_ms) for row in rows]

    async def held(self, worker_id: str) -> Held:
        rows = await self.rows(HELD_BY, {"holder": worker_id})
        return Held(
            {row.key: row.claim for row in rows},
            {
                row.batch_key: row.pause_reason or f"paused ({row.paused})"
                for row in rows
                if row.paused is not None
            },
        )

    async def selected(self, selection: Selection) -> int:
        return int((await self.rows(count_statement(selection)))[0][0])
