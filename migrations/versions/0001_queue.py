"""The queue: batches, jobs, calls, chunks, events, workers and kept counts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Frozen as they were: a later version's words must not change what this step built.
Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WAITING = "'scheduled', 'retryable'"
FINAL = "'completed', 'cancelled', 'discarded'"
FINISHES = (
    "'end_turn', 'stop_sequence', 'until_met', 'refusal', 'max_calls', 'max_output_tokens', "
    "'context_window', 'stalled', 'early_end'"
)
EVENTS = (
    "'claimed', 'call_broken', 'retry_scheduled', 'waits', 'paused', 'handed_back', 'rescued', "
    "'replaced', 'retried', 'cancelled', 'completed', 'discarded'"
)

ADD = """\
  INSERT INTO job_count (batch_key, model, state, finish, jobs)
  VALUES (new.batch_key, new.model, new.state, coalesce(new.finish, ''), 1)
  ON CONFLICT (batch_key, model, state, finish) DO UPDATE SET jobs = jobs + 1;
"""
TAKE = """\
  UPDATE job_count SET jobs = jobs - 1
  WHERE batch_key = old.batch_key AND model = old.model AND state = old.state
    AND finish = coalesce(old.finish, '');
"""


# Once a statement, however many jobs it touches, and in one order, so that two cannot lock each
# other out.
COUNT = """\
CREATE FUNCTION job_count_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO job_count (batch_key, model, state, finish, jobs)
  SELECT batch_key, model, state, finish, sum(jobs) FROM ({moved}) AS moved
  GROUP BY 1, 2, 3, 4 HAVING sum(jobs) <> 0 ORDER BY 1, 2, 3, 4
  ON CONFLICT (batch_key, model, state, finish) DO UPDATE SET jobs = job_count.jobs + excluded.jobs;
  RETURN NULL;
END $$
"""
ROWS = "SELECT batch_key, model, state, coalesce(finish, '') AS finish, {sign}1 AS jobs FROM {rows}"
ADDED = ROWS.format(sign="", rows="new_jobs")
TAKEN = ROWS.format(sign="-", rows="old_jobs")
MOVES = {
    "INSERT": ("NEW TABLE AS new_jobs", ADDED),
    "UPDATE": ("OLD TABLE AS old_jobs NEW TABLE AS new_jobs", f"{ADDED} UNION ALL {TAKEN}"),
    "DELETE": ("OLD TABLE AS old_jobs", TAKEN),
}
# Rows of these are changed in place many times: room beside them, and a vacuum that comes early.
STORAGE = {
    "job": "fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1",
    "batch": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02",
    "job_count": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02",
    "worker": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02",
}


def kept_sum(name: str) -> sa.Column[int]:
    return sa.Column(name, Whole, nullable=False, server_default=sa.text("0"))


def usage() -> list[sa.Column[int]]:
    return [
        kept_sum("input_tokens"),
        kept_sum("cache_creation_input_tokens"),
        kept_sum("cache_read_input_tokens"),
        kept_sum("output_tokens"),
        sa.Column("usage_estimated", sa.Integer, nullable=False, server_default=sa.text("0")),
    ]


def of_job() -> sa.ForeignKey:
    return sa.ForeignKey("job.key", ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "batch",
        sa.Column("key", Whole, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("simulated", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("paused", sa.Text),
        sa.Column("pause_reason", sa.Text),
        sa.Column("created_ms", Whole, nullable=False),
        kept_sum("calls"),
        *usage(),
        sa.CheckConstraint("paused IS NULL OR paused IN ('user', 'credentials', 'spend_cap')"),
        sa.CheckConstraint("simulated IN (0, 1)"),
        sqlite_strict=True,
    )
    op.create_table(
        "job",
        sa.Column("key", Whole, primary_key=True),
        sa.Column("batch_key", Whole, sa.ForeignKey("batch.key"), nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        kept_sum("claim"),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("rescues", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("counted_from", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("worker_id", sa.Text),
        sa.Column("finish", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("scheduled_ms", Whole),
        sa.Column("created_ms", Whole, nullable=False),
        sa.Column("updated_ms", Whole, nullable=False),
        sa.Column("finalized_ms", Whole),
        sa.CheckConstraint(
            f"state IN ('available', 'scheduled', 'executing', 'retryable', {FINAL})"
        ),
        sa.CheckConstraint(f"finish IS NULL OR finish IN ({FINISHES})"),
        sa.CheckConstraint("(state = 'executing') = (worker_id IS NOT NULL)"),
        sa.CheckConstraint(f"(state IN ({WAITING})) = (scheduled_ms IS NOT NULL)"),
        sa.CheckConstraint(f"(state IN ({FINAL})) = (finalized_ms IS NOT NULL)"),
        sa.CheckConstraint("state <> 'completed' OR finish IS NOT NULL"),
        sa.CheckConstraint(f"finish IS NULL OR state IN ({FINAL})"),
        sa.CheckConstraint("claim >= 0 AND attempt >= 0 AND rescues >= 0 AND counted_from >= 0"),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("job_id", "job", ["id", "batch_key"], unique=True)
    op.create_index(
        "job_available",
        "job",
        ["batch_key", "model", sa.text("priority DESC"), "key"],
        sqlite_where=sa.text("state = 'available'"),
        postgresql_where=sa.text("state = 'available'"),
    )
    op.create_index(
        "job_due",
        "job",
        ["scheduled_ms"],
        sqlite_where=sa.text(f"state IN ({WAITING})"),
        postgresql_where=sa.text(f"state IN ({WAITING})"),
    )
    op.create_index(
        "job_executing",
        "job",
        ["worker_id"],
        sqlite_where=sa.text("state = 'executing'"),
        postgresql_where=sa.text("state = 'executing'"),
    )
    op.create_table(
        "job_spec",
        sa.Column("job_key", Whole, of_job(), primary_key=True),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("shape", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "call",
        sa.Column("key", Whole, primary_key=True),
        sa.Column("job_key", Whole, of_job(), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("claim", Whole, nullable=False),
        sa.Column("strategy", sa.Text),
        sa.Column("resume_at", Whole, nullable=False),
        sa.Column("max_tokens", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("rejected", sa.Text),
        sa.Column("superseded", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("started_ms", Whole, nullable=False),
        sa.Column("ended_ms", Whole),
        sa.Column("stop_reason", sa.Text),
        sa.Column("stop_sequence", sa.Text),
        sa.Column("stop_details", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("error", sa.Text),
        *usage(),
        sa.CheckConstraint("strategy IS NULL OR strategy IN ('prefill', 'turn')"),
        sa.CheckConstraint(
            "verdict IS NULL OR verdict IN ('exact', 'aligned', 'overlap', 'unverified')"
        ),
        sa.CheckConstraint("number >= 1 AND resume_at >= 0"),
        sqlite_strict=True,
    )
    op.create_index("call_job", "call", ["job_key"])
    op.create_index(
        "call_number",
        "call",
        ["job_key", "number"],
        unique=True,
        sqlite_where=sa.text("superseded = 0"),
        postgresql_where=sa.text("superseded = 0"),
    )
    op.create_index(
        "call_open",
        "call",
        ["job_key"],
        unique=True,
        sqlite_where=sa.text("ended_ms IS NULL"),
        postgresql_where=sa.text("ended_ms IS NULL"),
    )
    op.create_table(
        "chunk",
        sa.Column("key", Whole, primary_key=True),
        sa.Column("job_key", Whole, of_job(), nullable=False),
        sa.Column("call_key", Whole, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("chunk_seq", "chunk", ["job_key", "seq"], unique=True)
    op.create_table(
        "job_event",
        sa.Column("key", Whole, primary_key=True),
        sa.Column("job_key", Whole, of_job(), nullable=False),
        sa.Column("at_ms", Whole, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("claim", Whole, nullable=False),
        sa.Column("worker_id", sa.Text),
        sa.Column("detail", sa.Text),
        sa.CheckConstraint(f"kind IN ({EVENTS})"),
        sqlite_strict=True,
    )
    op.create_index("job_event_job", "job_event", ["job_key"])
    op.create_table(
        "worker",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", Whole, nullable=False),
        sa.Column("started_ms", Whole, nullable=False),
        sa.Column("lease_until_ms", Whole, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "job_count",
        sa.Column("batch_key", Whole, primary_key=True, autoincrement=False),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, primary_key=True),
        sa.Column("finish", sa.Text, primary_key=True),
        sa.Column("jobs", Whole, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "model_memory",
        sa.Column("endpoint", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("prefill", sa.Text, nullable=False),
        sa.Column("learned_ms", Whole, nullable=False),
        sa.CheckConstraint("prefill IN ('taken', 'refused', 'restarted')"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        count_in_postgres()
        return
    op.execute("CREATE TRIGGER job_count_insert AFTER INSERT ON job BEGIN\n" + ADD + "END")
    op.execute(
        "CREATE TRIGGER job_count_update AFTER UPDATE OF state, finish, model ON job\n"
        "WHEN old.state <> new.state OR old.finish IS NOT new.finish OR old.model <> new.model\n"
        "BEGIN\n" + TAKE + ADD + "END"
    )
    op.execute("CREATE TRIGGER job_count_delete AFTER DELETE ON job BEGIN\n" + TAKE + "END")


def count_in_postgres() -> None:
    for moment, (tables, moved) in MOVES.items():
        name = f"job_count_{moment.lower()}"
        op.execute(COUNT.replace("job_count_moved", name).replace("{moved}", moved))
        op.execute(
            f"CREATE TRIGGER {name} AFTER {moment} ON job REFERENCING {tables} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        )
    for table, settings in STORAGE.items():
        op.execute(f"ALTER TABLE {table} SET ({settings})")
