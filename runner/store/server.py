"""A PostgreSQL server as a URL names it, and how connections to it are made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from sqlalchemy import URL, Connection, NullPool, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runner.errors import StoreUnavailable
from runner.store.server_clock import ServerClock

COMMON_OPTIONS: Final = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "passfile"),
)
FILES: Final = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile"})
NO_SETTINGS: Final[Mapping[str, str]] = {}
CONNECT_TIMEOUT_S: Final = 10
STATEMENT_TIMEOUT_S: Final = 30
# For a question that reads whole tables, which somebody waits for and can end.
THOROUGH_TIMEOUT_S: Final = 3_600
# For a server that says nothing at all; longer than its own, so that else it tells what it was.
COMMAND_TIMEOUT_S: Final = 35
THOROUGH_COMMAND_TIMEOUT_S: Final = THOROUGH_TIMEOUT_S + 5
LOCK_TIMEOUT_S: Final = 10
# A worker that was cut off in the middle of a transaction may hold the turn, and all others wait
# for it: much less than a lease, so that nobody loses a job by it.
IDLE_IN_TRANSACTION_TIMEOUT_S: Final = 10


def bounds(*, thorough: bool = False) -> dict[str, str]:
    """The time-outs that the server keeps, by their names there.

    Args:
        thorough: of questions that read whole tables.
    """
    return {
        "statement_timeout": f"{THOROUGH_TIMEOUT_S if thorough else STATEMENT_TIMEOUT_S}s",
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
    }


def bounded(*, thorough: bool = False) -> str:
    """The statement that makes them hold for a transaction alone, where a session's settings would
    go to another's as well."""
    settings = (
        f"set_config('{name}', '{s}', true)" for name, s in bounds(thorough=thorough).items()
    )
    return f"SELECT {', '.join(settings)};"


class PostgresServer:
    """What a URL names, and how it is reached.

    Attributes:
        listens: hints are heard there.
        pooled: a pooler stands before it, which gives a connection to each transaction.
        replaced: times that another server was found in its place.
    """

    def __init__(self, url: URL) -> None:
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
        self.listens = options.pop("listen", "on") != "off"
        # Found out at the first connection; said by URLs that are made for other programs.
        self.pooled = options.pop("pgbouncer", "") in {"true", "transaction"}
        self.url = url.set(drivername="postgresql+asyncpg", query=options)
        self.clock = ServerClock()
        self.replaced = 0

    @property
    def shown(self) -> str:
        host = self.url.host or self.url.query.get("host") or "localhost"
        return f"'{self.url.database or self.url.username}' on {host}"

    def engine(
        self,
        does: str,
        settings: Mapping[str, str] = NO_SETTINGS,
        *,
        thorough: bool = False,
        **options: Any,
    ) -> AsyncEngine:
        """
        Args:
            does: what its connections are for, for whoever looks at pg_stat_activity.
            settings: of their sessions.
            thorough: they may read whole tables.
        """
        arguments = {"command_timeout": _command_timeout_s(thorough)}
        settings = {**bounds(thorough=thorough), **settings}
        return self._connecting(does, arguments, settings, options)

    def pooled_engine(self, does: str, *, thorough: bool = False, **options: Any) -> AsyncEngine:
        """Behind a pooler that may give each transaction another connection to the server, nothing
        is left in one: no setting, and no statement with a name."""
        unnamed = {
            "command_timeout": _command_timeout_s(thorough),
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": str,
        }
        engine = self._connecting(does, unnamed, {}, options)
        if (
            "isolation_level" not in options
        ):  # else its user begins transactions in words of his own
            words = bounded(thorough=thorough)
            event.listen(engine.sync_engine, "begin", lambda begun: begun.exec_driver_sql(words))
        return engine

    def _connecting(
        self,
        does: str,
        arguments: Mapping[str, Any],
        settings: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> AsyncEngine:
        engine = create_async_engine(
            self.url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={
                "dsn": self._dsn,
                "timeout": CONNECT_TIMEOUT_S,
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


def _command_timeout_s(thorough: bool) -> float:
    return THOROUGH_COMMAND_TIMEOUT_S if thorough else COMMAND_TIMEOUT_S


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
