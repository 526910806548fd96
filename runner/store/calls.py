"""Calls and their text: begun before the request, saved as it streams, ended with its usage.

Every write is fenced: it is taken only while the claim it was made under still holds the job.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Connection,
    Integer,
    Text,
    bindparam,
    exists,
    func,
    literal_column,
    select,
    update,
)

from runner.errors import ClaimLost, StoreError
from runner.jobs.call import CallOutcome, Verdict
from runner.jobs.price import Rates
from runner.jobs.spec import canonical_json
from runner.jobs.states import State
from runner.store import budget, pace, prefixes
from runner.store.bare import Sql
from runner.store.engine import driver, storable
from runner.store.events import note_broken_call
from runner.store.learned import learn
from runner.store.portable import larger
from runner.store.records import CallStart, Claim, Counted, Refusal
from runner.store.schema import batch, call, job, state_in, usage_columns

# The fence: conditions on `job` under which a claim still holds. Bound by `fence(claim)`.
# The worker's id is new for every process: a server that took over from one that failed, and
# never saw its last claims, gives their numbers out again.
HELD: Final = (
    job.c.key == bindparam("held_key"),
    job.c.claim == bindparam("held_claim"),
    job.c.worker_id == bindparam("held_by"),
    state_in([State.EXECUTING]),
)
HOLDS: Final = select(job.c.key).where(*HELD)

_RATES = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
_BEGUN = (
    "number",
    "strategy",
    "resume_at",
    "max_tokens",
    "model",
    "started_ms",
    "input_tokens",
    "usage_estimated",
    "prompt_tokens",
    "dropped_output_tokens",
    "reserved_nano_usd",
    "reserved_output_tokens",
    *(f"{kind}_price" for kind in _RATES),
)
BEGIN: Final = (
    call.insert()
    .from_select(
        ["job_key", "claim", *_BEGUN],
        select(
            job.c.key,
            job.c.claim,
            *(bindparam(f"call_{name}", type_=call.c[name].type) for name in _BEGUN),
        ).where(*HELD),
    )
    .returning(call.c.key)
)

# The checkpoint, the statement that runs most: the fence is its FROM and WHERE.
# On PostgreSQL it holds the row, so that a take-over waits for it, or it for the take-over.
SAVE: Final = Sql(
    """\
INSERT INTO chunk (job_key, call_key, seq, text)
SELECT key, ?3, ?4, ?5 FROM job
WHERE key = ?1 AND claim = ?2 AND worker_id = ?6 AND state = 'executing'
ON CONFLICT (job_key, seq) DO NOTHING
""",
    postgres="""\
INSERT INTO chunk (job_key, call_key, seq, text)
SELECT key, ?3, ?4, ?5 FROM job
WHERE key = ?1 AND claim = ?2 AND worker_id = ?6 AND state = 'executing' FOR SHARE
ON CONFLICT (job_key, seq) DO NOTHING
""",
)
SAVED: Final = """\
SELECT chunk.call_key = ?3 AND chunk.text = ?5 FROM job
JOIN chunk ON chunk.job_key = job.key AND chunk.seq = ?4
WHERE job.key = ?1 AND job.claim = ?2 AND job.worker_id = ?6 AND job.state = 'executing'
"""

# A call that has ended stays as it is, so that ending it again counts nothing twice.
END: Final = (
    update(call)
    .where(
        call.c.key == bindparam("call_key"),
        call.c.job_key == bindparam("of_job"),
        call.c.ended_ms.is_(None),
    )
    .values(
        {
            name: bindparam(f"call_{name}", type_=call.c[name].type)
            for name in (
                "ended_ms",
                "stop_reason",
                "stop_sequence",
                "stop_details",
                "request_id",
                "error",
                "rejected",
                "prompt_tokens",
                "lost_output_tokens",
                "cost_nano_usd",
                *(column.name for column in usage_columns(call)),
            )
        }
        # A verdict that was written while the call ran stays where its end knows of none.
        | {"verdict": func.coalesce(bindparam("call_verdict", type_=Text), call.c.verdict)}
        # The price it was begun with stays where its end knows of no other.
        | {
            name: func.coalesce(bindparam(f"call_{name}", type_=call.c[name].type), call.c[name])
            for name in (f"{kind}_price" for kind in _RATES)
        }
    )
    .returning(call.c.reserved_nano_usd, call.c.reserved_output_tokens)
)
# The seam is judged while the answer streams; a crash right after must not lose the verdict.
JUDGE: Final = (
    update(call)
    .where(call.c.key == bindparam("call_key"), call.c.ended_ms.is_(None), exists(HOLDS))
    .values(verdict=bindparam("call_verdict", type_=Text))
)
# Beside the first checkpoint of a call: what its books begin with, should its process die.
COUNT: Final = """\
UPDATE call SET input_tokens = ?, cache_creation_input_tokens = ?,
  cache_creation_1h_input_tokens = ?, cache_read_input_tokens = ?, output_tokens = ?,
  lost_output_tokens = ?, input_price = coalesce(?, input_price),
  output_price = coalesce(?, output_price),
  cache_write_5m_price = coalesce(?, cache_write_5m_price),
  cache_write_1h_price = coalesce(?, cache_write_1h_price),
  cache_read_price = coalesce(?, cache_read_price)
WHERE key = ? AND ended_ms IS NULL AND EXISTS (
  SELECT 1 FROM job WHERE key = ? AND claim = ? AND worker_id = ? AND state = 'executing')
"""
ADD_USAGE: Final = (
    update(batch)
    .where(batch.c.key == bindparam("of_batch"))
    .values(
        calls=batch.c.calls + literal_column("1"),
        cost_nano_usd=batch.c.cost_nano_usd + bindparam("cost"),
        unpriced_calls=batch.c.unpriced_calls + bindparam("unpriced"),
        spent_output_tokens=batch.c.spent_output_tokens + bindparam("call_output_tokens"),
        reserved_nano_usd=batch.c.reserved_nano_usd - bindparam("released_nano_usd"),
        reserved_output_tokens=batch.c.reserved_output_tokens - bindparam("released_output"),
        usage_estimated=larger(
            batch.c.usage_estimated, bindparam("call_usage_estimated", type_=Integer)
        ),
        **{
            column.name: column + bindparam(f"call_{column.name}")
            for column in usage_columns(batch)
            if column.name != "usage_estimated"
        },
    )
)


def lost(claim: Claim) -> ClaimLost:
    return ClaimLost(
        f"worker {claim.worker_id} no longer holds job '{claim.job_id}' (claim {claim.number})."
    )


def fence(claim: Claim) -> dict[str, object]:
    """The parameters of `HELD`."""
    return {
        "held_key": claim.job_key,
        "held_claim": claim.number,
        "held_by": claim.worker_id,
    }


def begin(connection: Connection, claim: Claim, start: CallStart, now_ms: int) -> int | Refusal:
    """Write down a call that is about to be sent, with what is set aside for it; its key.

    A refusal is no error: it has been written, too.
    """
    if connection.execute(HOLDS, fence(claim)).first() is None:
        raise lost(claim)
    if start.limit_key is not None:
        pace.check(connection, start.limit_key, now_ms)
    if refused := budget.reserve(connection, claim, start):
        return refused
    rates = start.rates
    rows = connection.execute(
        BEGIN,
        {
            **fence(claim),
            "call_input_tokens": start.input_tokens,
            "call_usage_estimated": 1,
            "call_prompt_tokens": start.prompt_tokens,
            "call_dropped_output_tokens": start.dropped_output_tokens,
            "call_reserved_nano_usd": 0 if rates is None else start.reservation.nano_usd,
            "call_reserved_output_tokens": start.reservation.output_tokens,
            **_price_values(rates),
            "call_number": start.number,
            "call_strategy": start.strategy,
            "call_resume_at": start.resume_at,
            "call_max_tokens": start.max_tokens,
            "call_model": start.model,
            "call_started_ms": now_ms,
        },
    ).all()
    if start.limit_key is not None and start.probe_ms:
        pace.probe(connection, start.limit_key, start.probe_ms, now_ms)
    prefixes.begun(connection, claim.batch_key, start.beginnings)
    return int(rows[0].key)


def save(connection: Connection, claim: Claim, call_key: int, seq: int, text: str) -> None:
    """Append a chunk. The same chunk again is no change: an answer may have been lost."""
    values = (claim.job_key, claim.number, call_key, seq, storable(text), claim.worker_id)
    sql = driver(connection)
    if sql.execute(SAVE, values).rowcount == 1:
        return
    present = sql.execute(SAVED, values).fetchone()
    if present is None:
        raise lost(claim)
    if not present[0]:
        raise StoreError(f"job '{claim.job_id}' saved two different texts under number {seq}.")


def judge(connection: Connection, claim: Claim, call_key: int, verdict: Verdict) -> None:
    """Write down what was found of the open call's seam."""
    values = {**fence(claim), "call_key": call_key, "call_verdict": verdict}
    if connection.execute(JUDGE, values).rowcount == 0:
        raise lost(claim)


def count(connection: Connection, claim: Claim, call_key: int, counted: Counted) -> None:
    """Write down how the open call is billed so far."""
    usage = counted.usage
    values = (
        usage.input_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_creation_1h_input_tokens,
        usage.cache_read_input_tokens,
        usage.output_tokens,
        counted.lost_output_tokens,
        *_prices(counted.rates),
        call_key,
        claim.job_key,
        claim.number,
        claim.worker_id,
    )
    if driver(connection).execute(COUNT, values).rowcount == 0:
        raise lost(claim)


def _price_values(rates: Rates | None) -> dict[str, object]:
    names = (f"call_{kind}_price" for kind in _RATES)
    return dict(zip(names, _prices(rates), strict=True))


def _prices(rates: Rates | None) -> tuple[int | None, ...]:
    return tuple(None if rates is None else getattr(rates, kind) for kind in _RATES)


def end(
    connection: Connection, claim: Claim, call_key: int, outcome: CallOutcome, now_ms: int
) -> None:
    """Write down what came of a call."""
    if connection.execute(HOLDS, fence(claim)).first() is None:
        raise lost(claim)
    close(connection, claim.batch_key, claim.job_key, call_key, outcome, now_ms)


def close(
    connection: Connection,
    batch_key: int,
    job_key: int,
    call_key: int,
    outcome: CallOutcome,
    now_ms: int,
) -> None:
    """The same, where the fence was passed already."""
    usage, details, charge = outcome.usage, outcome.stop_details, outcome.charge
    values: dict[str, object] = {
        "call_key": call_key,
        "of_job": job_key,
        "of_batch": batch_key,
        "call_ended_ms": now_ms,
        "call_stop_reason": outcome.stop_reason and storable(outcome.stop_reason),
        "call_stop_sequence": outcome.stop_sequence and storable(outcome.stop_sequence),
        "call_stop_details": None if details is None else storable(canonical_json(details)),
        "call_request_id": outcome.request_id and storable(outcome.request_id),
        "call_error": outcome.error and storable(outcome.error),
        "call_rejected": outcome.rejected and storable(outcome.rejected),
        "call_verdict": outcome.verdict,
        "call_input_tokens": usage.input_tokens,
        "call_cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "call_cache_read_input_tokens": usage.cache_read_input_tokens,
        "call_output_tokens": usage.output_tokens,
        "call_cache_creation_1h_input_tokens": usage.cache_creation_1h_input_tokens,
        "call_usage_estimated": int(usage.estimated),
        "call_prompt_tokens": charge.prompt_tokens,
        "call_lost_output_tokens": charge.lost_output_tokens,
        "call_cost_nano_usd": charge.cost_nano_usd,
        **_price_values(charge.rates),
        "cost": charge.cost_nano_usd or 0,
        "unpriced": int(charge.cost_nano_usd is None),
    }
    for reserved in connection.execute(END, values).all():
        values["released_nano_usd"], values["released_output"] = reserved
        connection.execute(ADD_USAGE, values)
        learn(connection, batch_key, call_key, outcome)
        if outcome.stop_reason is None:
            note_broken_call(connection, call_key, now_ms, outcome.error)
