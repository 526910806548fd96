"""The writing connection to a PostgreSQL server: transactions, their turn, and commits in doubt.

The writer's transactions take turns over the whole fleet, by an advisory lock that lasts as long as
the transaction: so what one writer allows on SQLite holds here too. Only the saving of text, which
runs most, goes on beside it: a save holds the row of its job, and a take-over waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runner.errors import StoreBlocked, StoreError
from runner.store import postgres_errors
from runner.store.bare import PostgresDriver
from runner.store.connections import drop
from runner.store.database import Replaced
from runner.store.server import PostgresServer, bounded
from runner.store.server_clock import SERVER_MS, steady_ms

T = TypeVar("T")

TRIES: Final = 3  # of a transaction whose connection was cut, before it waits
IN_DOUBT_POLL_S: Final = 0.1
# Then it is told that the server does not finish a commit, as one whose standby is gone.
IN_DOUBT_S: Final = 5.0

# "runn" as a number, like the mark of our files.
TURN: Final = 0x72756E6E

BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED;"
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
_BEGUN: Final = f"{SERVER_MS} AS now_ms, CAST(pg_current_xact_id() AS text) AS xid, {_DURABLE}, "
TIMELINE: Final = text(f"SELECT {_TIMELINE}")
# A server that crashed gives the numbers out again of transactions that left nothing in its log:
# one that did not come as far as our mark has nothing of ours, whatever became of that number.
_CRASHED: Final = (
    f"{_RECOVERED} < CAST(CAST(:mark AS text) AS pg_lsn) "
    f"AND CAST({_RECOVERED} AS text) IS DISTINCT FROM CAST(:recovered AS text)"
)
_STATUS: Final = "pg_xact_status(CAST(CAST(:xid AS text) AS xid8))"
STATUS: Final = text(f"SELECT CASE WHEN {_CRASHED} THEN 'aborted' ELSE {_STATUS} END")


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

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        # Its transactions begin and end by its own word.
        made = server.pooled_engine if server.pooled else server.engine
        self._engine = made("writes", isolation_level="AUTOCOMMIT")
        self._words = f"{BEGIN} {bounded()}" if server.pooled else BEGIN
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
        bare = PostgresDriver(connection)
        # Whatever the server does for others: a fence is to see what was committed just before.
        bare.control(self._words)
        try:
            asked_ms = steady_ms()
            begun = bare.execute(self._begin[beside]).fetchone()
            self._server.clock.seen(begun["now_ms"], asked_ms)
            self._same_server(begun["timeline"])
            result = work(connection)
        except BaseException as error:
            if not postgres_errors.lost(error):  # else nobody is there to be told
                with suppress(Exception):
                    bare.control("ROLLBACK;")
            raise
        try:
            ended = bare.control("COMMIT;")
        except Exception as error:
            if postgres_errors.lost(error):
                self._doubt = _Doubt(work, begun["xid"], begun["recovered"], begun["mark"], result)
            raise
        if ended != "COMMIT":  # what the server answers where a statement had failed
            raise StoreError(f"the database {self._server.shown} undid a transaction: {ended}")
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
            self._server.replaced += 1
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
                    f"the server of the database {self._server.shown} does not finish a commit",
                    "See whether it waits for a synchronous standby (pg_stat_replication)",
                )
            await asyncio.sleep(IN_DOUBT_POLL_S)


def _begin_statements(*, timeline: bool) -> tuple[str, str]:
    """In turn, and beside others."""
    return (
        begin_statement(in_turn=True, timeline=timeline),
        begin_statement(in_turn=False, timeline=timeline),
    )
