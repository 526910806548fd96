"""What is PostgreSQL's own: several writers at once, plans, errors, connections that die."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from typing import Any

import anyio
import pytest
from sqlalchemy.dialects.postgresql import asyncpg

from runner.jobs.states import FINAL, UNFINISHED, Finish, State
from runner.store import calls, claims, listing, reads, rescue, rows, submit, together
from runner.store.bare import in_postgres
from runner.store.listing import Filter
from runner.store.schema import job
from tests.postgres import Server
from tests.store.hands import postgres_only
from tests.strangers import PostgresStranger, a_stranger

pytestmark = pytest.mark.anyio

TABLES = ("job", "call", "chunk", "job_spec", "job_event")


@pytest.fixture(scope="module", params=["analysed", "just loaded"])
def full(postgres_server: Server, request: pytest.FixtureRequest):
    """A queue of 60,000 jobs, most of them final, in whose statistics a plan can go wrong; or of
    which the server has no other statistics than of the first few."""
    url = postgres_server.empty()
    analysed = request.param == "analysed"
    with a_stranger(url) as stranger:
        for table in TABLES:
            stranger.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        for statement in (
            "ANALYZE",
            """INSERT INTO batch (key, name, limits, created_ms)
               SELECT n, 'b' || n, '{}', 0 FROM generate_series(1, 20) AS n""",
            "INSERT INTO worker VALUES ('w', 'h', 1, 0, 0)",
            """INSERT INTO job (batch_key, id, hash, model, state, priority, worker_id, finish,
                 finalized_ms, scheduled_ms, created_ms, updated_ms)
               SELECT 1 + n / 3001, 'j' || n, '', 'm', state, 0,
                 CASE WHEN state = 'executing' THEN 'w' END,
                 CASE WHEN state = 'completed' THEN 'end_turn' END,
                 CASE WHEN state = 'completed' THEN 1 END,
                 CASE WHEN state = 'scheduled' THEN n END, 0, 0
               FROM generate_series(1, 60000) AS n, LATERAL (SELECT CASE n % 20
                 WHEN 0 THEN 'available' WHEN 1 THEN 'executing' WHEN 2 THEN 'scheduled'
                 ELSE 'completed' END AS state) AS states""",
            "INSERT INTO job_spec SELECT key, '{}', '{}' FROM job",
            """INSERT INTO call (job_key, number, claim, resume_at, max_tokens, model, started_ms,
                 ended_ms)
               SELECT key, 1, 1, 0, 1, 'm', 0, CASE WHEN state <> 'executing' THEN 1 END
               FROM job""",
            """INSERT INTO chunk (job_key, call_key, seq, text)
               SELECT job_key, key, seq, 'text' FROM call, generate_series(0, 1) AS seq""",
            "ANALYZE" if analysed else "SELECT 1",
            "SET plan_cache_mode = force_generic_plan",
        ):
            stranger.execute(statement)
        yield stranger
    postgres_server.drop(url)


def plan(stranger: PostgresStranger, statement: object) -> str:
    """The server's plan for a statement of which it does not know the parameters."""
    text = in_postgres(statement) if isinstance(statement, str) else compiled(statement)
    parameters = {int(number) for number in re.findall(r"\$(\d+)", text)}
    stranger.do(stranger.connection.execute(f"PREPARE planned AS {text}"))
    try:
        values = f"({', '.join(['NULL'] * max(parameters))})" if parameters else ""
        rows = stranger.execute(f"EXPLAIN EXECUTE planned {values}")
    finally:
        stranger.execute("DEALLOCATE planned")
    return "\n".join(row[0] for row in rows)


def compiled(statement: Any) -> str:
    return str(
        statement.compile(dialect=asyncpg.dialect(), compile_kwargs={"render_postcompile": True})
    )


def listed(wanted: Filter, *, few: bool = False) -> Any:
    return listing.page_statement(wanted, 5, 10, few=few)


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        pytest.param(claims.claim_statement(1, skipping=True), "job_available", id="claim"),
        pytest.param(claims.claim_statement(9, skipping=True), "job_available", id="claim of 9"),
        pytest.param(claims.PROMOTE, "job_due", id="promote"),
        pytest.param(together.MAY_BEGIN, "job_pkey", id="may begin"),
        pytest.param(together.BEGIN_ALL, "job_pkey", id="begin"),
        pytest.param(together.SAVE_ALL, "job_pkey", id="save"),
        pytest.param(calls.SAVED, "chunk_seq", id="saved"),
        pytest.param(together.COUNT_ALL, "call_pkey", id="count"),
        pytest.param(together.JUDGE_ALL, "call_pkey", id="judge"),
        pytest.param(together.HOLD_ALL, "job_pkey", id="hold"),
        pytest.param(together.END_ALL, "call_pkey", id="end"),
        pytest.param(together.LEARN_ALL, "call_pkey", id="learn"),
        pytest.param(together.OPEN_CALLS, "call_open", id="open calls"),
        pytest.param(together.SETTLE_ALL, "job_pkey", id="settle"),
        pytest.param(rows.LOAD, "job_", id="load"),
        pytest.param(submit.PRESENT, "job_id", id="present"),
        pytest.param(submit.THERE, "job_id", id="known"),
        pytest.param(submit.SUPERSEDE, "call_", id="supersede"),
        pytest.param(reads.HELD_BY, "job_executing", id="held"),
        pytest.param(rescue.rescue_statement([job.c.worker_id == "w"], 3, 0), "job_executing", id="rescue"),
        pytest.param(listed(Filter()), "job_pkey", id="list"),
        pytest.param(listed(Filter(1)), "job_batch", id="list of a batch"),
        pytest.param(listed(Filter(states=frozenset({State.DISCARDED}))), "job_incomplete", id="list of failed"),
        pytest.param(
            listed(Filter(states=frozenset({State.AVAILABLE, State.EXECUTING, State.RETRYABLE})), few=True),
            "job_due", id="list of few",
        ),
    ],
)  # fmt: skip
def test_no_statement_reads_a_whole_table(
    full: PostgresStranger, statement: object, wanted: str
) -> None:
    text = plan(full, statement)
    assert wanted in text, text
    for table in TABLES:
        assert f"Seq Scan on {table} " not in text, text


MEANT = {
    "all": Filter(),
    "ready": Filter(states=frozenset({State.AVAILABLE})),
    "complete": Filter(states=frozenset({State.COMPLETED})),
    "unfinished": Filter(states=UNFINISHED),
    "failed": Filter(states=FINAL - {State.COMPLETED}),
    "cut": Filter(states=FINAL, finishes=frozenset({Finish.MAX_CALLS, Finish.STALLED})),
    "ended well": Filter(states=FINAL, finishes=frozenset({Finish.END_TURN})),
}


@pytest.mark.parametrize("name", MEANT)
def test_no_list_reads_or_sorts_a_whole_table(full: PostgresStranger, name: str) -> None:
    for batch_key, few, size in product((None, 11), (False, True), (1, 500)):
        wanted = replace(MEANT[name], batch_key=batch_key)
        text = plan(full, listing.page_statement(wanted, 5, size, few=few))
        for table in TABLES:
            assert f"Seq Scan on {table} " not in text, text
        if not (few or wanted.incomplete):  # else there are few to sort
            assert "Sort Key: job." not in text, text


@postgres_only
async def test_a_sign_of_life_moves_no_index(hands, store, database: str) -> None:
    """An index on what a heartbeat changes would have each of them write into every index."""
    with a_stranger(database) as stranger:
        await hands.register()
        for _ in range(50):
            assert await store.renew_lease("w1", lease_ms=60_000)
        await until_told(
            stranger,
            "SELECT n_tup_upd >= 50 AND n_tup_hot_upd >= 0.9 * n_tup_upd FROM pg_stat_user_tables "
            "WHERE relname = 'worker'",
        )


async def until_told(stranger: PostgresStranger, question: str) -> None:
    """The server counts a moment later, when the connection that wrote rests."""
    with anyio.fail_after(60):
        while stranger.execute(question) != [(True,)]:  # noqa: ASYNC110  nothing tells of it
            await anyio.sleep(0.05)
