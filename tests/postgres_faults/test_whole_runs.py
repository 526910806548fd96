"""Runs whose server or network fails in mid-stream, and that nobody need look after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from sqlalchemy.engine import make_url

from runner.simulator import SimulatorOptions
from runner.store import server
from tests.house import House, a_house, job
from tests.postgres import Server
from tests.postgres_faults.fleet import a_fleet, assert_each_written_once, documents
from tests.proxy import Trouble, a_proxy
from tests.strangers import Stranger, a_stranger

pytestmark = [pytest.mark.anyio, pytest.mark.on_a_server]

STREAMING = SimulatorOptions(tokens_per_second=150, tokens_per_event=2)
OF_KIND = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = ?"
)


async def until(holds: Callable[[], bool]) -> None:
    """No event tells of what happens in the server."""
    with anyio.fail_after(60):
        while not holds():  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def has_written(house: House, tokens: int) -> None:
    await house.simulator.books.wait_for(lambda books: books.tokens_generated >= tokens)


async def test_a_server_that_is_killed_and_stopped_in_mid_run(
    tmp_path: Path, postgres_server: Server
) -> None:
    specs = documents(6)
    async with a_house(tmp_path, STREAMING) as house:
        await house.submit(*specs)
        async with a_fleet(house) as notes:
            for tokens, end in (200, postgres_server.crash), (600, postgres_server.stop_at_once):
                await has_written(house, tokens)
                await asyncio.to_thread(end)
                try:
                    for told in notes:
                        await told.tells("does not answer")
                        told.told.clear()
                finally:
                    await asyncio.to_thread(postgres_server.start)
                for told in notes:
                    await told.tells("can be written again")
        await assert_each_written_once(house, *specs)


async def test_connections_of_each_kind_are_terminated(tmp_path: Path) -> None:
    specs = documents(6)
    async with a_house(tmp_path, STREAMING) as house:
        await house.submit(*specs)
        async with a_fleet(house):
            with a_stranger(house.database) as stranger:
                for tokens in range(100, 1100, 100):
                    await has_written(house, tokens)
                    for kind in ("runner writes", "runner reads", "runner listens"):
                        stranger.execute(OF_KIND, (kind,))
        await assert_each_written_once(house, *specs)


async def test_a_writer_is_terminated_in_mid_transaction(tmp_path: Path) -> None:
    specs = documents(3)
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'runner writes' AND wait_event_type = 'Lock'"
    )
    async with a_house(tmp_path, STREAMING) as house:
        await house.submit(*specs)
        async with a_fleet(house, 1):
            with a_stranger(house.database) as other, a_stranger(house.database) as stranger:
                for tokens in (60, 200, 400):
                    await has_written(house, tokens)
                    # Its text can be sent to the server, and not committed.
                    other.execute("BEGIN")
                    other.execute("SELECT 1 FROM job FOR UPDATE")
                    await until(lambda: stranger.execute(waiting) != [])
                    ((pid,),) = stranger.execute(waiting)
                    stranger.execute("SELECT pg_terminate_backend(?)", (pid,))
                    other.execute("ROLLBACK")
        await assert_each_written_once(house, *specs)


async def test_commits_whose_fate_is_not_told(tmp_path: Path) -> None:
    """One of five, whatever it was that was to be committed."""
    specs = [job(f"j{n}", mark="tokens=60", max_tokens=30) for n in range(4)]
    async with a_house(tmp_path, STREAMING) as house:
        await house.submit(*specs)
        with a_proxy(house.database) as (proxy, through):
            async with a_fleet(house, database=through):
                proxy.luckless = 0.2
            assert proxy.cuts > 4
        await house.assert_whole(*specs)
        books = house.simulator.books
        rows = [await house.row(spec.id) for spec in specs]
        assert [row.claim for row in rows] == [1] * 4
        assert sum(row.calls for row in rows) == books.requests_by_kind["messages_stream"]
        assert books.tokens_generated_twice <= 2 * books.requests  # white space at the seams


async def test_a_slow_server(tmp_path: Path) -> None:
    specs = documents(2)
    async with a_house(tmp_path) as house:
        await house.submit(*specs)
        with a_proxy(house.database) as (proxy, through):
            async with a_fleet(house, database=through):
                proxy.late_s = 0.02  # each answer
        await assert_each_written_once(house, *specs)


async def test_a_server_that_stops_answering_and_closes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "COMMAND_TIMEOUT_S", 1)
    monkeypatch.setattr(server, "CONNECT_TIMEOUT_S", 1)
    specs = documents(4)
    async with a_house(tmp_path, STREAMING) as house:
        await house.submit(*specs)
        with a_proxy(house.database) as (proxy, through):
            async with a_fleet(house, 1, database=through) as (told,):
                await has_written(house, 200)
                proxy.trouble = Trouble.SILENT
                await told.tells("does not answer")
                proxy.trouble = Trouble.NONE
                await told.tells("can be written again")
        await assert_each_written_once(house, *specs)


async def test_a_server_that_only_lets_read_for_a_while(tmp_path: Path) -> None:
    specs = documents(4)
    async with a_house(tmp_path, STREAMING) as house:
        await house.submit(*specs)
        name = make_url(house.database).database
        async with a_fleet(house, 1) as (told,):
            with a_stranger(house.database) as stranger:
                await has_written(house, 200)
                stranger.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
                stranger.execute(OF_KIND, ("runner writes",))
                await told.tells("only lets read")
                stranger.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await assert_each_written_once(house, *specs)


async def test_a_server_with_hardly_a_connection_left(tmp_path: Path) -> None:
    """One to write, one to read, none to listen or to read side by side."""
    specs = documents(2)
    async with a_house(tmp_path, STREAMING) as house:
        await house.submit(*specs)
        url = make_url(house.database)
        with a_stranger(house.database) as stranger:
            poor(stranger, "CREATE ROLE poor LOGIN CONNECTION LIMIT 2")
            try:
                few = url.set(username="poor").render_as_string(hide_password=False)
                async with a_fleet(house, 1, database=few) as (told,):
                    pass
                assert all("no connection left" in x or "again" in x for x in told.told), told.told
            finally:
                poor(stranger, "DROP OWNED BY poor", "DROP ROLE poor")
        await assert_each_written_once(house, *specs)


def poor(stranger: Stranger, *statements: str) -> None:
    for statement in statements:
        stranger.execute(statement)
    if statements[0].startswith("CREATE"):
        for things in ("TABLES", "SEQUENCES"):
            stranger.execute(f"GRANT ALL ON ALL {things} IN SCHEMA public TO poor")


async def test_a_server_that_isolates_more_than_is_asked_for(tmp_path: Path) -> None:
    specs = documents(8)
    async with a_house(tmp_path) as house:
        name = make_url(house.database).database
        with a_stranger(house.database) as stranger:
            stranger.execute(
                f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"
            )
            await house.submit(*specs)
            async with a_fleet(house, 3) as notes:
                pass
        assert [told.told for told in notes] == [[], [], []]
        await assert_each_written_once(house, *specs)
