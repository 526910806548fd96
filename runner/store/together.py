"""Many operations of one kind in a few statements, on PostgreSQL.

A server answers a statement in the time that SQLite does twenty, so what a group commit brings
together goes there together: each value of all operations as one array. What every operation comes
to is the same as if they had been applied one by one, which is how SQLite has them; the tests of
the store hold the two together.

In each statement `key = ANY($1)` stands beside the join: so the rows are found by their keys
whatever the server believes of its tables.
"""

# ruff: noqa: S608  every name in these statements is the program's own
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Connection, Integer

from runner.errors import RunnerError
from runner.jobs.call import CallOutcome, Verdict
from runner.jobs.states import State
from runner.store import budget, calls, control, pace, prefixes, settle
from runner.store.broken import break_open_call
from runner.store.engine import driver, storable
from runner.store.events import note_broken_call
from runner.store.learned import LAST_NUMBER, learnt_values
from runner.store.records import CallStart, Claim, Counted, Settlement
from runner.store.schema import batch, call, job, usage_columns

# What an operation gave, or why it was refused.
Answer = tuple[Any, RunnerError | None]

_CLAIMS: Final = {"key": "bigint", "claim": "bigint", "worker_id": "text"}
_FENCE: Final = (
    "job.claim = given.claim AND job.worker_id = given.worker_id AND job.state = 'executing'"
)


def _type(column: Column[Any]) -> str:
    if isinstance(column.type, BigInteger):
        return "bigint"
    return "integer" if isinstance(column.type, Integer) else "text"


def _given(columns: Mapping[str, str]) -> str:
    """The operations as rows: an array for each column, and the place of each."""
    arrays = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(columns.values(), 1))
    return f"unnest({arrays}) WITH ORDINALITY AS given({', '.join(columns)}, at)"


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(values) for values in zip(*rows, strict=True)]


def _claim(claim: Claim) -> tuple[int, int, str]:
    return claim.job_key, claim.number, claim.worker_id


# saving


_SAVED_COLUMNS: Final = {**_CLAIMS, "call_key": "bigint", "seq": "integer", "text": "text"}
# The rows of the jobs are held, so that a take-over waits for it, or it for the take-over; in the
# order of their keys, so that two do not wait for each other.
SAVE_ALL: Final = f"""\
WITH given AS MATERIALIZED (SELECT * FROM {_given(_SAVED_COLUMNS)}),
held AS MATERIALIZED (
  SELECT key, claim, worker_id, state FROM job WHERE key = ANY($1) ORDER BY key FOR SHARE)
INSERT INTO chunk (job_key, call_key, seq, text)
SELECT given.key, given.call_key, given.seq, given.text
FROM given JOIN held AS job ON job.key = given.key AND {_FENCE}
ORDER BY given.at
ON CONFLICT (job_key, seq) DO NOTHING
RETURNING job_key, seq, call_key
"""


def save(connection: Connection, saves: Sequence[tuple[Claim, int, int, str]]) -> list[Answer]:
    """Append chunks: claim, key of the call, number, text; those of one job under one claim."""
    rows = [(*_claim(claim), key, seq, storable(text)) for claim, key, seq, text in saves]
    inserted = Counter(map(tuple, _fetch(connection, SAVE_ALL, rows)))
    answers: list[Answer] = []
    for one in saves:
        claim, call_key, seq, _ = one
        # By its call, too: who lost the job may save beside its new owner, under the same number.
        if inserted[claim.job_key, seq, call_key]:
            inserted[claim.job_key, seq, call_key] -= 1
            answers.append((None, None))
        else:
            answers.append(_alone(connection, calls.refuse_other_text, *one))
    return answers


# what is known of an open call


_JUDGED_COLUMNS: Final = {**_CLAIMS, "call_key": "bigint", "verdict": "text"}
_HELD: Final = (
    "SELECT key, claim, worker_id, state FROM job WHERE key = ANY($1) ORDER BY key FOR SHARE"
)
JUDGE_ALL: Final = f"""\
WITH given AS MATERIALIZED (SELECT * FROM {_given(_JUDGED_COLUMNS)}),
held AS MATERIALIZED ({_HELD})
UPDATE call SET verdict = given.verdict
FROM given JOIN held AS job ON job.key = given.key AND {_FENCE}
WHERE call.key = given.call_key AND call.key = ANY($4) AND call.ended_ms IS NULL
RETURNING call.key
"""
_COUNTS: Final = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_1h_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "lost_output_tokens",
)
_PRICES: Final = tuple(f"{kind}_price" for kind in calls.RATES)
_COUNTED_COLUMNS: Final = {
    **_CLAIMS,
    "call_key": "bigint",
    **dict.fromkeys((*_COUNTS, *_PRICES), "bigint"),
}
COUNT_ALL: Final = f"""\
WITH given AS MATERIALIZED (SELECT * FROM {_given(_COUNTED_COLUMNS)}),
held AS MATERIALIZED ({_HELD})
UPDATE call SET {", ".join(f"{name} = given.{name}" for name in _COUNTS)},
  {", ".join(f"{name} = coalesce(given.{name}, call.{name})" for name in _PRICES)}
FROM given JOIN held AS job ON job.key = given.key AND {_FENCE}
WHERE call.key = given.call_key AND call.key = ANY($4) AND call.ended_ms IS NULL
RETURNING call.key
"""


def judge(connection: Connection, judgements: Sequence[tuple[Claim, int, Verdict]]) -> list[Answer]:
    """Write down what was found of open calls' seams: claim, key of the call, verdict."""
    rows = [(*_claim(claim), key, verdict.value) for claim, key, verdict in judgements]
    return _or_lost(_fetch(connection, JUDGE_ALL, rows), judgements)


def count(connection: Connection, counts: Sequence[tuple[Claim, int, Counted]]) -> list[Answer]:
    """Write down how open calls are billed so far: claim, key of the call, what was counted."""
    rows = [(*_claim(claim), key, *calls.counted_values(counted)) for claim, key, counted in counts]
    return _or_lost(_fetch(connection, COUNT_ALL, rows), counts)


def _or_lost(written: Sequence[Any], asked: Sequence[tuple[Claim, int, Any]]) -> list[Answer]:
    keys = {row[0] for row in written}
    return [(None, None if key in keys else calls.lost(claim)) for claim, key, _ in asked]


# beginning


_ASKING_COLUMNS: Final = {**_CLAIMS, "limit_key": "text"}
# Which claims hold, and of these, whose limit rests.
MAY_BEGIN: Final = f"""\
SELECT given.at, pace.cooled_until_ms, pace.cause FROM {_given(_ASKING_COLUMNS)}
JOIN job ON job.key = given.key AND {_FENCE}
LEFT JOIN pace ON pace.limit_key = given.limit_key AND pace.cooled_until_ms > $5
  AND pace.updated_ms <= $5 + {pace.SET_BACK_MS}
WHERE job.key = ANY($1)
"""
_BEGUN_COLUMNS: Final = {**_CLAIMS, **{name: _type(call.c[name]) for name in calls.BEGUN}}
BEGIN_ALL: Final = f"""\
INSERT INTO call (job_key, claim, {", ".join(calls.BEGUN)})
SELECT given.key, given.claim, {", ".join(f"given.{name}" for name in calls.BEGUN)}
FROM {_given(_BEGUN_COLUMNS)} JOIN job ON job.key = given.key AND {_FENCE}
WHERE job.key = ANY($1) ORDER BY given.at
RETURNING job_key, key
"""


def begin(connection: Connection, starts: Sequence[tuple[Claim, CallStart, int]]) -> list[Answer]:
    """Write down calls that are about to be sent: claim, what is known of the call, the time."""
    if any(start.limit_key is not None and start.probe_ms for _, start, _ in starts):
        # One that tries a server holds up those behind it.
        return [_alone(connection, calls.begin, *one) for one in starts]
    answers: list[Answer] = [(None, calls.lost(claim)) for claim, _, _ in starts]
    now_ms = max(at_ms for _, _, at_ms in starts)
    asking = [(*_claim(claim), start.limit_key) for claim, start, _ in starts]
    wanting: dict[int, list[int]] = defaultdict(list)
    for place, cooled_until_ms, cause in sorted(_fetch(connection, MAY_BEGIN, asking, now_ms)):
        claim, start, _ = starts[place - 1]
        if cooled_until_ms is None:
            wanting[claim.batch_key].append(place - 1)
        else:
            answers[place - 1] = None, pace.resting(cooled_until_ms, cause, now_ms)
    going: list[int] = []
    for places in wanting.values():
        asked = [starts[place][:2] for place in places]
        refusals = budget.reserve_all(connection, asked)
        for place, refused in zip(places, refusals, strict=True):
            answers[place] = refused, None
            if refused is None:
                going.append(place)
    if not going:
        return answers
    rows = []
    for place in sorted(going):
        claim, start, at_ms = starts[place]
        values = calls.begun_values(start, at_ms)
        rows.append((*_claim(claim), *(values[name] for name in calls.BEGUN)))
    keys = dict(map(tuple, _fetch(connection, BEGIN_ALL, rows)))
    for place in going:
        answers[place] = keys[starts[place][0].job_key], None
    begun = (
        (starts[place][0].batch_key, one) for place in going for one in starts[place][1].beginnings
    )
    prefixes.all_begun(driver(connection), Counter(begun))
    return answers


# ending and settling


_KEPT_FROM_BEFORE: Final = ("verdict", *_PRICES)  # where the end of a call knows of none
_ENDED_COLUMNS: Final = {
    "key": "bigint",
    "job_key": "bigint",
    **{name: _type(call.c[name]) for name in (*calls.ENDED, *_KEPT_FROM_BEFORE)},
}
# A call that has ended stays as it is, so that ending it again counts nothing twice.
END_ALL: Final = f"""\
UPDATE call SET {", ".join(f"{name} = given.{name}" for name in calls.ENDED)},
  {", ".join(f"{name} = coalesce(given.{name}, call.{name})" for name in _KEPT_FROM_BEFORE)}
FROM {_given(_ENDED_COLUMNS)}
WHERE call.key = given.key AND call.key = ANY($1) AND call.job_key = given.job_key
  AND call.ended_ms IS NULL
RETURNING given.at, call.reserved_nano_usd, call.reserved_output_tokens
"""
_SUMS: Final = tuple(c.name for c in usage_columns(batch) if c.name != "usage_estimated")
_ADDED: Final = (
    "calls", "cost_nano_usd", "unpriced_calls", "spent_output_tokens", *_SUMS,
)  # fmt: skip
_RELEASED: Final = ("reserved_nano_usd", "reserved_output_tokens")
ADD_USAGE_ALL: Final = f"""\
UPDATE batch SET
  {", ".join(f"{name} = batch.{name} + ${n}" for n, name in enumerate(_ADDED, 3))},
  {", ".join(f"{name} = batch.{name} - ${n}" for n, name in enumerate(_RELEASED, 3 + len(_ADDED)))},
  usage_estimated = greatest(batch.usage_estimated, $2)
WHERE batch.key = $1
"""
_LEARNT_COLUMNS: Final = {
    "batch_key": "bigint",
    "key": "bigint",
    **dict.fromkeys(
        ("cut", "input_characters", "input_tokens", "output_characters", "output_tokens",
         "thinking_tokens"),
        "bigint",
    ),
}  # fmt: skip
_LEARNT_SUMS: Final = ("calls", "cut_calls", "input_characters", "input_tokens", "output_characters",
                       "output_tokens", "thinking_tokens", "stream_ms")  # fmt: skip
LEARN_ALL: Final = f"""\
INSERT INTO learned (batch_key, model, number, calls, cut_calls, input_characters, input_tokens,
  output_characters, output_tokens, thinking_tokens, most_output_tokens, stream_ms)
SELECT given.batch_key, call.model, least(call.number, {LAST_NUMBER}), count(*), sum(given.cut),
  sum(given.input_characters), sum(given.input_tokens), sum(given.output_characters),
  sum(given.output_tokens), sum(given.thinking_tokens), max(given.output_tokens),
  sum(greatest(0, call.ended_ms - call.started_ms))
FROM {_given(_LEARNT_COLUMNS)} JOIN call ON call.key = given.key
WHERE call.key = ANY($2) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (batch_key, model, number) DO UPDATE SET
  {", ".join(f"{name} = learned.{name} + excluded.{name}" for name in _LEARNT_SUMS)},
  most_output_tokens = greatest(learned.most_output_tokens, excluded.most_output_tokens)
"""

HOLD_ALL: Final = f"""\
SELECT given.at FROM {_given(_CLAIMS)} JOIN job ON job.key = given.key AND {_FENCE}
WHERE job.key = ANY($1)
"""
_SETTLED_COLUMNS: Final = {
    **_CLAIMS,
    "state": "text",
    "kept_attempts": "integer",
    "new_attempts": "integer",
    **{name: _type(job.c[name]) for name in settle.RESULT},
}
_EVENT_COLUMNS: Final = {
    "key": "bigint",
    "at_ms": "bigint",
    "kind": "text",
    "claim": "bigint",
    "detail": "text",
}
SETTLE_ALL: Final = f"""\
UPDATE job SET state = given.state, worker_id = NULL,
  attempt = job.attempt * given.kept_attempts + given.new_attempts,
  {", ".join(f"{name} = given.{name}" for name in settle.RESULT)}
FROM {_given(_SETTLED_COLUMNS)}
WHERE job.key = given.key AND job.key = ANY($1) AND {_FENCE}
RETURNING given.at
"""
NOTE_ALL: Final = f"""\
INSERT INTO job_event (job_key, at_ms, kind, claim, detail)
SELECT key, at_ms, kind, claim, detail FROM {_given(_EVENT_COLUMNS)} ORDER BY at
"""
OPEN_CALLS: Final = (
    "SELECT job_key FROM call WHERE job_key = ANY($1::bigint[]) AND ended_ms IS NULL"
)
Ended = tuple[Claim, int, CallOutcome, int]  # claim, key of the call, what came of it, the time


def settle_all(
    connection: Connection,
    settlements: Sequence[tuple[Claim, Settlement, int, tuple[int, CallOutcome] | None]],
) -> list[Answer]:
    """Give jobs back: claim, how, the time, key and outcome of a call that ends in the moment."""
    rows = []
    for claim, settlement, now_ms, _ in settlements:
        rows.append(
            (
                *_claim(claim),
                settlement.state,
                int(not settlement.reset_attempt),
                int(settlement.state is State.RETRYABLE),
                *settle.result(settlement, now_ms),
            )
        )
    answers: list[Answer] = [(None, calls.lost(claim)) for claim, *_ in settlements]
    done = sorted(place - 1 for (place,) in _fetch(connection, SETTLE_ALL, rows))
    ending: list[Ended] = []
    perhaps_open: dict[int, tuple[Claim, Settlement, int]] = {}
    ends: dict[int, list[tuple[str, str | None]]] = defaultdict(list)
    events = []
    for place in done:
        answers[place] = None, None
        claim, settlement, now_ms, ended = settlements[place]
        perhaps_open[claim.job_key] = claim, settlement, now_ms
        kind, number, _, detail = settle.told(settlement, claim)
        events.append((claim.job_key, now_ms, kind, number, detail and storable(detail)))
        if ended is not None:
            ending.append((claim, *ended, now_ms))
        if settlement.state.final:
            ends[claim.batch_key].append((claim.job_id, settle.failure(settlement)))
    for claim in close_all(connection, ending):
        del perhaps_open[claim.job_key]  # no job has two open calls
    if perhaps_open:
        open_calls = driver(connection).execute(OPEN_CALLS, (list(perhaps_open),)).fetchall()
        for (job_key,) in open_calls:
            claim, settlement, now_ms = perhaps_open[job_key]
            error = settle.given_up(settlement)
            break_open_call(connection, claim.batch_key, job_key, now_ms, error)
    if events:
        driver(connection).execute(NOTE_ALL, _columns(events))
    for batch_key, jobs in sorted(ends.items()):
        control.ended(connection, batch_key, jobs)
    return answers


def end_all(connection: Connection, ending: Sequence[Ended]) -> list[Answer]:
    """Write down what came of calls."""
    answers: list[Answer] = [(None, calls.lost(claim)) for claim, *_ in ending]
    held = _fetch(connection, HOLD_ALL, [_claim(claim) for claim, *_ in ending])
    places = sorted(place - 1 for (place,) in held)
    close_all(connection, [ending[place] for place in places])
    for place in places:
        answers[place] = None, None
    return answers


def close_all(connection: Connection, ending: Sequence[Ended]) -> list[Claim]:
    """The same, where the fence was passed already; the claims whose calls were open."""
    if not ending:
        return []
    rows = []
    for claim, call_key, outcome, now_ms in ending:
        values = calls.ended_values(outcome, now_ms)
        columns = (values[name] for name in (*calls.ENDED, *_KEPT_FROM_BEFORE))
        rows.append((call_key, claim.job_key, *columns))
    sums: dict[int, Counter[str]] = defaultdict(Counter)
    estimated: set[int] = set()
    learnt, broken, closed = [], [], []
    for place, nano_usd, output_tokens in sorted(_fetch(connection, END_ALL, rows)):
        claim, call_key, outcome, now_ms = ending[place - 1]
        closed.append(claim)
        sums[claim.batch_key].update(calls.usage_added(outcome))
        sums[claim.batch_key].update(
            reserved_nano_usd=nano_usd, reserved_output_tokens=output_tokens
        )
        if outcome.usage.estimated:
            estimated.add(claim.batch_key)
        if (told := learnt_values(outcome)) is not None:
            learnt.append((claim.batch_key, call_key, *told))
        if outcome.stop_reason is None:
            broken.append((call_key, now_ms, outcome.error))
    for key, added in sorted(sums.items()):
        amounts = [added[name] for name in (*_ADDED, *_RELEASED)]
        driver(connection).execute(ADD_USAGE_ALL, (key, int(key in estimated), *amounts))
    if learnt:
        driver(connection).execute(LEARN_ALL, _columns(learnt))
    for call_key, now_ms, error in broken:
        note_broken_call(connection, call_key, now_ms, error)
    return closed


def _fetch(
    connection: Connection, sql: str, rows: Sequence[Sequence[Any]], *more: Any
) -> Sequence[Any]:
    return driver(connection).execute(sql, (*_columns(rows), *more)).fetchall()


def _alone(connection: Connection, operation: Callable[..., Any], *arguments: Any) -> Answer:
    try:
        return operation(connection, *arguments), None
    except RunnerError as refused:
        return None, refused
