"""Calls and their text: begun before the request, saved as it streams, ended with its usage.

Every write is fenced: it is taken only while the claim it was made under still holds the job.
"""

from __future__ import annotations

from collections.abc import Sequence
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

from runner.errors import ClaimLost, RunnerError, StoreError
from runner.jobs.call import CallOutcome, Verdict
from runner.jobs.price import Rates
from runner.jobs.spec import canonical_json
from runner.jobs.states import State
from runner.store import budget, pace, prefixes
from runner.store.bare import quick
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

RATES: Final = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
BEGUN: Final = (
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
    *(f"{kind}_price" for kind in RATES),
)
BEGIN: Final = (
    call.insert()
    .from_select(
        ["job_key", "claim", *BEGUN],
        select(
            job.c.key,
            job.c.claim,
            *(bindparam(f"call_{name}", type_=call.c[name].type) for name in BEGUN),
        ).where(*HELD),
    )
    .returning(call.c.key)
)

# The checkpoint, the statement that runs most: the fence is its FROM and WHERE.
SAVE: Final = """\
INSERT INTO chunk (job_key, call_key, seq, text)
SELECT key, ?3, ?4, ?5 FROM job
WHERE key = ?1 AND claim = ?2 AND worker_id = ?6 AND state = 'executing'
ON CONFLICT (job_key, seq) DO NOTHING
"""
SAVED: Final = """\
SELECT chunk.call_key = ?3 AND chunk.text = ?5 FROM job
JOIN chunk ON chunk.job_key = job.key AND chunk.seq = ?4
WHERE job.key = ?1 AND job.claim = ?2 AND job.worker_id = ?6 AND job.state = 'executing'
"""

ENDED: Final = (
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
# A call that has ended stays as it is, so that ending it again counts nothing twice.
END: Final = (
    update(call)
    .where(
        call.c.key == bindparam("call_key"),
        call.c.job_key == bindparam("of_job"),
        call.c.ended_ms.is_(None),
    )
    .values(
        {name: bindparam(f"call_{name}", type_=call.c[name].type) for name in ENDED}
        # A verdict that was written while the call ran stays where its end knows of none.
        | {"verdict": func.coalesce(bindparam("call_verdict", type_=Text), call.c.verdict)}
        # The price it was begun with stays where its end knows of no other.
        | {
            name: func.coalesce(bindparam(f"call_{name}", type_=call.c[name].type), call.c[name])
            for name in (f"{kind}_price" for kind in RATES)
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
    if not quick(connection, HOLDS, fence(claim))[0]:
        raise lost(claim)
    if start.limit_key is not None:
        pace.check(connection, start.limit_key, now_ms)
    if refused := budget.reserve(connection, claim, start):
        return refused
    values = _bound(begun_values(start, now_ms))
    ((key,),), _ = quick(connection, BEGIN, {**fence(claim), **values})
    if start.limit_key is not None and start.probe_ms:
        pace.probe(connection, start.limit_key, start.probe_ms, now_ms)
    prefixes.begun(connection, claim.batch_key, start.beginnings)
    return int(key)


def begun_values(start: CallStart, now_ms: int) -> dict[str, object]:
    """What the row of a call begins with, by column."""
    return {
        "number": start.number,
        "strategy": start.strategy,
        "resume_at": start.resume_at,
        "max_tokens": start.max_tokens,
        "model": start.model,
        "started_ms": now_ms,
        "input_tokens": start.input_tokens,
        "usage_estimated": 1,
        "prompt_tokens": start.prompt_tokens,
        "dropped_output_tokens": start.dropped_output_tokens,
        "reserved_nano_usd": 0 if start.rates is None else start.reservation.nano_usd,
        "reserved_output_tokens": start.reservation.output_tokens,
        **_prices_by_column(start.rates),
    }


def save(connection: Connection, claim: Claim, call_key: int, seq: int, text: str) -> None:
    """Append a chunk. The same chunk again is no change: an answer may have been lost."""
    values = (claim.job_key, claim.number, call_key, seq, storable(text), claim.worker_id)
    sql = driver(connection)
    if sql.execute(SAVE, values).rowcount == 1:
        return
    refuse_other_text(connection, claim, call_key, seq, text)


def save_all(
    connection: Connection, saves: Sequence[tuple[Claim, int, int, str]]
) -> list[tuple[None, RunnerError | None]]:
    """Append chunks, on SQLite, each as `save` does: claim, key of the call, number, text."""
    rows = [
        (claim.job_key, claim.number, call_key, seq, storable(text), claim.worker_id)
        for claim, call_key, seq, text in saves
    ]
    if driver(connection).executemany(SAVE, rows).rowcount == len(rows):
        return [(None, None)] * len(rows)
    answers: list[tuple[None, RunnerError | None]] = []
    for one in saves:
        try:
            # What was appended just now is there as it is; what was not is found out.
            refuse_other_text(connection, *one)
        except RunnerError as refused:
            answers.append((None, refused))
        else:
            answers.append((None, None))
    return answers


def refuse_other_text(
    connection: Connection, claim: Claim, call_key: int, seq: int, text: str
) -> None:
    """Take a chunk that is there already, as it is."""
    values = (claim.job_key, claim.number, call_key, seq, storable(text), claim.worker_id)
    present = driver(connection).execute(SAVED, values).fetchone()
    if present is None:
        raise lost(claim)
    if not present[0]:
        raise StoreError(f"job '{claim.job_id}' saved two different texts under number {seq}.")


def judge(connection: Connection, claim: Claim, call_key: int, verdict: Verdict) -> None:
    """Write down what was found of the open call's seam."""
    values = {**fence(claim), "call_key": call_key, "call_verdict": verdict}
    if quick(connection, JUDGE, values)[1] == 0:
        raise lost(claim)


def count(connection: Connection, claim: Claim, call_key: int, counted: Counted) -> None:
    """Write down how the open call is billed so far."""
    values = (
        *counted_values(counted),
        call_key,
        claim.job_key,
        claim.number,
        claim.worker_id,
    )
    if driver(connection).execute(COUNT, values).rowcount == 0:
        raise lost(claim)


def counted_values(counted: Counted) -> tuple[int | None, ...]:
    """What `COUNT` writes, in its order."""
    usage = counted.usage
    return (
        usage.input_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_creation_1h_input_tokens,
        usage.cache_read_input_tokens,
        usage.output_tokens,
        counted.lost_output_tokens,
        *_prices(counted.rates),
    )


def _bound(columns: dict[str, object]) -> dict[str, object]:
    return {f"call_{name}": value for name, value in columns.items()}


def _prices_by_column(rates: Rates | None) -> dict[str, object]:
    names = (f"{kind}_price" for kind in RATES)
    return dict(zip(names, _prices(rates), strict=True))


def _prices(rates: Rates | None) -> tuple[int | None, ...]:
    return tuple(None if rates is None else getattr(rates, kind) for kind in RATES)


def end(
    connection: Connection, claim: Claim, call_key: int, outcome: CallOutcome, now_ms: int
) -> None:
    """Write down what came of a call."""
    if not quick(connection, HOLDS, fence(claim))[0]:
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
    charge = outcome.charge
    values: dict[str, object] = {
        "call_key": call_key,
        "of_job": job_key,
        "of_batch": batch_key,
        "cost": charge.cost_nano_usd or 0,
        "unpriced": int(charge.cost_nano_usd is None),
        **_bound(ended_values(outcome, now_ms)),
    }
    for reserved in quick(connection, END, values)[0]:
        values["released_nano_usd"], values["released_output"] = reserved
        quick(connection, ADD_USAGE, values)
        learn(connection, batch_key, call_key, outcome)
        if outcome.stop_reason is None:
            note_broken_call(connection, call_key, now_ms, outcome.error)


def usage_added(outcome: CallOutcome) -> dict[str, int]:
    """What the end of a call adds to the sums of its batch, by column."""
    usage, cost_nano_usd = outcome.usage, outcome.charge.cost_nano_usd
    return {
        "calls": 1,
        "cost_nano_usd": cost_nano_usd or 0,
        "unpriced_calls": int(cost_nano_usd is None),
        "spent_output_tokens": usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_1h_input_tokens": usage.cache_creation_1h_input_tokens,
    }


def ended_values(outcome: CallOutcome, now_ms: int) -> dict[str, object]:
    """What the end of a call writes into its row, by column."""
    usage, details, charge = outcome.usage, outcome.stop_details, outcome.charge
    return {
        "ended_ms": now_ms,
        "stop_reason": outcome.stop_reason and storable(outcome.stop_reason),
        "stop_sequence": outcome.stop_sequence and storable(outcome.stop_sequence),
        "stop_details": None if details is None else storable(canonical_json(details)),
        "request_id": outcome.request_id and storable(outcome.request_id),
        "error": outcome.error and storable(outcome.error),
        "rejected": outcome.rejected and storable(outcome.rejected),
        "verdict": outcome.verdict,
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_1h_input_tokens": usage.cache_creation_1h_input_tokens,
        "usage_estimated": int(usage.estimated),
        "prompt_tokens": charge.prompt_tokens,
        "lost_output_tokens": charge.lost_output_tokens,
        "cost_nano_usd": charge.cost_nano_usd,
        **_prices_by_column(charge.rates),
    }
