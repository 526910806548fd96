"""Reading one job, or a few: what it was asked to be, its calls, its text, what happened to it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Protocol

from sqlalchemy import Executable, Row, select

from runner.errors import NotFound
from runner.jobs.spec import JobSpec
from runner.store.calls import HOLDS, fence, lost
from runner.store.records import (
    Claim,
    EventKind,
    JobEvent,
    JobRow,
    LoadedJob,
    SavedCall,
    TextPiece,
)
from runner.store.rows import LOAD, saved_call
from runner.store.schema import call, chunk, job, job_event, job_spec

TOGETHER: Final = 100  # jobs whose calls are read at once


class Ask(Protocol):
    """Gives the rows of a statement."""

    def __call__(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Awaitable[Sequence[Row[Any]]]: ...


class DocumentReads:
    """The reads of jobs and their documents.

    Args:
        ask: of the reading connections.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def spec(self, job_key: int) -> JobSpec:
        rows = await self._ask(
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
        rows = await self._ask(LOAD, fence(claim))
        if not rows:
            raise lost(claim)
        spec = JobSpec.from_json(
            rows[0].id, json.loads(rows[0].shape), json.loads(rows[0].settings)
        )
        next_seq = 0 if rows[0].last_seq is None else rows[0].last_seq + 1
        counted_from = rows[0].counted_from
        if not rows[0].begun:
            return LoadedJob(spec, (), next_seq, counted_from)
        calls = await self.calls(claim.job_key, superseded=False)
        # Once more: while the fence holds, nobody else could write what was read before it.
        if not await self._ask(HOLDS, fence(claim)):
            raise lost(claim)
        return LoadedJob(spec, tuple(calls), next_seq, counted_from)

    async def calls(self, job_key: int, *, superseded: bool) -> list[SavedCall]:
        statement = select(call).where(call.c.job_key == job_key).order_by(call.c.key)
        if not superseded:
            statement = statement.where(call.c.superseded == 0)
        rows = await self._ask(statement)
        pieces = await self._ask(
            select(chunk.c.call_key, chunk.c.text)
            .where(chunk.c.job_key == job_key)
            .order_by(chunk.c.seq)
        )
        texts: dict[int, str] = {}
        for call_key, group in groupby(pieces, key=lambda piece: piece.call_key):
            texts[call_key] = texts.get(call_key, "") + "".join(piece.text for piece in group)
        return [saved_call(row, texts.get(row.key, "")) for row in rows]

    async def calls_of(self, job_keys: Sequence[int]) -> dict[int, list[SavedCall]]:
        # Always as many keys, so that it is one statement to a server, however many are asked for.
        keys = list(job_keys)
        keys += keys[-1:] * (TOGETHER - len(keys))
        rows = await self._ask(
            select(call)
            .where(call.c.job_key.in_(keys), call.c.superseded == 0)
            .order_by(call.c.job_key, call.c.key)
        )
        pieces = await self._ask(
            select(chunk.c.call_key, chunk.c.text)
            .where(chunk.c.job_key.in_(keys))
            .order_by(chunk.c.job_key, chunk.c.seq)
        )
        texts: dict[int, list[str]] = {}
        for piece in pieces:
            texts.setdefault(piece.call_key, []).append(piece.text)
        found: dict[int, list[SavedCall]] = {key: [] for key in job_keys}
        for row in rows:
            found[row.job_key].append(saved_call(row, "".join(texts.get(row.key, ()))))
        return found

    async def unchanged(self, jobs: Sequence[JobRow]) -> frozenset[int]:
        keys = [row.key for row in jobs]
        keys += keys[-1:] * (TOGETHER - len(keys))
        rows = await self._ask(
            select(job.c.key, job.c.state, job.c.finish, job.c.claim, job.c.updated_ms).where(
                job.c.key.in_(keys)
            )
        )
        seen = {tuple(row) for row in rows}
        return frozenset(
            row.key
            for row in jobs
            if (row.key, row.state, row.finish, row.claim, row.updated_ms) in seen
        )

    async def events(self, job_key: int) -> list[JobEvent]:
        submitted = await self._ask(select(job.c.created_ms).where(job.c.key == job_key))
        rows = await self._ask(
            select(job_event).where(job_event.c.job_key == job_key).order_by(job_event.c.key)
        )
        return [
            *(JobEvent(row.created_ms, None, 0) for row in submitted),
            *(
                JobEvent(row.at_ms, EventKind(row.kind), row.claim, row.worker_id, row.detail)
                for row in rows
            ),
        ]

    async def pieces(self, job_key: int, after_seq: int) -> list[TextPiece]:
        rows = await self._ask(
            select(call.c.number, call.c.resume_at, chunk.c.seq, chunk.c.text)
            .join(call, call.c.key == chunk.c.call_key)
            .where(chunk.c.job_key == job_key, chunk.c.seq > after_seq, call.c.superseded == 0)
            .order_by(chunk.c.seq)
        )
        return [TextPiece(row.number, row.resume_at, row.seq, row.text) for row in rows]
