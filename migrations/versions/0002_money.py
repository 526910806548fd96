"""Money, pace and prompt caching: budgets, costs, learned figures, shared limits."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Frozen as they were: a later version's words must not change what this step built.
Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

WIDENED = {
    "batch": (
        "paused IN ('user', 'credentials', 'spend_cap')",
        "paused IN ('user', 'credentials', 'spend_cap', 'budget', 'breaker')",
    ),
    "job": (
        "'context_window', 'stalled', 'early_end')",
        "'context_window', 'stalled', 'early_end', 'max_cost')",
    ),
}
LEARNED = (
    "calls",
    "cut_calls",
    "input_characters",
    "input_tokens",
    "output_characters",
    "output_tokens",
    "thinking_tokens",
    "most_output_tokens",
    "stream_ms",
)
PRICES = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")

LEDGER = """\
CREATE VIEW ledger AS SELECT
  batch.name AS batch,
  batch.simulated AS simulated,
  job.id AS job,
  call.job_key AS job_key,
  call.key AS call_key,
  call.number AS number,
  call.model AS model,
  date(call.started_ms / 1000, 'unixepoch') AS day,
  call.stop_reason AS stop_reason,
  call.request_id AS request_id,
  call.superseded AS superseded,
  call.usage_estimated AS estimated,
  (call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens) AS all_input_tokens,
  call.output_tokens AS output_tokens,
  call.cost_nano_usd / 1e9 AS cost_usd,
  ((CASE
  WHEN call.superseded THEN 0
  WHEN call.number = 1 THEN 1
  WHEN call.resume_at > 0 THEN 0
  ELSE NOT EXISTS (
    SELECT 1 FROM call AS earlier
    WHERE earlier.job_key = call.job_key AND earlier.key < call.key AND earlier.superseded = 0
      AND earlier.input_tokens + earlier.cache_creation_input_tokens
        + earlier.cache_read_input_tokens > 0)
END) * (call.input_tokens - min(call.input_tokens, max(0, (call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens) - coalesce(call.prompt_tokens, (call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens)))))) * call.input_price / 1e15 AS prompt_first_usd,
  ((1 - (CASE
  WHEN call.superseded THEN 0
  WHEN call.number = 1 THEN 1
  WHEN call.resume_at > 0 THEN 0
  ELSE NOT EXISTS (
    SELECT 1 FROM call AS earlier
    WHERE earlier.job_key = call.job_key AND earlier.key < call.key AND earlier.superseded = 0
      AND earlier.input_tokens + earlier.cache_creation_input_tokens
        + earlier.cache_read_input_tokens > 0)
END)) * (call.input_tokens - min(call.input_tokens, max(0, (call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens) - coalesce(call.prompt_tokens, (call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens)))))) * call.input_price / 1e15 AS prompt_again_usd,
  (min(call.input_tokens, max(0, (call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens) - coalesce(call.prompt_tokens, (call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens))))) * call.input_price / 1e15 AS document_again_usd,
  (call.cache_creation_input_tokens - call.cache_creation_1h_input_tokens) * call.cache_write_5m_price / 1e15 AS cache_written_5m_usd,
  (call.cache_creation_1h_input_tokens) * call.cache_write_1h_price / 1e15 AS cache_written_1h_usd,
  (call.cache_read_input_tokens) * call.cache_read_price / 1e15 AS cache_read_usd,
  (call.output_tokens - (CASE WHEN call.superseded THEN call.output_tokens ELSE call.lost_output_tokens + call.dropped_output_tokens END)) * call.output_price / 1e15 AS output_kept_usd,
  (CASE WHEN call.superseded THEN call.output_tokens ELSE call.lost_output_tokens + call.dropped_output_tokens END) * call.output_price / 1e15 AS output_lost_usd
FROM call JOIN job ON job.key = call.job_key JOIN batch ON batch.key = job.batch_key
WHERE call.ended_ms IS NOT NULL
"""


def kept_sum(name: str) -> sa.Column[int]:
    return sa.Column(name, Whole, nullable=False, server_default=sa.text("0"))


def known(name: str) -> sa.Column[int]:
    return sa.Column(name, Whole, nullable=False)


def whole(name: str) -> sa.Column[int]:
    return sa.Column(name, Whole)


def text_key(name: str, *constraints: sa.ForeignKey) -> sa.Column[str]:
    return sa.Column(name, sa.Text, *constraints, primary_key=True)


def of_batch() -> sa.Column[int]:
    home = sa.ForeignKey("batch.key", ondelete="CASCADE")
    return sa.Column("batch_key", Whole, home, primary_key=True, autoincrement=False)


def upgrade() -> None:
    for column in (
        kept_sum("cache_creation_1h_input_tokens"),
        whole("max_cost_nano_usd"),
        whole("max_output_tokens"),
        kept_sum("cost_nano_usd"),
        kept_sum("spent_output_tokens"),
        kept_sum("reserved_nano_usd"),
        kept_sum("reserved_output_tokens"),
        whole("short_of_nano_usd"),
        whole("short_of_output_tokens"),
        kept_sum("unpriced_calls"),
        sa.Column("recent_ends", sa.Text),
    ):
        op.add_column("batch", column)
    for column in (
        kept_sum("cache_creation_1h_input_tokens"),
        whole("prompt_tokens"),
        kept_sum("lost_output_tokens"),
        kept_sum("dropped_output_tokens"),
        kept_sum("reserved_nano_usd"),
        kept_sum("reserved_output_tokens"),
        *(whole(f"{kind}_price") for kind in PRICES),
        whole("cost_nano_usd"),
    ):
        op.add_column("call", column)
    # What was spent before nobody priced; its tokens count against a budget in tokens.
    op.execute("UPDATE batch SET spent_output_tokens = output_tokens, unpriced_calls = calls")
    op.create_table(
        "learned",
        of_batch(),
        text_key("model"),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        *map(kept_sum, LEARNED),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pace",
        text_key("limit_key"),
        sa.Column("name", sa.Text, nullable=False),
        kept_sum("cooled_until_ms"),
        sa.Column("cause", sa.Text),
        whole("requests_per_minute"),
        whole("input_tokens_per_minute"),
        whole("output_tokens_per_minute"),
        known("updated_ms"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pace_member",
        text_key("limit_key"),
        text_key("worker_id", sa.ForeignKey("worker.id", ondelete="CASCADE")),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("in_flight", sa.Integer, nullable=False),
        known("seen_ms"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shared_prefix",
        of_batch(),
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        known("jobs"),
        kept_sum("warm_until_ms"),
        kept_sum("warming_until_ms"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.execute(LEDGER.rstrip())
    widen_checks(op.get_bind())


def widen_checks(connection: sa.Connection) -> None:
    """Let two columns hold new words, without a copy of a table that may hold a million jobs.

    The procedure is SQLite's own for changes that no stored row is touched by: the text of the
    table's definition is edited in place. Source: SQLite documentation, ALTER TABLE, "Making
    Other Kinds Of Table Schema Changes".
    """
    ((version,),) = connection.exec_driver_sql("PRAGMA schema_version").fetchall()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    for table, (before, after) in WIDENED.items():
        changed = connection.exec_driver_sql(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) "
            "WHERE type = 'table' AND name = ? AND instr(sql, ?)",
            (before, after, table, before),
        )
        if changed.rowcount != 1:
            raise RuntimeError(f"the table {table} is not as version 0001 made it")
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
