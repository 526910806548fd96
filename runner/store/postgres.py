"""A queue on a PostgreSQL server, as a `Database`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.errors import StoreError, StoreUnavailable
from runner.store import locks, postgres_errors, postgres_migrate
from runner.store.bare import Driver, PostgresDriver
from runner.store.connections import ReadingConnections
from runner.store.database import Locks, Reads
from runner.store.hints import Listener
from runner.store.locks import WorkerLocks
from runner.store.postgres_session import TURN, PostgresSession
from runner.store.server import PostgresServer
from runner.store.server_clock import SERVER_MS, steady_ms

T = TypeVar("T")

READERS: Final = 4

OPEN: Final = text(f"SELECT {SERVER_MS} AS now_ms, pg_backend_pid() AS pid")
WHICH: Final = """\
SELECT current_database(), current_schema(),
  has_function_privilege('pg_control_system()', 'EXECUTE')
"""
# Given to a server once, when its folder is made: the same by every name, port and pooler, after
# every start, and on those that stand by for it.
SYSTEM: Final = "SELECT CAST(system_identifier AS text) FROM pg_control_system()"
# How many transactions have ended: those that began, without those that run.
ENDED: Final = text(
    "SELECT CAST(CAST(pg_snapshot_xmax(seen) AS text) AS bigint) "
    "- (SELECT count(*) FROM pg_snapshot_xip(seen)) FROM pg_current_snapshot() AS seen"
)


class PostgresDatabase:
    """A database of a server; see `runner.store.database.Database`."""

    def __init__(self, url: URL) -> None:
        self._server = PostgresServer(url)

    @property
    def shown(self) -> str:
        return self._server.shown

    @property
    def one_clock(self) -> bool:
        return True

    @property
    def path(self) -> None:
        return None

    def identity(self) -> str:
        return self.look(self._identity)

    def missing(self) -> str:
        return (
            f"no queue in the database {self.shown}; run `runner run FILE` first or name another "
            "with --db."
        )

    def current(self) -> str | None:
        return self._once(lambda connection: postgres_migrate.current(connection, self.shown))

    def upgrade(self) -> None:
        self._once(lambda connection: postgres_migrate.upgrade(connection, self.shown, turn=TURN))

    def now_ms(self) -> int:
        return self._server.clock.now_ms()

    def look(self, work: Callable[[Driver], T]) -> T:
        return self._once(lambda connection: work(PostgresDriver(connection)))

    def reading(self) -> ReadingConnections:
        made = self._reading_pooled if self._server.pooled else self._reading
        # A server that was replaced may still answer, and tell of things that are no more.
        return ReadingConnections(
            made(thorough=False),
            made(thorough=True),
            READERS,
            era=lambda: self._server.replaced,
            transactions=self._server.pooled,
        )

    def _reading(self, *, thorough: bool) -> AsyncEngine:
        # Each statement sees what is committed then, and no snapshot is held between two.
        return self._server.engine(
            "reads",
            {"default_transaction_read_only": "on"},
            thorough=thorough,
            isolation_level="AUTOCOMMIT",
        )

    def _reading_pooled(self, *, thorough: bool) -> AsyncEngine:
        options = {"postgresql_readonly": True}
        return self._server.pooled_engine("reads", thorough=thorough, execution_options=options)

    def writing(self) -> PostgresSession:
        return PostgresSession(self._server)

    def watcher(self, connections: Reads) -> PostgresWatcher:
        return PostgresWatcher(connections)

    def listener(self) -> Listener | None:
        if not self._server.listens or self._server.pooled:
            return None
        # Nothing is in a transaction there, and nothing is ever asked that takes time.
        return Listener(self._server.engine("listens", isolation_level="AUTOCOMMIT"))

    def locks(self) -> Locks:
        folder = locks.private_folder()
        if folder is None:
            return NoLocks()
        # Another name of the same database is another folder: then leases decide.
        url = self._server.url
        name = f"{url.host} {url.query.get('host')} {url.port} {url.database}".encode()
        return WorkerLocks(folder / hashlib.sha256(name).hexdigest()[:16])

    def explained(self, error: BaseException) -> StoreError | None:
        return postgres_errors.explained(error, self.shown)

    def refused(self, error: BaseException) -> BaseException:
        return postgres_errors.refused(error, self.shown)

    def cut(self, error: BaseException) -> bool:
        return postgres_errors.lost(error)

    def passing(self, error: BaseException) -> bool:
        return postgres_errors.passing(error)

    def _identity(self, sql: Driver) -> str:
        ((database, schema, tells),) = sql.execute(WHICH).fetchall()
        if tells:
            ((server,),) = sql.execute(SYSTEM).fetchall()
        else:
            url = self._server.url
            server = f"{url.host or url.query.get('host')}:{url.port}"
        return f"{server}/{database}/{schema}"

    def _once(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction of a connection of its own; blocks."""

        async def connected() -> T:
            engine = self._server.pooled_engine("opens")  # it may be one
            try:
                async with engine.begin() as connection:
                    postgres_migrate.refuse_older(
                        connection.dialect.server_version_info, self.shown
                    )
                    asked_ms = steady_ms()
                    told = (await connection.execute(OPEN)).one()
                    self._server.clock.seen(told.now_ms, asked_ms)
                    bare: Any = (await connection.get_raw_connection()).driver_connection
                    # A pooler answers for the server, and with a number of its own.
                    self._server.pooled = self._server.pooled or bare.get_server_pid() != told.pid
                    return await connection.run_sync(work)
            finally:
                await engine.dispose()

        try:
            return asyncio.run(connected())
        except StoreError:
            raise
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise StoreUnavailable(
                f"the URL of the database {self.shown} has an option that the driver does not "
                f"know: {', '.join(self._server.url.query)}. Leave it out."
            ) from error
        except Exception as error:
            raise (self.explained(error) or self.refused(error)) from error


class PostgresWatcher:
    """Asks the server how many transactions have ended."""

    def __init__(self, connections: Reads) -> None:
        self._connections = connections

    async def version(self) -> int:
        ((version,),) = await self._connections.rows(ENDED)
        return int(version)

    def close(self) -> None:
        """It has no connection of its own."""


class NoLocks:
    """Where the operating system cannot tell of processes, leases alone decide."""

    def acquire(self, worker_id: str) -> bool:  # noqa: ARG002
        return False

    def release(self, worker_id: str) -> None: ...

    def release_all(self) -> None: ...

    def alive(self, worker_id: str) -> None:  # noqa: ARG002
        return None

    def forget(self, worker_id: str) -> None: ...
