"""A queue behind PgBouncer in transaction mode, with fewer connections than workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import text

from runner.errors import StoreUnavailable
from runner.jobs.spec import BatchLimits
from runner.jobs.states import State
from runner.simulator import SimulatorOptions
from runner.store.database import the_database
from runner.store.postgres import PostgresDatabase
from runner.store.store import Store
from runner.workers.settings import WorkerSettings
from tests import house as houses
from tests.pgbouncer import Bouncer, Pooled
from tests.postgres import Server, connect
from tests.postgres_faults.fleet import a_fleet
from tests.store.hands import Hands, make_spec
from tests.workers.process import SHORT_LEASE, Process

pytestmark = pytest.mark.anyio

# The kernel tells at once who is dead, so leases may be as long as they are in earnest.
QUICKLY: dict[str, Any] = {"checkpoint_s": 0.05, "poll_s": 0.05, "rescue_s": 0.2}
BOUNDS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
}


def direct(server: Server, database: str) -> str:
    """The same database without the pooler."""
    name = the_database(database)._server.url.database  # type: ignore[attr-defined]
    return server.url(name).render_as_string(hide_password=False)


async def test_it_is_found_out_without_a_word(
    store: Store, database: str, postgres_server: Server
) -> None:
    assert store.database._server.pooled  # type: ignore[attr-defined]
    assert store.database.listener() is None
    async with await Store.open(direct(postgres_server, database)) as other:
        assert not other.database._server.pooled  # type: ignore[attr-defined]
    # As URLs have it that are made for other programs; then it is not asked.
    said = the_database(f"{database}?pgbouncer=true")
    assert isinstance(said, PostgresDatabase)
    assert said._server.pooled
    assert await asyncio.to_thread(said.current) is not None


async def test_every_transaction_is_bounded_and_nothing_is_left_behind(
    store: Store, hands: Hands, database: str, bouncer: Bouncer
) -> None:
    readers = store.database.reading()
    for name, bound in (*BOUNDS.items(), ("transaction_read_only", "on")):
        (row,) = await readers.rows(text(f"SHOW {name}"))
        assert row[0] == bound
    await readers.close()

    def settings(connection: object) -> list[str]:
        found = connection.exec_driver_sql  # type: ignore[attr-defined]
        return [found(f"SHOW {name}").scalar_one() for name in BOUNDS]

    assert await store.apply(settings) == list(BOUNDS.values())
    await hands.submit(make_spec("a"))
    claim = await hands.claim()
    await store.save(claim, await hands.begin(claim), 0, "text")
    assert len([row async for row in store.jobs()]) == 1
    # Another program on the same two connections meets no statement and no setting of ours.
    async with AsyncExitStack() as stack:
        strangers = []
        for _ in range(2):
            strangers.append(await connect(bouncer.url(database)))
            stack.push_async_callback(strangers[-1].close)
        for stranger in strangers:
            await stranger.execute("BEGIN")  # so each has a connection of its own
        for stranger in strangers:
            rows = await stranger.fetch(
                "SELECT statement FROM pg_prepared_statements"
                " WHERE statement NOT LIKE '%pg_prepared_statements%'"
            )
            assert rows == []
            assert await stranger.fetchval("SELECT current_setting('statement_timeout')") == "0"
            assert (
                await stranger.fetchval("SELECT current_setting('transaction_read_only')") == "off"
            )
            await stranger.execute("ROLLBACK")


async def test_a_reader_notices_what_others_write(store: Store, database: str) -> None:
    async with await Store.open(database) as other:
        before = await other.data_version()
        await Hands(store).submit(make_spec("a"))
        assert await other.data_version() != before


@pytest.fixture
def pooled_house(postgres_server: Server, bouncer: Bouncer):
    houses.PLACE = Pooled(postgres_server, bouncer)
    yield
    houses.PLACE = None


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not holds():  # noqa: ASYNC110  the simulator's books tell nobody
            await anyio.sleep(0.01)


async def test_four_workers_share_two_connections_and_one_is_killed(
    tmp_path: Path, pooled_house: None
) -> None:
    specs = [houses.job(f"j{n}") for n in range(16)]
    async with houses.a_house(tmp_path, SimulatorOptions(tokens_per_second=150)) as house:
        await house.submit(*specs, limits=BatchLimits(concurrency=20))
        books = house.simulator.books
        settings = QUICKLY | {"concurrency": 4}
        async with Process(house.database, house.simulator.base_url, **settings) as victim:
            await books.wait_for(lambda books: books.tokens_generated > 300)
            async with a_fleet(house, 3, settings=WorkerSettings(**QUICKLY)):
                await books.wait_for(lambda books: books.tokens_generated > 1000)
                victim.child.kill()
        await house.assert_whole(*specs)
        (batch,) = await house.store.batches()
        assert batch.count(State.COMPLETED) == batch.complete == len(specs)
        # Of the killed one's documents at most, and none that was complete.
        assert books.tokens_generated_twice < 4 * 200 + 2 * books.requests


async def test_a_pooler_that_is_restarted_is_waited_for(
    tmp_path: Path, pooled_house: None, bouncer: Bouncer
) -> None:
    specs = [houses.job(f"j{n}") for n in range(6)]
    async with houses.a_house(tmp_path, SimulatorOptions(tokens_per_second=150)) as house:
        await house.submit(*specs)
        async with Process(house.database, house.simulator.base_url, **SHORT_LEASE) as worker:
            await until(lambda: house.simulator.books.tokens_generated > 300)
            await asyncio.to_thread(bouncer.stop)
            try:
                await worker.tells("does not answer")
            finally:
                await asyncio.to_thread(bouncer.start)
            await worker.ends()
        await house.assert_whole(*specs)


async def test_a_database_that_the_pooler_cannot_reach_is_said(
    database: str, postgres_server: Server
) -> None:
    postgres_server.drop(database)
    with pytest.raises(StoreUnavailable, match="there is no database 'queue_"):
        await Store.open(database)
