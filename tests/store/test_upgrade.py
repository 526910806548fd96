"""Databases of version 0001: what is in them survives, and goes on under the newer version."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config

from runner.errors import StoreUnavailable
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.spec import BatchLimits
from runner.jobs.states import Finish, State
from runner.store import migrate
from runner.store.engine import writing_engine
from runner.store.locks import WorkerLocks
from runner.store.records import CallStart, Lane, PauseCause, Settlement
from runner.store.schema import APPLICATION_ID, metadata
from runner.store.store import Store
from tests.store.test_open import statements

pytestmark = pytest.mark.anyio

NOW_MS = 1_750_000_000_000
# As the first version wrote them.
LIMITS = '{"concurrency":7,"concurrency_by_model":{"m":3},"max_attempts":4}'
SHAPE = (
    '{"max_tokens":100,"messages":[{"content":"Write.","role":"user"}],"model":"m",'
    '"output_config":null,"params":{},"stop_sequences":[],"strategy":null,"system":null,'
    '"thinking":null,"until":null}'
)
SETTINGS = (
    '{"max_calls":50,"max_nudges":2,"max_output_tokens":null,"metadata":{"of":"%s"},'
    '"on_unverified_seam":"flag","priority":0,"seam_retries":2}'
)
STATES = {  # by the job's id: state, worker, finish, scheduled, finalized
    "waiting": ("available", None, None, None, None),
    "running": ("executing", "w-dead", None, None, None),
    "later": ("retryable", None, None, NOW_MS, None),
    "limited": ("scheduled", None, None, NOW_MS, None),
    "done": ("completed", None, "end_turn", None, NOW_MS),
    "cut": ("completed", None, "max_calls", None, NOW_MS),
    "failed": ("discarded", None, "refusal", None, NOW_MS),
    "unwanted": ("cancelled", None, None, None, NOW_MS),
}
FILLED = ("batch", "job", "job_spec", "call", "chunk", "job_event", "worker", "job_count")
FILLED += ("model_memory",)


def make_first_version(path: Path) -> None:
    """An empty database, built by the first version's own migration."""
    engine = writing_engine(path, create=True)
    config = Config()
    config.set_main_option("script_location", str(migrate.scripts()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    engine.dispose()


def fill(path: Path) -> None:
    """Rows in every table, as the first version left them: one job is running in a dead process."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        for name, paused in (("b", None), ("other", "spend_cap"), ("third", "user")):
            db.execute(
                "INSERT INTO batch (name, limits, paused, pause_reason, created_ms, calls,"
                " input_tokens, cache_creation_input_tokens, cache_read_input_tokens,"
                " output_tokens, usage_estimated) VALUES (?, ?, ?, ?, ?, 16, 48, 16, 16, 160, 1)",
                (name, LIMITS, paused, paused and "why", NOW_MS),
            )
            for number, (job, (state, worker, finish, due, final)) in enumerate(STATES.items()):
                cursor = db.execute(
                    "INSERT INTO job (batch_key, id, hash, model, state, priority, claim, attempt,"
                    " worker_id, finish, scheduled_ms, created_ms, updated_ms, finalized_ms)"
                    " VALUES ((SELECT max(key) FROM batch), ?, ?, 'm', ?, ?, 5, 1, ?, ?, ?, 1, 2, ?)",
                    (job, bytes([number] * 16), state, number % 3, worker, finish, due, final),
                )
                key = cursor.lastrowid
                db.execute("INSERT INTO job_spec VALUES (?, ?, ?)", (key, SETTINGS % job, SHAPE))
                db.execute(
                    "INSERT INTO job_event (job_key, at_ms, kind, claim, worker_id, detail)"
                    " VALUES (?, 3, 'claimed', 5, 'w-dead', NULL)",
                    (key,),
                )
                add_calls(db, key, last_is_open=state == "executing")
        db.execute("INSERT INTO worker VALUES ('w-dead', 'elsewhere', 9, ?, ?)", (NOW_MS, NOW_MS))
        db.execute("INSERT INTO model_memory VALUES ('https://x', 'm', 'refused', ?)", (NOW_MS,))
        db.commit()


def add_calls(db: sqlite3.Connection, job_key: int | None, *, last_is_open: bool) -> None:
    for number in (1, 2, 3):
        is_open = last_is_open and number == 3
        if number == 3 and not is_open:
            return
        usage = (0, 0, 0, 0, 0) if is_open else (3, 1, 1, 10, 1)
        cursor = db.execute(
            "INSERT INTO call (job_key, number, claim, strategy, resume_at, max_tokens, model,"
            " verdict, started_ms, ended_ms, stop_reason, request_id, input_tokens,"
            " cache_creation_input_tokens, cache_read_input_tokens, output_tokens, usage_estimated)"
            " VALUES (?, ?, 5, ?, ?, 100, 'm', ?, 1, ?, ?, 'req', ?, ?, ?, ?, ?)",
            (
                job_key,
                number,
                "prefill" if number > 1 else None,
                4 * (number - 1),
                "exact" if number > 1 else None,
                None if is_open else 2,
                None if is_open else "max_tokens",
                *usage,
            ),
        )
        db.execute(
            "INSERT INTO chunk (job_key, call_key, seq, text) VALUES (?, ?, ?, 'text')",
            (job_key, cursor.lastrowid, number - 1),
        )


def everything(path: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, by the names of their columns."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        tables = [
            name
            for (name,) in db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        return {
            table: [
                dict(row)
                for row in db.execute(f'SELECT * FROM "{table}" ORDER BY 1, 2')  # noqa: S608
            ]
            for table in sorted(tables)
            if table != "alembic_version"
        }


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("first") / "runner.db"
    make_first_version(path)
    fill(path)
    return path


@pytest.fixture
def old(first_version: Path, tmp_path: Path) -> Path:
    path = tmp_path / "runner.db"
    path.write_bytes(first_version.read_bytes())
    return path


def test_the_old_database_has_rows_in_all_tables(old: Path) -> None:
    rows = everything(old)
    assert sorted(rows) == sorted(FILLED)
    assert all(rows.values())
    assert migrate.current(old) == "0001"


def test_nothing_is_lost(old: Path) -> None:
    before = everything(old)
    migrate.upgrade(old)
    after = everything(old)
    for table, rows in before.items():
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert kept == rows, table
    assert migrate.current(old) == migrate.head()


def test_an_upgraded_database_is_built_like_a_new_one(old: Path, empty_database: Path) -> None:
    migrate.upgrade(old)
    assert statements(old) == statements(empty_database)
    with closing(sqlite3.connect(old)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA writable_schema").fetchone() == (0,)
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    assert set(metadata.tables) <= names


def test_what_was_spent_before_counts_in_tokens_and_is_said_to_be_unpriced(old: Path) -> None:
    migrate.upgrade(old)
    for batch in everything(old)["batch"]:
        assert (batch["spent_output_tokens"], batch["unpriced_calls"]) == (160, 16)
        assert (batch["cost_nano_usd"], batch["max_cost_nano_usd"]) == (0, None)
        assert (batch["reserved_nano_usd"], batch["reserved_output_tokens"]) == (0, 0)


def test_new_words_are_taken_and_wrong_ones_refused(old: Path) -> None:
    migrate.upgrade(old)
    with closing(sqlite3.connect(old)) as db:
        db.execute("UPDATE batch SET paused = 'budget' WHERE key = 1")
        db.execute("UPDATE batch SET paused = 'breaker' WHERE key = 1")
        db.execute("UPDATE batch SET paused = 'copy' WHERE key = 1")
        db.execute("UPDATE job SET finish = 'max_cost' WHERE finish = 'max_calls'")
        for wrong in (
            "UPDATE batch SET paused = 'nonsense'",
            "UPDATE job SET finish = 'nonsense' WHERE state = 'completed'",
            "UPDATE job SET worker_id = 'x' WHERE state = 'available'",
            "UPDATE batch SET simulated = 2",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(wrong)


async def test_the_work_goes_on(old: Path) -> None:
    """The dead process's job is freed, its open call is ended, and another goes on with it."""
    async with await Store.open(old) as store:
        rows = {row.name: row for row in await store.batches()}
        assert rows["other"].paused is PauseCause.SPEND_CAP
        assert rows["b"].limits == BatchLimits(
            concurrency=7, concurrency_by_model={"m": 3}, max_attempts=4
        )
        assert sorted(await store.rescue("w-dead", max_rescues=3)) == ["running"] * 3
        assert await store.check() == []
        await store.register_worker("w", host="here", pid=1, lease_ms=60_000)
        claims = await store.claim("w", [Lane(rows["b"].key, "m", 9)], 9)
        claim = next(claim for claim in claims if claim.job_id == "running")
        loaded = await store.load(claim)
        assert [call.text for call in loaded.calls] == ["text"] * 3
        assert loaded.spec.metadata == {"of": "running"}
        assert loaded.spec.continuation.max_cost_nano_usd is None
        call_key = await store.begin_call(claim, CallStart(4, None, 12, 100, "m"))
        outcome = CallOutcome("end_turn", usage=Usage(1, output_tokens=2))
        end = Settlement(State.COMPLETED, Finish.END_TURN)
        await store.end_call_and_settle(claim, call_key, outcome, end)
        assert await store.check() == []


CHILD = """
import sys
from pathlib import Path
from runner.store import migrate
migrate.upgrade(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("point", ["migration.before", "migration.middle"])
def test_a_process_that_dies_in_the_middle_leaves_the_old_one_whole(old: Path, point: str) -> None:
    before = everything(old)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(old)],
        env=os.environ | {"RUNNER_FAULT": f"{point}:1"},
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    assert migrate.current(old) == "0001"
    assert everything(old) == before
    migrate.upgrade(old)
    assert migrate.current(old) == migrate.head()


def test_several_processes_at_once_upgrade_it_once(old: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(old)]) for _ in range(3)]
    assert [child.wait(timeout=200) for child in children] == [0, 0, 0]
    assert migrate.current(old) == migrate.head()


# Workers of the older version


def worker_row(path: Path, worker_id: str, host: str, lease_until_ms: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO worker VALUES (?, ?, 4711, 1, ?)", (worker_id, host, lease_until_ms)
        )
        db.commit()


def test_a_database_that_an_old_worker_works_on_is_left_alone(old: Path) -> None:
    locks = WorkerLocks(old)
    locks.acquire("w-old")
    worker_row(old, "w-old", socket.gethostname(), 0)
    try:
        with pytest.raises(StoreUnavailable, match="older version of this program: process 4711"):
            migrate.upgrade(old)
        assert migrate.current(old) == "0001"
    finally:
        locks.release_all()
    worker_row(old, "w-killed", socket.gethostname(), 0)
    migrate.upgrade(old)
    assert migrate.current(old) == migrate.head()


def test_an_old_worker_elsewhere_is_believed_by_its_lease(old: Path) -> None:
    worker_row(old, "w-far", "far", time.time_ns() // 1_000_000 + 60_000)
    with pytest.raises(StoreUnavailable, match="on far"):
        migrate.upgrade(old)
    with closing(sqlite3.connect(old)) as db:
        db.execute("UPDATE worker SET lease_until_ms = 5 WHERE id = 'w-far'")
        db.commit()
    migrate.upgrade(old)


def test_a_current_database_may_be_opened_while_it_is_worked_on(old: Path) -> None:
    migrate.upgrade(old)
    worker_row(old, "w-new", "far", time.time_ns() // 1_000_000 + 60_000)
    migrate.upgrade(old)
