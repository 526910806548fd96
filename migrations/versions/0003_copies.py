"""Batches that are copied from one database to another, what lists are read by, and how the server
keeps its tables."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BEFORE = "paused IN ('user', 'credentials', 'spend_cap', 'budget', 'breaker')"
AFTER = "paused IN ('user', 'credentials', 'spend_cap', 'budget', 'breaker', 'copy')"

# Rows that are changed in place many times: room beside them in their page, so that a change
# touches no index and its page tidies itself.
CHANGED = ("learned", "pace", "pace_member", "shared_prefix", "model_memory")
# Rows that come and stay until a prune: what it leaves is used again before a fifth of them all
# are dead, which is what a vacuum waits for otherwise.
KEPT = ("call", "chunk", "job_event", "job_spec")
# Long texts lie in a table behind the table, which is tidied by its own measure.
LONG = ("chunk", "job_spec")
# Final jobs without a complete document.
INCOMPLETE = (
    "state IN ('cancelled', 'discarded') "
    "OR finish NOT IN ('end_turn', 'stop_sequence', 'until_met')"
)


def upgrade() -> None:
    op.add_column("batch", sa.Column("copied_to", sa.Text))
    op.add_column("batch", sa.Column("copied_from", sa.Text))
    # A list of one batch, or of what failed, reads nothing of the others.
    op.create_index("job_batch", "job", ["batch_key", "key"])
    op.create_index(
        "job_incomplete",
        "job",
        ["key"],
        sqlite_where=sa.text(INCOMPLETE),
        postgresql_where=sa.text(INCOMPLETE),
    )
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        widen_check(connection)
        return
    widen_check_in_postgres(connection)
    for table in CHANGED:
        op.execute(f"ALTER TABLE {table} SET (fillfactor = 50)")
    # A call's row is changed twice, by its first count and by its end.
    op.execute("ALTER TABLE call SET (fillfactor = 85)")
    for table in KEPT:
        op.execute(f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02)")
    for table in LONG:
        op.execute(f"ALTER TABLE {table} SET (toast.autovacuum_vacuum_scale_factor = 0.02)")


def widen_check_in_postgres(connection: sa.Connection) -> None:
    """Let a column hold one more word. The rows that are there all pass, so none is looked at."""
    ((words,),) = connection.exec_driver_sql(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'batch'::regclass AND contype = 'c' AND conname = 'batch_paused_check'"
    ).fetchall()
    wider = words.removesuffix(" NOT VALID").replace(
        "'breaker'::text", "'breaker'::text, 'copy'::text"
    )
    connection.exec_driver_sql("ALTER TABLE batch DROP CONSTRAINT batch_paused_check")
    connection.exec_driver_sql(
        f"ALTER TABLE batch ADD CONSTRAINT batch_paused_check {wider} NOT VALID"
    )


def widen_check(connection: sa.Connection) -> None:
    """The same in a file, without a copy of the table.

    The procedure is SQLite's own for changes that no stored row is touched by. Source: SQLite
    documentation, ALTER TABLE, "Making Other Kinds Of Table Schema Changes".
    """
    ((version,),) = connection.exec_driver_sql("PRAGMA schema_version").fetchall()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) "
        "WHERE type = 'table' AND name = 'batch' AND instr(sql, ?)",
        (BEFORE, AFTER, BEFORE),
    )
    if changed.rowcount != 1:
        raise RuntimeError("the table batch is not as version 0002 made it")
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
