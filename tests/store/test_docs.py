"""docs/database.md: every column is told as the schema tells it, and every query runs."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runner.jobs.call import CallOutcome, Strategy, Verdict
from runner.store.purposes import LEDGER_COLUMNS
from runner.store.records import CallStart
from runner.store.schema import metadata
from runner.store.store import Store
from tests.store.hands import make_spec

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "database.md"
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("table", metadata.tables)
def test_every_column_is_told(table: str) -> None:
    section = re.split(r"^##+ ", PAGE.read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"`{table}`\n")]
    told = re.findall(r"^\| `(\w+)` \| \w+ \| (.*) \|$", text, re.MULTILINE)
    assert told == [(c.name, c.comment) for c in metadata.tables[table].columns]
    assert f"{metadata.tables[table].comment}.\n" in text


def test_every_column_of_the_view_is_told() -> None:
    (text,) = re.findall(r"^### `ledger`\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    told = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", text, re.MULTILINE)
    assert [(name, words) for name, _, words in told] == [
        (name, words) for name, (_, words) in LEDGER_COLUMNS.items()
    ]
    assert all((kind == "real") == name.endswith("_usd") for name, kind, _ in told)


@pytest.mark.parametrize("query", QUERIES)
async def test_every_query_runs(hands, store: Store, database: str, query: str) -> None:
    await hands.submit(make_spec("five-stories"))
    claim = await hands.claim()
    first = await hands.begin(claim)
    for seq, text in enumerate(("Once ", "upön a ", "ti ")):
        await store.save(claim, first, seq, text)
    await store.end_call(claim, first, CallOutcome("max_tokens"))
    second = await store.begin_call(claim, CallStart(2, Strategy.PREFILL, 14, 9, "m"))
    await store.judge(claim, second, Verdict.EXACT)
    await store.save(claim, second, 3, "me.")
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(query).fetchall()
    if "RECURSIVE" in query:
        assert rows == [("Once upön a time.",)]
    elif "finish NOT IN" not in query and "until" not in query:
        assert rows
