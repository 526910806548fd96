"""Calls and their text: begun before the request, saved as it streams, ended with its usage.

Every write is fenced: it is taken only while the claim it was made under still holds the job.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, Row, func, literal, literal_column, select, update

from runner.errors import ClaimLost, StoreError
from runner.jobs.call import CallOutcome, Usage, estimate_tokens
from runner.jobs.spec import canonical_json
from runner.jobs.states import State
from runner.store.engine import driver, storable
from runner.store.records import CallStart, Claim
from runner.store.schema import batch, call, chunk, job, state_in

# The checkpoint, the statement that runs most: the fence is its FROM and WHERE.
SAVE: Final = """\
INSERT INTO chunk (job_key, call_key, seq, text)
SELECT key, ?3, ?4, ?5 FROM job
WHERE key = ?1 AND claim = ?2 AND state = 'executing'
ON CONFLICT (job_key, seq) DO NOTHING
"""
SAVED: Final = """\
SELECT chunk.call_key = ?3 AND chunk.text = ?5 FROM job
JOIN chunk ON chunk.job_key = job.key AND chunk.seq = ?4
WHERE job.key = ?1 AND job.claim = ?2 AND job.state = 'executing'
"""


def lost(claim: Claim) -> ClaimLost:
    return ClaimLost(
        f"worker {claim.worker_id} no longer holds job '{claim.job_id}' (claim {claim.number})."
    )


def held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The fence, as conditions on `job`: the claim still holds."""
    return (
        job.c.key == claim.job_key,
        job.c.claim == claim.number,
        state_in([State.EXECUTING]),
    )


def holds(connection: Connection, claim: Claim) -> bool:
    return connection.execute(select(job.c.key).where(*held(claim))).first() is not None


def begin(connection: Connection, claim: Claim, start: CallStart, now_ms: int) -> int:
    """Write down a call that is about to be sent; its key."""
    values = {
        "job_key": job.c.key,
        "number": literal(start.number),
        "claim": job.c.claim,
        "strategy": literal(start.strategy),
        "resume_at": literal(start.resume_at),
        "max_tokens": literal(start.max_tokens),
        "model": literal(start.model),
        "verdict": literal(start.verdict),
        "started_ms": literal(now_ms),
    }
    fenced = select(*values.values()).where(*held(claim))
    row = connection.execute(
        call.insert().from_select(list(values), fenced).returning(call.c.key)
    ).all()
    if not row:
        raise lost(claim)
    return int(row[0].key)


def save(connection: Connection, claim: Claim, call_key: int, seq: int, text: str) -> None:
    """Append a chunk. The same chunk again is no change: an answer may have been lost."""
    values = (claim.job_key, claim.number, call_key, seq, storable(text))
    cursor = driver(connection)
    if cursor.execute(SAVE, values).rowcount == 1:
        return
    present = cursor.execute(SAVED, values).fetchone()
    if present is None:
        raise lost(claim)
    if not present[0]:
        raise StoreError(f"job '{claim.job_id}' saved two different texts under number {seq}.")


def end(
    connection: Connection, claim: Claim, call_key: int, outcome: CallOutcome, now_ms: int
) -> None:
    """Write down what came of a call."""
    if not holds(connection, claim):
        raise lost(claim)
    close(connection, claim, call_key, outcome, now_ms)


def close(
    connection: Connection, claim: Claim, call_key: int, outcome: CallOutcome, now_ms: int
) -> None:
    """The same, where the fence was passed already. Ending a call twice is no change."""
    _end_open(connection, claim.batch_key, claim.job_key, call_key, outcome, now_ms)


def break_open_call(
    connection: Connection, batch_key: int, job_key: int, now_ms: int, error: str
) -> None:
    """End the job's call that is still open as a broken one; no change where none is.

    Nobody counted its tokens: the output is estimated from the text it gave.
    """
    open_call = connection.execute(
        select(call.c.key).where(call.c.job_key == job_key, call.c.ended_ms.is_(None))
    ).all()
    for (call_key,) in open_call:
        characters = connection.execute(
            select(func.coalesce(func.sum(func.length(chunk.c.text)), 0)).where(
                chunk.c.job_key == job_key, chunk.c.call_key == call_key
            )
        ).scalar_one()
        usage = Usage(output_tokens=estimate_tokens(characters), estimated=True)
        outcome = CallOutcome(stop_reason=None, usage=usage, error=error)
        _end_open(connection, batch_key, job_key, call_key, outcome, now_ms)


def _end_open(
    connection: Connection,
    batch_key: int,
    job_key: int,
    call_key: int,
    outcome: CallOutcome,
    now_ms: int,
) -> None:
    usage = outcome.usage
    details = outcome.stop_details
    ended = connection.execute(
        update(call)
        .where(call.c.key == call_key, call.c.job_key == job_key, call.c.ended_ms.is_(None))
        .values(
            ended_ms=now_ms,
            stop_reason=outcome.stop_reason and storable(outcome.stop_reason),
            stop_sequence=outcome.stop_sequence and storable(outcome.stop_sequence),
            stop_details=None if details is None else storable(canonical_json(details)),
            request_id=outcome.request_id and storable(outcome.request_id),
            error=outcome.error and storable(outcome.error),
            input_tokens=usage.input_tokens,
            cache_creation_input_tokens=usage.cache_creation_input_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            output_tokens=usage.output_tokens,
            usage_estimated=int(usage.estimated),
        )
    )
    if ended.rowcount == 0:
        return
    totals = batch.c
    connection.execute(
        update(batch)
        .where(batch.c.key == batch_key)
        .values(
            calls=totals.calls + literal_column("1"),
            input_tokens=totals.input_tokens + usage.input_tokens,
            cache_creation_input_tokens=totals.cache_creation_input_tokens
            + usage.cache_creation_input_tokens,
            cache_read_input_tokens=totals.cache_read_input_tokens + usage.cache_read_input_tokens,
            output_tokens=totals.output_tokens + usage.output_tokens,
            usage_estimated=func.max(totals.usage_estimated, int(usage.estimated)),
        )
    )


def usage_of(row: Row[tuple[object, ...]]) -> Usage:
    """The usage columns of a row of `call` or `batch`."""
    values = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for the row as a mapping
    return Usage(
        input_tokens=values["input_tokens"],
        cache_creation_input_tokens=values["cache_creation_input_tokens"],
        cache_read_input_tokens=values["cache_read_input_tokens"],
        output_tokens=values["output_tokens"],
        estimated=bool(values["usage_estimated"]),
    )
