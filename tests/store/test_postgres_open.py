"""Opening a queue on a server: whose database it is, and what is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from runner.errors import NotADatabase, SchemaTooNew, StoreUnavailable
from runner.jobs.states import Finish, State
from runner.store import migrate
from runner.store.database import the_database
from runner.store.postgres import PostgresDatabase
from runner.store.postgres_migrate import MARK
from runner.store.records import PauseCause, Settlement
from runner.store.schema import metadata
from runner.store.store import Store
from tests.postgres import GUARDED, PASSWORD, Server
from tests.store.hands import Hands, postgres_only
from tests.strangers import a_stranger

pytestmark = pytest.mark.anyio


async def test_another_programs_tables_are_left_alone(postgres_server: Server) -> None:
    for table in ("alembic_version (version_num text)", "job (id int)"):
        url = postgres_server.bare()
        with a_stranger(url) as stranger:
            stranger.execute(f"CREATE TABLE {table}")
            with pytest.raises(NotADatabase, match="of another program; it was left as it is"):
                await Store.open(url)
            assert stranger.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        postgres_server.drop(url)


@postgres_only
async def test_a_newer_queue_is_refused(database: str) -> None:
    with a_stranger(database) as stranger:
        stranger.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="has schema version 9999"):
        await Store.open(database)


def test_several_first_starts_at_once(postgres_server: Server) -> None:
    url = postgres_server.bare()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: the_database(url).upgrade(), range(4)))
    assert the_database(url).current() == migrate.head()
    postgres_server.drop(url)


def test_who_may_not_ask_for_the_servers_own_number_goes_by_its_address(
    postgres_server: Server,
) -> None:
    url = make_url(postgres_server.bare())
    postgres_server.run(
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", database=str(url.database)
    )
    known = the_database(url.render_as_string(hide_password=False)).identity()
    theirs = url.set(username=GUARDED, password=PASSWORD)
    told = the_database(theirs.render_as_string(hide_password=False)).identity()
    assert told == f"{url.query['host']}:None/{url.database}/public" != known
    postgres_server.drop(str(url))


async def test_what_is_not_there_is_said(postgres_server: Server) -> None:
    url = postgres_server.bare()
    with pytest.raises(StoreUnavailable, match="no queue in the database 'bare_"):
        await Store.open(url, create=False)
    postgres_server.drop(url)
    with pytest.raises(StoreUnavailable, match=r"there is no database 'bare_.*createdb"):
        await Store.open(url)


@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")  # Alembic's own
@postgres_only
def test_the_migrations_build_what_the_schema_says(database: str) -> None:
    def compared(connection: Connection) -> list[object]:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
        # Comments are for docs/database.md; the changes of a column come as a list.
        return [one for one in found if "comment" not in str(one[0])]

    assert PostgresDatabase(make_url(database))._once(compared) == []


async def test_an_older_queue_is_brought_up_to_date_once_nobody_works_on_it(
    postgres_server: Server,
) -> None:
    url = postgres_server.bare()

    def first_version(connection: Connection) -> None:
        migrate.run_scripts(connection, upto="0001")
        connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{MARK}'")

    await anyio.to_thread.run_sync(PostgresDatabase(make_url(url))._once, first_version)
    with a_stranger(url) as stranger:
        stranger.execute("INSERT INTO worker VALUES ('w', 'there', 7, 0, 9000000000000)")
        with pytest.raises(StoreUnavailable, match=r"older version .* process 7 on there"):
            await Store.open(url)
        stranger.execute("DELETE FROM worker")
        async with await Store.open(url) as store:
            hands = Hands(store)
            await hands.submit()
            await store.pause(hands.batch_key, PauseCause.BREAKER, "a new word")
            await hands.register("w1")
            assert await store.resume(hands.batch_key)
            claim = await hands.claim("w1")
            await store.settle(claim, Settlement(State.COMPLETED, Finish.MAX_COST))
            assert await store.check() == []
    postgres_server.drop(url)


@postgres_only
async def test_options_in_the_url(database: str) -> None:
    async with await Store.open(f"{database}&sslmode=disable") as store:
        assert await store.batches() == []
    with pytest.raises(StoreUnavailable, match=r"an option that the driver does not know: .*shiny"):
        await Store.open(f"{database}&shiny=1")
