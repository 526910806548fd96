"""Submitting: jobs enter the queue in slices, and the same jobs again are no change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Executable, Row
from sqlalchemy import text as a_statement

from runner.errors import StoreError, SubmitConflict, UsageError
from runner.jobs.beginnings import beginnings
from runner.jobs.price import Rates
from runner.jobs.spec import (
    BatchLimits,
    BatchSpec,
    Budget,
    Caching,
    JobSpec,
    canonical_json,
    shape_hash,
)
from runner.jobs.states import State, allowed_before
from runner.store import prefixes
from runner.store.bare import Driver, PostgresDriver, Sql
from runner.store.broken import break_open_call
from runner.store.copy_marks import refuse_copied
from runner.store.engine import driver
from runner.store.events import note_of_jobs
from runner.store.records import EventKind, OnConflict, SubmitReceipt
from runner.store.schema import sql_list

Rows = Callable[[Executable, Mapping[str, object]], Awaitable[Sequence[Row[Any]]]]
Jobs = Iterable[JobSpec] | Callable[[], Iterable[JobSpec]]

SLICE_JOBS: Final = 2_000
SLICE_CHARACTERS: Final = 8_000_000
ROWS_AT_ONCE: Final = 100
SHOWN_CONFLICTS: Final = 20

PUT_BATCH: Final = """\
INSERT INTO batch (name, limits, max_cost_nano_usd, max_output_tokens, simulated, created_ms)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET limits = excluded.limits,
  max_cost_nano_usd = excluded.max_cost_nano_usd, max_output_tokens = excluded.max_output_tokens,
  pause_reason = CASE WHEN batch.paused = 'budget' AND batch.limits <> excluded.limits
    THEN NULL ELSE batch.pause_reason END,
  paused = CASE WHEN batch.paused = 'budget' AND batch.limits <> excluded.limits
    THEN NULL ELSE batch.paused END
RETURNING key
"""
KNOWN: Final = "SELECT simulated, paused, pause_reason FROM batch WHERE name = ?"
PAUSED: Final = "SELECT paused, pause_reason FROM batch WHERE key = ?"
# CROSS JOIN keeps the order: for each wanted id one look into the index, however large the queue;
# on PostgreSQL it is LIMIT that does, also while the server does not know yet how large it is.
PRESENT: Final = Sql(
    """\
SELECT job.id, job.key, job.hash, job.state, job_spec.settings
FROM json_each(?1) AS wanted
CROSS JOIN job ON job.id = wanted.value AND job.batch_key = ?2
CROSS JOIN job_spec ON job_spec.job_key = job.key
""",
    postgres="""\
SELECT job.id, job.key, job.hash, job.state, job_spec.settings
FROM json_array_elements_text(CAST(?1 AS text)::json) AS wanted(value)
CROSS JOIN LATERAL (
  SELECT * FROM job WHERE job.id = wanted.value AND job.batch_key = ?2 LIMIT 1) AS job
JOIN job_spec ON job_spec.job_key = job.key
""",
)
THERE: Final = Sql(
    """\
SELECT job.id, job.hash, job.state, job_spec.settings FROM batch
CROSS JOIN json_each(?1) AS wanted
CROSS JOIN job ON job.id = wanted.value AND job.batch_key = batch.key
CROSS JOIN job_spec ON job_spec.job_key = job.key
WHERE batch.name = ?2
""",
    postgres="""\
SELECT job.id, job.hash, job.state, job_spec.settings FROM batch
CROSS JOIN json_array_elements_text(CAST(?1 AS text)::json) AS wanted(value)
CROSS JOIN LATERAL (
  SELECT * FROM job WHERE job.id = wanted.value AND job.batch_key = batch.key LIMIT 1) AS job
JOIN job_spec ON job_spec.job_key = job.key
WHERE batch.name = ?2
""",
)
HAS_JOBS: Final = """\
SELECT 1 FROM job_count JOIN batch ON batch.key = job_count.batch_key
WHERE batch.name = ? AND job_count.jobs > 0 LIMIT 1
"""
# The keys of so many new jobs, as ranges.
NEXT_KEYS: Final = Sql(
    """\
SELECT coalesce(max(seq), 0) + 1, coalesce(max(seq), 0) + ?1 FROM sqlite_sequence WHERE name = 'job'
""",
    postgres="""\
SELECT key, key FROM (
  SELECT nextval('job_key_seq') AS key FROM generate_series(1, CAST(?1 AS bigint))
) AS fresh
ORDER BY key
""",
)
# A hundred rows a statement take half the time of one each. `?1` and `?2` are of all rows.
ADD_JOB: Final = """\
INSERT INTO job (batch_key, created_ms, updated_ms, state, key, id, hash, model, priority)
VALUES (?1, ?2, ?2, 'available', ?, ?, ?, ?, ?)
"""
ADD_SPEC: Final = """\
INSERT INTO job_spec (job_key, settings, shape)
VALUES (?, ?, ?)
"""
# A whole portion in one statement: there the triggers count once a statement, too.
ADD_JOBS: Final = """\
INSERT INTO job (key, batch_key, id, hash, model, state, priority, created_ms, updated_ms)
SELECT given.key, $6, given.id, given.hash, given.model, 'available', given.priority, $7, $7
FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::text[], $5::integer[])
  AS given(key, id, hash, model, priority)
"""
ADD_SPECS: Final = """\
INSERT INTO job_spec (job_key, settings, shape)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])
"""
SET_PRIORITY: Final = "UPDATE job SET priority = ? WHERE key = ?"
SET_SETTINGS: Final = "UPDATE job_spec SET settings = ? WHERE job_key = ?"
# The claim grows when somebody holds the job, so that he can write nothing more.
REPLACE_JOB: Final = """\
UPDATE job SET hash = ?, model = ?, priority = ?, state = 'available',
  claim = claim + CASE WHEN state = 'executing' THEN 1 ELSE 0 END, worker_id = NULL, attempt = 0, rescues = 0,
  counted_from = 0, finish = NULL, error = NULL, scheduled_ms = NULL, finalized_ms = NULL, updated_ms = ?
WHERE key = ? AND state IN ({before})
""".replace("{before}", sql_list(allowed_before(State.AVAILABLE) | {State.AVAILABLE}))
REPLACE_SPEC: Final = "UPDATE job_spec SET settings = ?, shape = ? WHERE job_key = ?"
SUPERSEDE: Final = "UPDATE call SET superseded = 1 WHERE job_key = ? AND superseded = 0"


class Prepared(NamedTuple):
    """A job as it goes into the tables."""

    id: str
    hash: bytes
    model: str
    priority: int
    settings: str
    shape: str
    beginnings: tuple[bytes, ...] = ()  # hashes of those that others may share


@dataclass(frozen=True, slots=True)
class Conflict:
    id: str
    known: bytes
    submitted: bytes


def limits_json(limits: BatchLimits) -> str:
    return canonical_json(asdict(limits))


def limits_from_json(text: str) -> BatchLimits:
    values = json.loads(text)
    # A database of an earlier version holds fewer fields: the others are at their defaults.
    budget = Budget(values.pop("budget", Budget.WORST))
    prices = {model: Rates(**rates) for model, rates in values.pop("prices", {}).items()}
    return BatchLimits(**values, budget=budget, prices=prices)


def prepared(spec: JobSpec) -> Prepared:
    data = spec.shape_data()
    shared = () if spec.caching is Caching.OFF else beginnings(spec)
    return Prepared(
        spec.id,
        shape_hash(data),
        spec.model,
        spec.priority,
        _settings_json(spec),
        _storable(data),
        tuple([one.hash for one in shared]) if shared else (),
    )


def slices(jobs: Iterator[JobSpec]) -> Iterator[list[Prepared]]:
    """Jobs in portions that make good transactions and fit in memory, each id once a portion."""
    portion: list[Prepared] = []
    characters = 0
    for spec in jobs:
        one = prepared(spec)
        portion.append(one)
        characters += len(one.shape)
        if len(portion) == SLICE_JOBS or characters > SLICE_CHARACTERS:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


def put_batch(connection: Connection, spec: BatchSpec, simulated: bool, now_ms: int) -> int:
    """The batch of that name with these limits; its key.

    Raises:
        UsageError: it is there and of the other kind, simulated or real; or it was copied away.
    """
    sql = driver(connection)
    refuse_known(sql, spec.name, simulated)
    limits = spec.limits
    bounds = (limits.max_cost_nano_usd, limits.max_output_tokens)
    values = (spec.name, limits_json(limits), *bounds, simulated, now_ms)
    cursor = sql.execute(PUT_BATCH, values)
    ((key,),) = cursor.fetchall()
    return int(key)


def refuse_known(sql: Driver, name: str, simulated: bool) -> None:
    """Refuse a batch that is there and can take no such jobs."""
    for known, *pause in sql.execute(KNOWN, (name,)).fetchall():
        refuse_other_kind(name, known=bool(known), simulated=simulated)
        refuse_copied(name, *pause)


def refuse_other_kind(name: str, *, known: bool, simulated: bool) -> None:
    """Simulated and real documents never mix.

    Args:
        known: whether the batch holds simulated documents.
        simulated: whether it is asked to.

    Raises:
        UsageError: it would hold both.
    """
    if known is simulated:
        return
    if simulated:
        raise UsageError(
            f"batch '{name}' holds real documents, and --simulate would mix simulated ones among "
            "them. Give the simulated run another --db or --batch, or leave --simulate out."
        )
    raise UsageError(
        f"batch '{name}' holds simulated documents. Give the real one another --db or --batch, "
        f"or remove it with `runner cancel --batch {name}` and `runner prune --batch {name}`; "
        "with --simulate, the simulated run goes on."
    )


def batch_has_jobs(connection: Driver, batch_name: str) -> bool:
    """Whether there is anything to conflict with; spares a first submission the comparison."""
    return bool(connection.execute(HAS_JOBS, (batch_name,)).fetchall())


@dataclass(frozen=True, slots=True)
class Compared:
    """What a submission would meet.

    Args:
        conflicts: the first jobs whose id is known under another hash.
        total: how many there are in all.
        present: how many are there already; None where anything is to be written for any of them.
    """

    conflicts: tuple[Conflict, ...] = ()
    total: int = 0
    present: int | None = None


async def compare(rows: Rows, server: bool, batch_name: str, jobs: Iterator[JobSpec]) -> Compared:
    """See what is known of the jobs of a submission, and how; in flat memory.

    Each portion is a question of its own: a generator may take its time for the next, and no
    transaction and no connection waits for it.

    Args:
        rows: asks the database.
        server: whether that is PostgreSQL.
    """
    statement = a_statement(
        (THERE.postgres if server else THERE).replace("?1", ":ids").replace("?2", ":name")
    )
    found = Compared(present=0)
    while portion := await asyncio.to_thread(lambda: list(islice(jobs, SLICE_JOBS))):
        ids = json.dumps([spec.id for spec in portion])
        known = await rows(statement, {"ids": ids, "name": batch_name})
        found = await asyncio.to_thread(_compare, found, portion, known)
    return found


def _compare(before: Compared, portion: Sequence[JobSpec], known: Sequence[Row[Any]]) -> Compared:
    there = {row.id: (bytes(row.hash), row.state, row.settings) for row in known}
    conflicts, present = [], 0
    for spec in portion:
        if spec.id not in there:
            continue
        known_hash, state, settings = there[spec.id]
        if known_hash != (submitted := shape_hash(spec.shape_data())):
            conflicts.append(Conflict(spec.id, known_hash, submitted))
        elif settings == _settings_json(spec) or State(state).final:
            present += 1
    alike = before.present is not None and present == len(portion)
    return Compared(
        (*before.conflicts, *conflicts)[:SHOWN_CONFLICTS],
        before.total + len(conflicts),
        (before.present or 0) + present if alike else None,
    )


def conflict_error(batch_name: str, shown: Iterable[Conflict], total: int) -> SubmitConflict:
    lines = [
        f"  job '{c.id}': known with hash {c.known.hex()[:12]}, submitted with {c.submitted.hex()[:12]}"
        for c in shown
    ]
    if total > len(lines):
        lines.append(f"  … and {total - len(lines)} more")
    jobs = "1 job has" if total == 1 else f"{total} jobs have"
    return SubmitConflict(
        f"batch '{batch_name}': {jobs} another prompt than the job of the same id that is known "
        "already; nothing was queued.\n" + "\n".join(lines) + "\n"
        "Submit with --replace to write these documents anew, with --keep to leave them as they "
        "are, or give the jobs other ids."
    )


def put_slice(
    connection: Connection,
    batch: BatchSpec,
    batch_key: int,
    portion: list[Prepared],
    on_conflict: OnConflict,
    now_ms: int,
) -> SubmitReceipt:
    """Add what is new, bring up to date what is present; all of a portion or nothing of it.

    Raises:
        SubmitConflict: an id is known under another hash, and `on_conflict` is ERROR.
    """
    sql = driver(connection)
    found = sql.execute(PAUSED, (batch_key,)).fetchall()
    for paused, reason in found:
        refuse_copied(batch.name, paused, reason)
    if not found:
        raise StoreError(
            f"batch '{batch.name}' was pruned away while its jobs were submitted. "
            "Give the same command again."
        )
    ids = [one.id for one in portion]
    known: dict[str, tuple[int, bytes, str, str]] = {
        job_id: tuple(rest)
        for job_id, *rest in sql.execute(PRESENT, (json.dumps(ids), batch_key)).fetchall()
    }
    # As it is while a large file is submitted for the first time.
    all_new = not known and len(set(ids)) == len(ids)
    new: dict[str, Prepared] = dict(zip(ids, portion, strict=True)) if all_new else {}
    changed: list[tuple[int, Prepared]] = []
    conflicts: list[tuple[int, Prepared]] = []
    clashes: list[Conflict] = []
    for one in () if all_new else portion:
        present = known.get(one.id)
        if present is None:
            first = new.setdefault(one.id, one)
            if first.hash != one.hash:
                clashes.append(Conflict(one.id, first.hash, one.hash))
            continue
        key, known_hash, state, settings = present
        if known_hash != one.hash:
            conflicts.append((key, one))
            clashes.append(Conflict(one.id, known_hash, one.hash))
        elif settings != one.settings and not State(state).final:
            changed.append((key, one))
    if clashes and on_conflict is OnConflict.ERROR:
        raise conflict_error(batch.name, clashes[:SHOWN_CONFLICTS], len(clashes))

    _add(sql, batch_key, list(new.values()), now_ms)
    sql.executemany(SET_PRIORITY, [(one.priority, key) for key, one in changed])
    sql.executemany(SET_SETTINGS, [(one.settings, key) for key, one in changed])
    replaced = conflicts if on_conflict is OnConflict.REPLACE else []
    for key, one in replaced:
        break_open_call(connection, batch_key, key, now_ms, "the job's prompt was replaced")
        sql.execute(SUPERSEDE, (key,))
        sql.execute(REPLACE_JOB, (one.hash, one.model, one.priority, now_ms, key))
        sql.execute(REPLACE_SPEC, (one.settings, one.shape, key))
    note_of_jobs(connection, [key for key, _ in replaced], now_ms, EventKind.REPLACED)
    queued = (*new.values(), *(one for _, one in replaced))
    prefixes.count(sql, batch_key, [one.beginnings for one in queued if one.beginnings])
    return SubmitReceipt(
        batch_key,
        new=len(new),
        present=len(portion) - len(new) - len(conflicts),
        replaced=len(replaced),
        kept=len(conflicts) - len(replaced),
    )


def _add(sql: Driver, batch_key: int, jobs: list[Prepared], now_ms: int) -> None:
    if not jobs:
        return
    ranges = sql.execute(NEXT_KEYS, (len(jobs),)).fetchall()
    keys = chain.from_iterable(range(first, last + 1) for first, last in ranges)
    if isinstance(sql, PostgresDriver):
        ids, hashes, models, priorities, settings, shapes = (
            [getattr(one, name) for one in jobs]
            for name in ("id", "hash", "model", "priority", "settings", "shape")
        )
        all_keys = list(keys)
        sql.execute(ADD_JOBS, (all_keys, ids, hashes, models, priorities, batch_key, now_ms))
        sql.execute(ADD_SPECS, (all_keys, settings, shapes))
        return
    for at in range(0, len(jobs), ROWS_AT_ONCE):
        some = jobs[at : at + ROWS_AT_ONCE]
        job_values: list[Any] = [batch_key, now_ms]
        spec_values: list[Any] = []
        # Taken apart as a whole, which is quicker than field by field.
        for one, key in zip(some, keys, strict=False):  # in this order: no key is lost
            job_id, job_hash, model, priority, own, shape, _ = one
            job_values += (key, job_id, job_hash, model, priority)
            spec_values += (key, own, shape)
        sql.execute(_rows(ADD_JOB, len(some)), job_values)
        sql.execute(_rows(ADD_SPEC, len(some)), spec_values)


@lru_cache(maxsize=4)
def _rows(one_row: str, rows: int) -> str:
    """The same for so many rows."""
    head, values, row = one_row.partition("VALUES ")
    return head + values + ", ".join([row.rstrip()] * rows)


def _settings_json(spec: JobSpec) -> str:
    text = spec.settings_json()
    return _storable(text.encode(errors="surrogatepass")) if spec.metadata else text


def _storable(data: bytes) -> str:
    """JSON that a database can hold: where a string has half of a surrogate pair, escaped."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        value = json.loads(data.decode(errors="surrogatepass"))
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
