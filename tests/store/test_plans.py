"""Query plans: what runs often reads by an index, however large the queue."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.dialects import sqlite

from runner.jobs.states import FINAL, Finish, State
from runner.store import broken, budget, calls, claims, listing, reads, rescue, rows, settle, submit
from runner.store.listing import Filter
from runner.store.schema import job


def plan(database: Path, statement: object) -> str:
    """SQLite's plan; every parameter bound to something harmless."""
    sql, values = statement, []
    if not isinstance(statement, str):
        compiled = statement.compile(  # type: ignore[attr-defined]
            dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True}
        )
        sql, values = str(compiled), [0] * len(compiled.positiontup or [])
    else:
        numbers = [int(number) for number in re.findall(r"\?(\d+)", statement)]
        values = ["[]"] + [0] * (max(numbers, default=statement.count("?")) - 1)
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize("lanes", [1, 2, 50])
def test_a_claim_reads_the_first_of_each_lane(empty_database: Path, lanes: int) -> None:
    text = plan(empty_database, claims.claim_statement(lanes))
    assert (
        text.count("USING INDEX job_available (batch_key=? AND model=?)")
        + text.count("USING COVERING INDEX job_available (batch_key=? AND model=?)")
        == lanes
    )
    assert "SEARCH job USING INTEGER PRIMARY KEY" in text
    assert "SCAN job" not in text


@pytest.mark.parametrize(
    ("name", "statement", "wanted"),
    [
        ("promote", claims.PROMOTE, "INDEX job_due (scheduled_ms<?)"),
        ("begin", calls.BEGIN, "SEARCH job USING INTEGER PRIMARY KEY"),
        ("reserve", budget.RESERVE, "SEARCH batch USING INTEGER PRIMARY KEY"),
        ("refused", budget.ASKED, "SEARCH running USING PRIMARY KEY (batch_key=?)"),
        ("save", calls.SAVE, "SEARCH job USING INTEGER PRIMARY KEY"),
        ("count", calls.COUNT, "SEARCH call USING INTEGER PRIMARY KEY"),
        ("end", calls.END, "SEARCH call USING INTEGER PRIMARY KEY"),
        ("open call", broken.OPEN_CALL, "call_open (job_key=?)"),
        ("saved characters", broken.SAVED_CHARACTERS, "chunk_seq (job_key=?)"),
        ("settle", settle.SETTLE, "SEARCH job USING INTEGER PRIMARY KEY"),
        ("load", rows.LOAD, "SEARCH job USING INTEGER PRIMARY KEY"),
        (
            "rescue",
            rescue.rescue_statement([job.c.worker_id == "w"], 3, 0),
            "job_executing (worker_id=?)",
        ),
        ("present jobs", submit.PRESENT, "SEARCH job USING INDEX job_id (id=? AND batch_key=?)"),
        ("known", submit.THERE, "SEARCH job USING INDEX job_id (id=? AND batch_key=?)"),
        ("supersede", submit.SUPERSEDE, "SEARCH call USING INDEX call_"),
        ("held", reads.HELD_BY, "job_executing (worker_id=?)"),
    ],
)
def test_no_statement_reads_a_whole_table(
    empty_database: Path, name: str, statement: object, wanted: str
) -> None:
    text = plan(empty_database, statement)
    assert wanted in text
    for table in ("job", "call", "chunk", "job_spec"):
        assert f"SCAN {table}" not in text.replace("SCAN job_executing", "").splitlines(), name


def test_orphans_are_looked_for_among_the_executing_only(empty_database: Path) -> None:
    from sqlalchemy import exists

    from runner.store.schema import worker

    orphan = ~exists().where(worker.c.id == job.c.worker_id)
    text = plan(empty_database, rescue.rescue_statement([orphan], 3, 0))
    assert "USING INDEX job_executing" in text


LISTS = {
    "all": Filter(),
    "a batch": Filter(1),
    "of a batch": Filter(1, frozenset({State.AVAILABLE})),
    "many": Filter(states=frozenset({State.EXECUTING, State.RETRYABLE})),
    "complete": Filter(states=frozenset({State.COMPLETED})),
    "failed": Filter(states=frozenset({State.DISCARDED})),
    "cut": Filter(states=FINAL, finishes=frozenset({Finish.MAX_CALLS})),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_go_by_key_without_sorting(empty_database: Path, name: str) -> None:
    text = plan(empty_database, listing.page_statement(LISTS[name], 5, 100))
    if LISTS[name].incomplete:
        assert "SEARCH job USING INDEX job_incomplete (key>?)" in text
    elif LISTS[name].batch_key:
        assert "SEARCH job USING INDEX job_batch (batch_key=? AND key>?)" in text, text
    else:
        assert "SEARCH job USING INTEGER PRIMARY KEY (rowid>?)" in text
    assert "call_job (job_key=?)" in text
    assert "TEMP B-TREE" not in text.partition("MATERIALIZE totals")[0], text


def test_few_among_many_are_listed_by_the_indexes_of_their_states(empty_database: Path) -> None:
    states = frozenset(State) - {State.COMPLETED}
    text = plan(empty_database, listing.page_statement(Filter(1, states), 5, 100, few=True))
    for index in ("job_available", "job_executing", "job_due", "job_incomplete"):
        assert re.search(rf"SCAN job USING (COVERING )?INDEX {index}", text), text
    assert re.search(r"SEARCH job USING .*(key|rowid)=\?", text), text
