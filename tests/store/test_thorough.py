"""Questions that read whole tables: they are given the time that a long table takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import Executable, text
from sqlalchemy.engine import make_url

from runner.errors import StoreBlocked
from runner.store import server
from runner.store.database import is_thorough, thorough
from runner.store.integrity import problems_found
from runner.store.ledger import By, accounts, pruned
from runner.store.postgres import PostgresDatabase
from tests.store.hands import postgres_only

pytestmark = pytest.mark.anyio


@postgres_only
@pytest.mark.parametrize("query", ["", "pgbouncer=true"], ids=["direct", "pooled"])
async def test_they_outlast_the_bounds_of_all_others(
    database: str, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(server, "STATEMENT_TIMEOUT_S", 0.2)
    url = make_url(database).update_query_string(query)
    of_server = PostgresDatabase(url)
    connections = of_server.reading()
    try:
        with pytest.raises(Exception, match="statement timeout") as ended:
            await connections.rows(text("SELECT pg_sleep(60)"))
        assert isinstance(of_server.explained(ended.value), StoreBlocked)
        # This program's own bound, for a server that says nothing, is another.
        monkeypatch.setattr(server, "COMMAND_TIMEOUT_S", 0.2)
        patient = of_server.reading()
        assert len(await patient.rows(thorough(text("SELECT pg_sleep(0.5)")))) == 1
        await patient.close()
        ((bound,),) = await connections.rows(thorough(text("SHOW statement_timeout")))
        assert bound == "1h"
        ((bound,),) = await connections.rows(text("SHOW statement_timeout"))
        assert bound == "200ms"
    finally:
        await connections.close()


@pytest.mark.parametrize("batch_keys", [None, [1]])
async def test_check_and_cost_ask_thoroughly(batch_keys: list[int] | None) -> None:
    asked: list[Executable] = []

    async def rows(
        statement: Executable, _values: Mapping[str, object] | None = None
    ) -> Sequence[Any]:
        asked.append(statement)
        return []

    assert await problems_found(rows, in_file=False) == []
    for by in set(By) - {By.JOB}:  # jobs are read in pages
        assert await accounts(rows, by, batch_keys) == []
    assert await pruned(rows, batch_keys) == []
    assert len(asked) == 3 + 3 + 1
    assert all(map(is_thorough, asked))
