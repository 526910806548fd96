"""The tables, in SQLAlchemy Core. docs/database.md tells what each column means.

The migrations build the same tables step by step; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    literal_column,
    text,
)

from runner.jobs.call import Strategy, Verdict
from runner.jobs.states import COMPLETE, FINAL, Finish, State
from runner.jobs.traits import PrefillAnswer
from runner.store.purposes import LEDGER_VIEW
from runner.store.records import EventKind, PauseCause

# The newest migration. Kept here so that opening a current database needs no Alembic.
SCHEMA_VERSION: Final = "0003"

# "runn" as a number: marks the file as ours, so that no other program's database is taken for one.
APPLICATION_ID: Final = 0x72756E6E

WAITING: Final = frozenset({State.SCHEDULED, State.RETRYABLE})

metadata = MetaData()

# STRICT tables know INTEGER only; PostgreSQL needs 64 bits for milliseconds and token sums.
Whole = BigInteger().with_variant(Integer(), "sqlite")


def sql_list(values: Iterable[StrEnum]) -> str:
    """Values as an SQL list of literals, in the order of their definition.

    Literals, not bound parameters: only so can SQLite see that a partial index applies.
    """
    wanted = frozenset(values)
    order = [member for kind in {type(v) for v in wanted} for member in kind if member in wanted]
    return ", ".join(f"'{member.value}'" for member in order)


def one_of(column: str, kind: type[StrEnum], *, optional: bool = False) -> CheckConstraint:
    inside = f"{column} IN ({sql_list(kind)})"
    return CheckConstraint(f"{column} IS NULL OR {inside}" if optional else inside)


def usage_columns(table: Table) -> list[Column[int]]:
    """The token columns of `batch` or `call`, `usage_estimated` last."""
    *counts, estimated = (column.name for column in _usage())
    return [table.c[name] for name in (*counts, _written_for_an_hour().name, estimated)]


def state_in(states: Iterable[State]) -> ColumnElement[bool]:
    """The SQL guard "the job is in one of these states"."""
    wanted = frozenset(states)
    if len(wanted) == 1:
        return job.c.state == literal_column(sql_list(wanted))
    members: list[ColumnElement[str]] = [
        literal_column(f"'{s.value}'") for s in State if s in wanted
    ]
    return job.c.state.in_(members)


def _usage() -> list[Column[int]]:
    return [
        Column("input_tokens", Whole, nullable=False, server_default=text("0"),
               comment="input tokens that were neither written to nor read from the prompt cache"),
        Column("cache_creation_input_tokens", Whole, nullable=False, server_default=text("0"),
               comment="input tokens written to the prompt cache"),
        Column("cache_read_input_tokens", Whole, nullable=False, server_default=text("0"),
               comment="input tokens read from the prompt cache"),
        Column("output_tokens", Whole, nullable=False, server_default=text("0"),
               comment="output tokens"),
        Column("usage_estimated", Integer, nullable=False, server_default=text("0"),
               comment="1 where a stream broke before the API said its count, so that tokens are estimated"),
    ]  # fmt: skip


def _written_for_an_hour() -> Column[int]:
    return Column("cache_creation_1h_input_tokens", Whole, nullable=False, server_default=text("0"),
                  comment="those of `cache_creation_input_tokens` that were written for an hour; the others were for 5 minutes")  # fmt: skip


batch = Table(
    "batch",
    metadata,
    Column("key", Whole, primary_key=True, comment="the store's own number of the batch"),
    Column("name", Text, nullable=False, unique=True, comment="the user's name of the batch"),
    Column("limits", Text, nullable=False, comment="limits of the job file, as JSON"),
    Column("simulated", Integer, nullable=False, server_default=text("0"), comment="1 when its documents come from the simulator; never changes"),
    Column("paused", Text, comment="why no job of it is claimed: `user`, `credentials`, `spend_cap`, `budget`, `breaker` or `copy`; NULL while it is not paused"),
    Column("pause_reason", Text, comment="the same in words for the reader"),
    Column("created_ms", Whole, nullable=False, comment="when it was first submitted"),
    Column("calls", Whole, nullable=False, server_default=text("0"), comment="calls of all its jobs that ended; kept, like the five token sums"),
    *_usage(),
    _written_for_an_hour(),
    Column("max_cost_nano_usd", Whole, comment="its budget, in nano-dollars; NULL where it has none"),
    Column("max_output_tokens", Whole, comment="its budget in output tokens; NULL where it has none"),
    Column("cost_nano_usd", Whole, nullable=False, server_default=text("0"), comment="what its calls cost, in nano-dollars; money of pruned jobs stays in it"),
    Column("spent_output_tokens", Whole, nullable=False, server_default=text("0"), comment="output tokens of its calls; those of pruned jobs stay in it"),
    Column("reserved_nano_usd", Whole, nullable=False, server_default=text("0"), comment="set aside for the calls that run now, in nano-dollars"),
    Column("reserved_output_tokens", Whole, nullable=False, server_default=text("0"), comment="likewise, in output tokens"),
    Column("short_of_nano_usd", Whole, comment="what the smallest call would set aside since one was refused, in nano-dollars; NULL where none was"),
    Column("short_of_output_tokens", Whole, comment="likewise, in output tokens"),
    Column("unpriced_calls", Whole, nullable=False, server_default=text("0"), comment="calls whose price was not known; they stand in no cost"),
    Column("recent_ends", Text, comment="how its last jobs ended, for the breaker, as JSON"),
    Column("copied_to", Text, comment="where `runner db copy` took or takes it, as JSON, with the pause it had before; NULL otherwise"),
    Column("copied_from", Text, comment="where it was copied from, as JSON, and how far; NULL otherwise"),
    one_of("paused", PauseCause, optional=True),
    CheckConstraint("simulated IN (0, 1)"),
    sqlite_strict=True,
    comment="The jobs of one job file, under one name",
)  # fmt: skip

job = Table(
    "job",
    metadata,
    Column("key", Whole, primary_key=True, comment="the store's own number of the job; never used twice"),
    Column("batch_key", Whole, ForeignKey("batch.key"), nullable=False, comment="its batch"),
    Column("id", Text, nullable=False, comment="the user's name of the job, unique in its batch"),
    Column("hash", LargeBinary, nullable=False, comment="hash of all that shapes its answer"),
    Column("model", Text, nullable=False, comment="the model it is written by"),
    Column("state", Text, nullable=False, comment="`available`, `scheduled`, `executing`, `retryable`; final: `completed`, `cancelled`, `discarded`"),
    Column("priority", Integer, nullable=False, comment="higher goes first"),
    Column("claim", Whole, nullable=False, server_default=text("0"), comment="the fencing token: grows with each claim and never shrinks"),
    Column("attempt", Integer, nullable=False, server_default=text("0"), comment="errors worth another try it has met in a row"),
    Column("rescues", Integer, nullable=False, server_default=text("0"), comment="how often its worker died with it"),
    Column("counted_from", Integer, nullable=False, server_default=text("0"), comment="calls up to this number were made before a retry: their text stays, and they count against no bound"),
    Column("worker_id", Text, comment="who holds it; set only while `executing`"),
    Column("finish", Text, comment="how the document ended; always set when `completed`"),
    Column("error", Text, comment="why it waits or failed"),
    Column("scheduled_ms", Whole, comment="when its time comes; set only while `scheduled` or `retryable`"),
    Column("created_ms", Whole, nullable=False, comment="when it was submitted"),
    Column("updated_ms", Whole, nullable=False, comment="when its state last changed"),
    Column("finalized_ms", Whole, comment="when it became final; set only then"),
    one_of("state", State),
    one_of("finish", Finish, optional=True),
    CheckConstraint("(state = 'executing') = (worker_id IS NOT NULL)"),
    CheckConstraint(f"(state IN ({sql_list(WAITING)})) = (scheduled_ms IS NOT NULL)"),
    CheckConstraint(f"(state IN ({sql_list(FINAL)})) = (finalized_ms IS NOT NULL)"),
    CheckConstraint("state <> 'completed' OR finish IS NOT NULL"),
    CheckConstraint(f"finish IS NULL OR state IN ({sql_list(FINAL)})"),
    CheckConstraint("claim >= 0 AND attempt >= 0 AND rescues >= 0 AND counted_from >= 0"),
    # A key that came back after a prune could match an old worker's claim on the pruned job.
    sqlite_autoincrement=True,
    sqlite_strict=True,
    comment="One prompt with its settings; yields one document",
)  # fmt: skip

# The id stands first so that a job is found by its id alone as well.
Index("job_id", job.c.id, job.c.batch_key, unique=True)
Index(
    "job_available",
    job.c.batch_key,
    job.c.model,
    job.c.priority.desc(),
    job.c.key,
    sqlite_where=text("state = 'available'"),
    postgresql_where=text("state = 'available'"),
)
# Waiting jobs must not stand in the index of the ready ones: 100,000 there cost 9 ms a claim.
Index(
    "job_due",
    job.c.scheduled_ms,
    sqlite_where=text(f"state IN ({sql_list(WAITING)})"),
    postgresql_where=text(f"state IN ({sql_list(WAITING)})"),
)
Index(
    "job_executing",
    job.c.worker_id,
    sqlite_where=text("state = 'executing'"),
    postgresql_where=text("state = 'executing'"),
)

# A list of one batch reads nothing of the others.
Index("job_batch", job.c.batch_key, job.c.key)
# Final jobs without a complete document, in the order of lists: hopefully few among many.
INCOMPLETE: Final = (
    f"state IN ({sql_list({State.CANCELLED, State.DISCARDED})}) "
    f"OR finish NOT IN ({sql_list(COMPLETE)})"
)
Index(
    "job_incomplete",
    job.c.key,
    sqlite_where=text(INCOMPLETE),
    postgresql_where=text(INCOMPLETE),
)

job_spec = Table(
    "job_spec",
    metadata,
    Column("job_key", Whole, ForeignKey("job.key", ondelete="CASCADE"), primary_key=True, comment="its job"),
    # First, because a row is read from its beginning: a list wants settings without the prompt.
    Column("settings", Text, nullable=False, comment="what does not shape the answer, as JSON: bounds, metadata, priority"),
    Column("shape", Text, nullable=False, comment="what shapes the answer, as JSON: model, messages and all other request fields"),
    sqlite_strict=True,
    comment="The prompts, apart from the jobs so that job rows stay narrow",
)  # fmt: skip

call = Table(
    "call",
    metadata,
    Column("key", Whole, primary_key=True, comment="the store's own number of the call"),
    Column("job_key", Whole, ForeignKey("job.key", ondelete="CASCADE"), nullable=False, comment="its job"),
    Column("number", Integer, nullable=False, comment="1 for a job's first call, and so on"),
    Column("claim", Whole, nullable=False, comment="the claim it was made under"),
    Column("strategy", Text, comment="how the continuation was asked for: `prefill` or `turn`; NULL for a call that continues nothing"),
    Column("resume_at", Whole, nullable=False, comment="the resume point: characters of the document that stay; this call's text attaches there"),
    Column("max_tokens", Integer, nullable=False, comment="output tokens asked for at most"),
    Column("model", Text, nullable=False, comment="the model asked"),
    Column("verdict", Text, comment="what is known of the seam: `exact`, `aligned`, `overlap` or `unverified`; NULL where there is none"),
    Column("rejected", Text, comment="the text of a reply that did not go on with the document; it never enters it"),
    Column("superseded", Integer, nullable=False, server_default=text("0"), comment="1 when its text left the document for good; it stays in the books"),
    Column("started_ms", Whole, nullable=False, comment="when it was written down, just before its request was sent"),
    Column("ended_ms", Whole, comment="when it ended; NULL while it runs"),
    Column("stop_reason", Text, comment="as the API said it; NULL where the stream broke"),
    Column("stop_sequence", Text, comment="the stop sequence that ended it"),
    Column("stop_details", Text, comment="the API's details of a refusal, as JSON"),
    Column("request_id", Text, comment="the API's name for the request"),
    Column("error", Text, comment="what broke it, in words"),
    *_usage(),
    _written_for_an_hour(),
    Column("prompt_tokens", Whole, comment="the part of the input that is the prompt; the rest is the document so far; NULL where nobody can tell"),
    Column("lost_output_tokens", Whole, nullable=False, server_default=text("0"), comment="its output that never entered the document: a rejected reply, last words repeated on request"),
    Column("dropped_output_tokens", Whole, nullable=False, server_default=text("0"), comment="output of earlier calls that left the document when it began"),
    Column("reserved_nano_usd", Whole, nullable=False, server_default=text("0"), comment="set aside for it when it began, in nano-dollars"),
    Column("reserved_output_tokens", Whole, nullable=False, server_default=text("0"), comment="likewise, in output tokens"),
    *(
        Column(f"{kind}_price", Whole, comment=f"{words}, in nano-dollars a million tokens, as it was that day; NULL where it is not known")
        for kind, words in (
            ("input", "price of input"),
            ("output", "price of output"),
            ("cache_write_5m", "price of a write to the prompt cache for 5 minutes"),
            ("cache_write_1h", "price of a write to the prompt cache for an hour"),
            ("cache_read", "price of a read from the prompt cache"),
        )
    ),
    Column("cost_nano_usd", Whole, comment="what it cost, in nano-dollars; NULL while it runs, or where the price is not known"),
    one_of("strategy", Strategy, optional=True),
    one_of("verdict", Verdict, optional=True),
    CheckConstraint("number >= 1 AND resume_at >= 0"),
    sqlite_strict=True,
    comment="One request to the Messages API and what came of it; written before the request is sent",
)  # fmt: skip

Index("call_job", call.c.job_key)
Index(
    "call_number",
    call.c.job_key,
    call.c.number,
    unique=True,
    sqlite_where=text("superseded = 0"),
    postgresql_where=text("superseded = 0"),
)
# At most one call of a job runs at a time, and a rescue finds it at once.
Index(
    "call_open",
    call.c.job_key,
    unique=True,
    sqlite_where=text("ended_ms IS NULL"),
    postgresql_where=text("ended_ms IS NULL"),
)

chunk = Table(
    "chunk",
    metadata,
    Column("key", Whole, primary_key=True, comment="the order in which chunks were saved, all jobs together"),
    Column("job_key", Whole, ForeignKey("job.key", ondelete="CASCADE"), nullable=False, comment="its job"),
    # No foreign key: it would need an index of its own, on the table that is written most.
    Column("call_key", Whole, nullable=False, comment="the call whose text it is"),
    Column("seq", Integer, nullable=False, comment="its place in the job's order of saving, from 0"),
    Column("text", Text, nullable=False, comment="the text"),
    sqlite_strict=True,
    comment="A saved piece of streamed text; rows are only ever appended",
)  # fmt: skip

Index("chunk_seq", chunk.c.job_key, chunk.c.seq, unique=True)

# Read a job at a time and written all the time: small rows, one index.
job_event = Table(
    "job_event",
    metadata,
    Column("key", Whole, primary_key=True, comment="the order in which events happened, all jobs together"),
    Column("job_key", Whole, ForeignKey("job.key", ondelete="CASCADE"), nullable=False, comment="its job"),
    Column("at_ms", Whole, nullable=False, comment="when it happened"),
    Column("kind", Text, nullable=False, comment="what happened: `" + "`, `".join(EventKind) + "`"),
    Column("claim", Whole, nullable=False, comment="the job's claim number then"),
    Column("worker_id", Text, comment="who claimed it, or from whom it was rescued"),
    Column("detail", Text, comment="why, in words; with `completed` and `discarded` the finish first"),
    one_of("kind", EventKind),
    sqlite_strict=True,
    comment="What happened to jobs, apart from their text; rows are only ever appended",
)  # fmt: skip

Index("job_event_job", job_event.c.job_key)

worker = Table(
    "worker",
    metadata,
    Column("id", Text, primary_key=True, nullable=False, comment="new for every process"),
    Column("host", Text, nullable=False, comment="the machine it runs on"),
    Column("pid", Whole, nullable=False, comment="its process there"),
    Column("started_ms", Whole, nullable=False, comment="when it began"),
    Column("lease_until_ms", Whole, nullable=False, comment="its sign of life: after this time its jobs may be rescued"),
    sqlite_strict=True,
    comment="The processes that work on jobs now",
)  # fmt: skip

job_count = Table(
    "job_count",
    metadata,
    Column("batch_key", Whole, primary_key=True, autoincrement=False, comment="the batch"),
    Column("model", Text, primary_key=True, nullable=False, comment="the model"),
    Column("state", Text, primary_key=True, nullable=False, comment="the state"),
    Column("finish", Text, primary_key=True, nullable=False, comment="the finish; empty for jobs without one"),
    Column("jobs", Whole, nullable=False, comment="how many jobs there are of that kind"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="Kept counts of jobs, so that nobody needs to count them; triggers on `job` keep it",
)  # fmt: skip

model_memory = Table(
    "model_memory",
    metadata,
    Column("endpoint", Text, primary_key=True, nullable=False, comment="the base URL it was met at"),
    Column("model", Text, primary_key=True, nullable=False, comment="the model"),
    Column("prefill", Text, nullable=False, comment="how it answered a prefill: `taken`, `refused` or `restarted`, which is beginning the answer afresh"),
    Column("learned_ms", Whole, nullable=False, comment="when that was seen"),
    one_of("prefill", PrefillAnswer),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="What the API has shown of models, so that it is asked once and not once a job; rows may be deleted at any time",
)  # fmt: skip

learned = Table(
    "learned",
    metadata,
    Column("batch_key", Whole, ForeignKey("batch.key", ondelete="CASCADE"), primary_key=True, autoincrement=False, comment="the batch"),
    Column("model", Text, primary_key=True, nullable=False, comment="the model"),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="the calls' number in their jobs; 20 for all above"),
    *(
        Column(name, Whole, nullable=False, server_default=text("0"), comment=words)
        for name, words in (
            ("calls", "calls that were answered to their end"),
            ("cut_calls", "those of them that `max_tokens` cut"),
            ("input_characters", "characters of their requests' texts"),
            ("input_tokens", "tokens of their whole input"),
            ("output_characters", "characters of their answers' texts"),
            ("output_tokens", "tokens of their answers"),
            ("thinking_tokens", "those of them that went into thinking"),
            ("most_output_tokens", "tokens of the longest answer"),
            ("stream_ms", "time from their requests to their ends"),
        )
    ),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="What the calls of a batch have been like, so that the next can be foreseen",
)  # fmt: skip

pace = Table(
    "pace",
    metadata,
    Column("limit_key", Text, primary_key=True, nullable=False, comment="a hash of credential, endpoint and class of models: who shares it shares rate limits"),
    Column("name", Text, nullable=False, comment="the same for a reader"),
    Column("cooled_until_ms", Whole, nullable=False, server_default=text("0"), comment="until then no call may start"),
    Column("cause", Text, comment="why, in words"),
    Column("requests_per_minute", Whole, comment="the limit as the API last told it; NULL where it did not"),
    Column("input_tokens_per_minute", Whole, comment="likewise"),
    Column("output_tokens_per_minute", Whole, comment="likewise"),
    Column("updated_ms", Whole, nullable=False, comment="when this was last written"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="Rate limits that processes share; rows may be deleted at any time",
)  # fmt: skip

pace_member = Table(
    "pace_member",
    metadata,
    Column("limit_key", Text, primary_key=True, nullable=False, comment="the rate limits it shares"),
    Column("worker_id", Text, ForeignKey("worker.id", ondelete="CASCADE"), primary_key=True, nullable=False, comment="the process"),
    Column("concurrency", Integer, nullable=False, comment="calls it would have open at once now"),
    Column("in_flight", Integer, nullable=False, comment="calls it has open now"),
    Column("seen_ms", Whole, nullable=False, comment="when it last said so"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="Which processes use which rate limits now",
)  # fmt: skip

shared_prefix = Table(
    "shared_prefix",
    metadata,
    Column("batch_key", Whole, ForeignKey("batch.key", ondelete="CASCADE"), primary_key=True, autoincrement=False, comment="the batch"),
    Column("hash", LargeBinary, primary_key=True, nullable=False, comment="hash of the model and the beginning of the prompt"),
    Column("jobs", Whole, nullable=False, comment="jobs with this beginning whose first call is not made yet"),
    Column("warm_until_ms", Whole, nullable=False, server_default=text("0"), comment="until then the prompt cache holds it"),
    Column("warming_until_ms", Whole, nullable=False, server_default=text("0"), comment="until then others wait for the call that writes it there"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    comment="Long beginnings that jobs share, for prompt caching",
)  # fmt: skip

_ADD = """\
  INSERT INTO job_count (batch_key, model, state, finish, jobs)
  VALUES (new.batch_key, new.model, new.state, coalesce(new.finish, ''), 1)
  ON CONFLICT (batch_key, model, state, finish) DO UPDATE SET jobs = jobs + 1;
"""
_TAKE = """\
  UPDATE job_count SET jobs = jobs - 1
  WHERE batch_key = old.batch_key AND model = old.model AND state = old.state
    AND finish = coalesce(old.finish, '');
"""
TRIGGERS: Final = (
    "CREATE TRIGGER job_count_insert AFTER INSERT ON job BEGIN\n" + _ADD + "END",
    "CREATE TRIGGER job_count_update AFTER UPDATE OF state, finish, model ON job\n"
    "WHEN old.state <> new.state OR old.finish IS NOT new.finish OR old.model <> new.model\n"
    "BEGIN\n" + _TAKE + _ADD + "END",
    "CREATE TRIGGER job_count_delete AFTER DELETE ON job BEGIN\n" + _TAKE + "END",
)
for _trigger in (*TRIGGERS, LEDGER_VIEW):
    # `metadata`, not `job`: the tables they name must be there first.
    _ddl = DDL(_trigger).execute_if(dialect="sqlite")  # type: ignore[no-untyped-call]  # SQLAlchemy's own gap
    event.listen(metadata, "after_create", _ddl)
