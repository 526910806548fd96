"""A queue on a PostgreSQL server, as a `Database`.

The writer's transactions take turns over the whole fleet, by an advisory lock that lasts as long as
the transaction: so what one writer allows on SQLite holds here too. Only the saving of text, which
runs most, goes on beside it: a save holds the row of its job, and a take-over waits for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from sqlalchemy import URL, Connection, NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runner.errors import StoreBlocked, StoreError, StoreUnavailable
from runner.store import locks, postgres_errors, postgres_migrate
from runner.store.bare import Driver, PostgresDriver
from runner.store.connections import ReadingConnections, drop
from runner.store.database import Locks, Reads, Replaced
from runner.store.hints import Listener
from runner.store.locks import WorkerLocks

T = TypeVar("T")

READERS: Final = 4
COMMON_OPTIONS: Final = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "passfile"),
)
FILES: Final = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile"})
NO_SETTINGS: Final[Mapping[str, str]] = {}
TRIES: Final = 3  # of a transaction whose connection was cut, before it waits
CONNECT_TIMEOUT_S: Final = 10
STATEMENT_TIMEOUT_S: Final = 30
# For a server that says nothing at all; longer than its own, so that else it tells what it was.
COMMAND_TIMEOUT_S: Final = 35
LOCK_TIMEOUT_S: Final = 10
# A worker that was cut off in the middle of a transaction may hold the turn, and all others wait
# for it: much less than a lease, so that nobody loses a job by it.
IDLE_IN_TRANSACTION_TIMEOUT_S: Final = 10
IN_DOUBT_POLL_S: Final = 0.1
# Then it is told that the server does not finish a commit, as one whose standby is gone.
IN_DOUBT_S: Final = 5.0
PROMPT_MS: Final = 500
PASSED_BY_MS: Final = 60_000

# "runn" as a number, like the mark of our files.
TURN: Final = 0x72756E6E

_SERVER_MS: Final = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED;"
# What holds for a transaction alone, where a session's settings would go to another's as well.
BOUNDED: Final = (
    f"SELECT set_config('statement_timeout', '{STATEMENT_TIMEOUT_S}s', true), "
    f"set_config('lock_timeout', '{LOCK_TIMEOUT_S}s', true), "
    "set_config('idle_in_transaction_session_timeout', "
    f"'{IDLE_IN_TRANSACTION_TIMEOUT_S}s', true);"
)
# A server that takes over from one that failed begins a new timeline.
_TIMELINE: Final = "left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
_UNTOLD: Final = "CAST(NULL AS text)"
# Up to where the log was read again when the server recovered from its last crash, if it did.
_RECOVERED: Final = "pg_last_wal_replay_lsn()"
# An empty message, for the sake of where in the log it ends.
_MARK: Final = "pg_logical_emit_message(true, 'runner', '')"
# An answer means that it is on the disk, whatever the server does for others.
_DURABLE: Final = (
    "CASE current_setting('synchronous_commit') WHEN 'off' "
    "THEN set_config('synchronous_commit', 'on', true) END"
)
_BEGUN: Final = f"{_SERVER_MS} AS now_ms, CAST(pg_current_xact_id() AS text) AS xid, {_DURABLE}, "
OPEN: Final = text(f"SELECT {_SERVER_MS} AS now_ms, pg_backend_pid() AS pid")
TIMELINE: Final = text(f"SELECT {_TIMELINE}")
# A server that crashed gives the numbers out again of transactions that left nothing in its log:
# one that did not come as far as our mark has nothing of ours, whatever became of that number.
_CRASHED: Final = (
    f"{_RECOVERED} < CAST(CAST(:mark AS text) AS pg_lsn) "
    f"AND CAST({_RECOVERED} AS text) IS DISTINCT FROM CAST(:recovered AS text)"
)
_STATUS: Final = "pg_xact_status(CAST(CAST(:xid AS text) AS xid8))"
STATUS: Final = text(f"SELECT CASE WHEN {_CRASHED} THEN 'aborted' ELSE {_STATUS} END")
# How many transactions have ended: those that began, without those that run.
ENDED: Final = text(
    "SELECT CAST(CAST(pg_snapshot_xmax(seen) AS text) AS bigint) "
    "- (SELECT count(*) FROM pg_snapshot_xip(seen)) FROM pg_current_snapshot() AS seen"
)


def begin_statement(*, in_turn: bool, timeline: bool) -> str:
    """What a writer's transaction begins with: the time, its name, the timeline.

    Args:
        in_turn: no other writer's transaction runs at the same time.
        timeline: the server tells it.
    """
    turn = f"pg_advisory_xact_lock({TURN}), " if in_turn else ""
    told = (_TIMELINE, _RECOVERED, _MARK) if timeline else (_UNTOLD,) * 3
    return (
        f"SELECT {turn}{_BEGUN}{told[0]} AS timeline, CAST({told[1]} AS text) AS recovered, "
        f"CAST({told[2]} AS text) AS mark"
    )


class ServerClock:
    """The server's time, told by this machine's own steady clock between two looks at it.

    So no wall clock of a worker decides anything, and machines whose clocks differ agree.
    """

    def __init__(self) -> None:
        self._ahead_ms: float | None = None
        self._seen_ms = 0.0

    def seen(self, server_ms: int, asked_ms: float) -> None:
        """The server has just told its time.

        An answer that took long is passed by for a while: it may have been long under way.

        Args:
            asked_ms: when it was asked, by this machine's steady clock.
        """
        now_ms = steady_ms()
        if (
            self._ahead_ms is None
            or now_ms - asked_ms <= PROMPT_MS
            or now_ms - self._seen_ms > PASSED_BY_MS
        ):
            self._ahead_ms, self._seen_ms = server_ms - now_ms, now_ms

    def now_ms(self) -> int:
        if self._ahead_ms is None:
            return time.time_ns() // 1_000_000  # nothing was asked of the server yet
        return round(steady_ms() + self._ahead_ms)


class PostgresDatabase:
    """A database of a server; see `runner.store.database.Database`."""

    def __init__(self, url: URL) -> None:
        try:
            import asyncpg  # noqa: F401
        except ImportError:
            raise StoreUnavailable(
                "for a database on PostgreSQL the driver asyncpg is needed: "
                "pip install 'prefill-runner[postgres]'."
            ) from None
        options = dict(url.query)
        if "ssl" in options:
            options["sslmode"] = options.pop("ssl")
        # What all programs' URLs have: the driver takes it from a URL alone.
        common: dict[str, str | tuple[str, ...]] = {
            name: options.pop(name) for name in COMMON_OPTIONS if name in options
        }
        for name in FILES & common.keys():
            if not Path(str(common[name])).is_file():
                raise StoreUnavailable(
                    f"there is no file {common[name]}, which `{name}` in the URL of the database "
                    "names. Mend the URL, or put the file there."
                )
        self._dsn = f"postgresql://?{urlencode(common, doseq=True, quote_via=quote)}"
        # Behind a pooler that gives a connection to each transaction, nobody can listen.
        self._listens = options.pop("listen", "on") != "off"
        # Found out at the first connection; said by URLs that are made for other programs.
        self._pooled = options.pop("pgbouncer", "") in {"true", "transaction"}
        self._url = url.set(drivername="postgresql+asyncpg", query=options)
        self._clock = ServerClock()
        self.replaced = 0  # times that another server was found in its place

    @property
    def shown(self) -> str:
        host = self._url.host or self._url.query.get("host") or "localhost"
        return f"'{self._url.database or self._url.username}' on {host}"

    @property
    def one_clock(self) -> bool:
        return True

    @property
    def path(self) -> None:
        return None

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
        return self._clock.now_ms()

    def look(self, work: Callable[[Driver], T]) -> T:
        return self._once(lambda connection: work(PostgresDriver(connection)))

    def reading(self) -> ReadingConnections:
        if self._pooled:
            engine = self._pooled_engine("reads", execution_options={"postgresql_readonly": True})
        else:
            # Each statement sees what is committed then, and no snapshot is held between two.
            engine = self._engine(
                "reads", {"default_transaction_read_only": "on"}, isolation_level="AUTOCOMMIT"
            )
        # A server that was replaced may still answer, and tell of things that are no more.
        return ReadingConnections(
            engine, READERS, era=lambda: self.replaced, transactions=self._pooled
        )

    def writing(self) -> PostgresSession:
        # Its transactions begin and end by its own word.
        made = self._pooled_engine if self._pooled else self._engine
        engine = made("writes", isolation_level="AUTOCOMMIT")
        begin = f"{BEGIN} {BOUNDED}" if self._pooled else BEGIN
        return PostgresSession(self, engine, self._clock, begin)

    def watcher(self, connections: Reads) -> PostgresWatcher:
        return PostgresWatcher(connections)

    def listener(self) -> Listener | None:
        if not self._listens or self._pooled:
            return None
        # Nothing is in a transaction there, and nothing is ever asked that takes time.
        return Listener(self._engine("listens", isolation_level="AUTOCOMMIT"))

    def locks(self) -> Locks:
        folder = locks.private_folder()
        if folder is None:
            return NoLocks()
        # Another name of the same database is another folder: then leases decide.
        place = f"{self._url.host} {self._url.query.get('host')} {self._url.port}"
        name = f"{place} {self._url.database}".encode()
        return WorkerLocks(folder / hashlib.sha256(name).hexdigest()[:16])

    def explained(self, error: BaseException) -> StoreError | None:
        return postgres_errors.explained(error, self.shown)

    def refused(self, error: BaseException) -> BaseException:
        return postgres_errors.refused(error, self.shown)

    def cut(self, error: BaseException) -> bool:
        return postgres_errors.lost(error)

    def passing(self, error: BaseException) -> bool:
        return postgres_errors.passing(error)

    def _engine(
        self, does: str, settings: Mapping[str, str] = NO_SETTINGS, **options: Any
    ) -> AsyncEngine:
        """
        Args:
            does: what its connections are for, for whoever looks at pg_stat_activity.
            settings: of their sessions.
        """
        bounds = {
            "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
            "lock_timeout": f"{LOCK_TIMEOUT_S}s",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
        }
        return self._connecting(does, {}, {**bounds, **settings}, options)

    def _pooled_engine(self, does: str, **options: Any) -> AsyncEngine:
        """Behind a pooler that may give each transaction another connection to the server, nothing
        is left in one: no setting, and no statement with a name."""
        unnamed = {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": str,
        }
        engine = self._connecting(does, unnamed, {}, options)
        if (
            "isolation_level" not in options
        ):  # else its user begins transactions in words of his own
            event.listen(engine.sync_engine, "begin", _bound)
        return engine

    def _connecting(
        self,
        does: str,
        arguments: Mapping[str, Any],
        settings: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> AsyncEngine:
        engine = create_async_engine(
            self._url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={
                "dsn": self._dsn,
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": COMMAND_TIMEOUT_S,
                # One that stands by lags behind: a worker would not find what it has just written.
                "target_session_attrs": "primary",
                "server_settings": {"application_name": f"runner {does}", **settings},
                **arguments,
            },
            **options,
        )
        event.listen(engine.sync_engine, "connect", _teach)
        event.listen(engine.sync_engine, "before_cursor_execute", _storable, retval=True)
        return engine

    def _once(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction of a connection of its own; blocks."""

        async def connected() -> T:
            engine = self._pooled_engine("opens")  # it may be one
            try:
                async with engine.begin() as connection:
                    postgres_migrate.refuse_older(
                        connection.dialect.server_version_info, self.shown
                    )
                    asked_ms = steady_ms()
                    told = (await connection.execute(OPEN)).one()
                    self._clock.seen(told.now_ms, asked_ms)
                    bare: Any = (await connection.get_raw_connection()).driver_connection
                    # A pooler answers for the server, and with a number of its own.
                    self._pooled = self._pooled or bare.get_server_pid() != told.pid
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
                f"know: {', '.join(self._url.query)}. Leave it out."
            ) from error
        except Exception as error:
            raise (self.explained(error) or self.refused(error)) from error


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A transaction whose commit was sent and never answered.

    Args:
        recovered: what `_RECOVERED` was when it began.
        mark: where in the server's log its first trace ends; None: the server tells nobody.
    """

    work: object
    xid: str
    recovered: str | None
    mark: str | None
    result: Any


class PostgresSession:
    """The writing connection, with an event loop of its own in the writer's thread: no task of the
    program can interrupt a transaction, because none runs one."""

    def __init__(
        self, database: PostgresDatabase, engine: AsyncEngine, clock: ServerClock, words: str
    ) -> None:
        self._database = database
        self._words = words  # that a transaction begins with
        self._engine = engine
        self._clock = clock
        self._runner: asyncio.Runner | None = None
        self._connection: AsyncConnection | None = None
        self._doubt: _Doubt | None = None
        self._timeline: str | None = None
        self._begin = _begin_statements(timeline=True)

    def transaction(self, work: Callable[[Connection], T], *, beside: bool) -> T:
        for _ in range(TRIES - 1):
            try:
                return self._run(self._transaction(work, beside))
            except Exception as error:
                if not postgres_errors.lost(error):
                    raise
                # A server that was restarted, a connection that a firewall forgot: again at once.
                self.disconnect()
        return self._run(self._transaction(work, beside))

    def disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(Exception):
                self._run(drop(connection))

    def close(self) -> None:
        self.disconnect()
        if self._runner is not None:
            with suppress(Exception):
                self._run(self._engine.dispose())
            self._runner.close()
            self._runner = None

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(coroutine)

    async def _transaction(self, work: Callable[[Connection], T], beside: bool) -> T:
        connection = self._connection or await self._connect()
        doubt, self._doubt = self._doubt, None
        if doubt is not None and doubt.work is work:
            self._doubt = doubt  # until it is known
            committed = await self._was_committed(connection, doubt)
            self._doubt = None
            if committed:
                result: T = doubt.result
                return result
        # As one piece for SQLAlchemy: each that it is handed costs it as much as a statement.
        return await connection.run_sync(self._committed, work, beside)

    def _committed(
        self, connection: Connection, work: Callable[[Connection], T], beside: bool
    ) -> T:
        """Apply work in a transaction; what it gave."""
        server = PostgresDriver(connection)
        # Whatever the server does for others: a fence is to see what was committed just before.
        server.control(self._words)
        try:
            asked_ms = steady_ms()
            begun = server.execute(self._begin[beside]).fetchone()
            self._clock.seen(begun["now_ms"], asked_ms)
            self._same_server(begun["timeline"])
            result = work(connection)
        except BaseException as error:
            if not postgres_errors.lost(error):  # else nobody is there to be told
                with suppress(Exception):
                    server.control("ROLLBACK;")
            raise
        try:
            ended = server.control("COMMIT;")
        except Exception as error:
            if postgres_errors.lost(error):
                self._doubt = _Doubt(work, begun["xid"], begun["recovered"], begun["mark"], result)
            raise
        if ended != "COMMIT":  # what the server answers where a statement had failed
            raise StoreError(f"the database {self._database.shown} undid a transaction: {ended}")
        return result

    async def _connect(self) -> AsyncConnection:
        connection = await self._engine.connect()
        try:
            async with connection.begin():
                timeline = (await connection.execute(TIMELINE)).scalar_one()
        except Exception as error:
            if postgres_errors.lost(error):
                await drop(connection)
                raise
            timeline = None  # some servers tell nobody
            self._begin = _begin_statements(timeline=False)
        self._connection = connection
        self._same_server(timeline)
        return connection

    def _same_server(self, timeline: str | None) -> None:
        """Before anything is asked that only the server from before can answer."""
        before, self._timeline = self._timeline, timeline or self._timeline
        if before is not None and before != self._timeline:
            self._doubt = None
            self._database.replaced += 1
            raise Replaced

    async def _was_committed(self, connection: AsyncConnection, doubt: _Doubt) -> bool:
        """What became of a transaction, as the server knows it.

        Raises:
            StoreBlocked: the server does not finish it; ask again.
        """
        asked = {"xid": doubt.xid, "recovered": doubt.recovered, "mark": doubt.mark}
        asked_ms = steady_ms()
        while True:
            async with connection.begin():
                status = (await connection.execute(STATUS, asked)).scalar_one()
            if status != "in progress":
                return bool(status == "committed")
            if steady_ms() - asked_ms > IN_DOUBT_S * 1000:
                raise StoreBlocked(
                    f"the server of the database {self._database.shown} does not finish a commit",
                    "See whether it waits for a synchronous standby (pg_stat_replication)",
                )
            await asyncio.sleep(IN_DOUBT_POLL_S)


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


def _begin_statements(*, timeline: bool) -> tuple[str, str]:
    """In turn, and beside others."""
    return (
        begin_statement(in_turn=True, timeline=timeline),
        begin_statement(in_turn=False, timeline=timeline),
    )


def _bound(connection: Connection) -> None:
    connection.exec_driver_sql(BOUNDED)


def _teach(dbapi_connection: Any, _record: object) -> None:
    """Sums of whole numbers are `numeric` on the server; here they stay whole numbers."""
    dbapi_connection.run_async(
        lambda connection: connection.set_type_codec(
            "numeric", schema="pg_catalog", encoder=str, decoder=_number, format="text"
        )
    )


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _storable(
    _connection: Connection,
    _cursor: object,
    statement: str,
    parameters: Any,
    _context: object,
    _executemany: bool,
) -> tuple[str, Any]:
    """The one character that the server holds in no text, NUL, becomes U+FFFD."""
    rows = parameters if isinstance(parameters, list) else [parameters]
    if any(isinstance(value, str) and "\0" in value for row in rows for value in row or ()):
        rows = [
            tuple(v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in row)
            for row in rows
        ]
        parameters = rows if isinstance(parameters, list) else rows[0]
    return statement, parameters


def steady_ms() -> float:
    """Milliseconds on a clock of this machine that nobody sets."""
    # It runs on while the machine sleeps, and nobody sets it.
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock) * 1000
