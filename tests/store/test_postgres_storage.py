"""How the server keeps the tables: rows that change often are changed in place, and what a prune
leaves is used again soon."""

from __future__ import annotations

import pytest

from runner.store.schema import metadata
from tests.store.hands import Hands, make_spec, postgres_only
from tests.strangers import a_stranger

pytestmark = [pytest.mark.anyio, postgres_only]

# What happens again and again to rows that stay: a heartbeat, a claim's books, a share's beat.
CHANGES = {
    "worker": "UPDATE worker SET lease_until_ms = lease_until_ms + 1",
    "batch": "UPDATE batch SET reserved_nano_usd = 5, cost_nano_usd = 5, recent_ends = '[]'",
    "job_count": "UPDATE job_count SET jobs = jobs + 0",
    "pace_member": "UPDATE pace_member SET seen_ms = seen_ms + 1, in_flight = 3",
    "pace": "UPDATE pace SET cooled_until_ms = cooled_until_ms + 1",
    "learned": "UPDATE learned SET calls = calls + 1",
    "shared_prefix": "UPDATE shared_prefix SET warm_until_ms = 5, jobs = jobs - 1",
    "call": "UPDATE call SET input_tokens = 5, cost_nano_usd = 7",
}


async def test_rows_that_change_often_are_changed_in_place(hands: Hands, database: str) -> None:
    """No index is touched, so nothing is left that only a vacuum could tidy."""
    await hands.submit(make_spec("a"))
    await hands.begin(await hands.claim())
    with a_stranger(database) as stranger:
        key = stranger.execute("SELECT key FROM batch")[0][0]
        stranger.execute("INSERT INTO pace VALUES ('k', 'name', 0, NULL, 1, 1, 1, 0)")
        stranger.execute("INSERT INTO pace_member VALUES ('k', 'w1', 1, 1, 0)")
        stranger.execute("INSERT INTO learned (batch_key, model, number) VALUES (?, 'm', 1)", [key])
        stranger.execute("INSERT INTO shared_prefix VALUES (?, '\\x01', 2)", [key])
        for table, change in CHANGES.items():
            stranger.execute("BEGIN")
            stranger.execute(change)
            ((changed, in_place),) = stranger.execute(
                "SELECT pg_stat_get_xact_tuples_updated(?1::text::regclass),"
                " pg_stat_get_xact_tuples_hot_updated(?1::text::regclass)",
                [table],
            )
            stranger.execute("ROLLBACK")
            assert changed > 0, table
            assert in_place == changed, table


async def test_no_table_waits_for_a_fifth_of_itself_to_be_dead(database: str) -> None:
    with a_stranger(database) as stranger:
        options = {
            name: dict(option.split("=") for option in found or ())
            for name, found in stranger.execute(
                "SELECT relname, reloptions FROM pg_class"
                " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
        }
    large = {"job", "job_spec", "call", "chunk", "job_event"}
    for table in large:
        assert options[table]["autovacuum_vacuum_scale_factor"] == "0.02", table
    for table in metadata.tables.keys() - {"job_spec", "chunk", "job_event"}:
        assert int(options[table]["fillfactor"]) < 90, table
