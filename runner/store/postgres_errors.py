"""What the errors of a PostgreSQL server mean to the reader.

Source of the codes: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from runner.errors import NotADatabase, StoreBlocked, StoreError, StoreUnavailable

# Another transaction got in the way, and this one was undone whole.
_PASSING: Final = frozenset({"40001", "40P01"})
_READ_ONLY: Final = "25006"
# Shut down, crashed, starting up, terminated, cut off, told to wait.
_LOST: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "08000", "08001", "08003", "08004", "08006", "08P01"})  # fmt: skip
# PgBouncer gives this one for all that it has to say itself, or heard from the server meanwhile.
_OF_A_POOLER: Final = "08P01"


def lost(error: BaseException) -> bool:
    """Whether the connection is gone, or was never made; the server may be well."""
    if _code(error) in _LOST:
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return any(
        isinstance(
            cause,
            (
                OSError,
                TimeoutError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                asyncpg.ConnectionDoesNotExistError,
            ),
        )
        and not isinstance(cause, (asyncpg.DataError, asyncpg.ClientConfigurationError))
        for cause in _causes(error)
    )


def passing(error: BaseException) -> bool:
    """Whether the same work, applied again at once, can be expected to succeed."""
    return _code(error) in _PASSING


def explained(error: BaseException, shown: str) -> StoreError | None:
    """What an error of the server means to the reader.

    None where it is not the state of the server or the network but a single statement that is at
    fault.

    Args:
        shown: the database's name, without a password.
    """
    if isinstance(error, StoreBlocked):
        return error
    code = _code(error) or ""
    if any(isinstance(c, asyncpg.TargetServerAttributeNotMatched) for c in _causes(error)):
        code = _READ_ONLY
    if code == _OF_A_POOLER:
        code = _meant(_words(error))
    match code:
        case "53300":
            return StoreBlocked(
                f"the server of the database {shown} has no connection left",
                "Raise its max_connections, or run fewer workers",
            )
        case "53100":
            return StoreBlocked(
                f"the disk of the server that holds the database {shown} is full", "Make room there"
            )
        case _ if code == _READ_ONLY:
            return StoreBlocked(
                f"the server of the database {shown} only lets read: it stands by for another",
                "Name the primary server with --db, or wait until this one takes over",
            )
        case "57014" | "55P03" | "40P01" | "40001":
            return StoreBlocked(
                f"the database {shown} was too busy, or something locks it ({_words(error)})",
                "Look at pg_stat_activity for what holds it",
            )
        case "28000" | "28P01":
            return StoreUnavailable(
                f"the server refused you the database {shown} ({_words(error)}). Check user and "
                "password in --db; a password can stand in PGPASSWORD or ~/.pgpass as well."
            )
        case "3D000":
            return StoreUnavailable(
                f"there is no database {shown}. Make it with `createdb`, or name another with --db."
            )
        case "42501":
            return StoreUnavailable(
                f"you may not do this in the database {shown} ({_words(error)}). Its user must own "
                "the queue's tables, or may create them in the schema."
            )
    if any(isinstance(cause, asyncpg.ClientConfigurationError) for cause in _causes(error)):
        return StoreUnavailable(
            f"the URL of the database {shown} has an option that the driver does not take "
            f"({_words(error)}). Mend it, or leave it out."
        )
    if (unsafe := _unsafe(error)) is not None:
        return StoreBlocked(
            f"the server of the database {shown} could not be reached safely ({unsafe})",
            "Check sslmode, sslrootcert, sslcert and sslkey in --db, and the certificates they name",
        )
    if code.startswith("XX"):
        return NotADatabase(f"the database {shown} is damaged ({_words(error)}).")
    if lost(error):
        return StoreBlocked(
            f"the server of the database {shown} does not answer ({_words(error)})",
            "Check that it runs and that the network reaches it",
        )
    if isinstance(error, PoolTimeout):
        return StoreBlocked(
            f"the database {shown} answers too slowly: all connections are taken",
            "Look at pg_stat_activity for what holds it",
        )
    return None


def refused(error: BaseException, shown: str) -> BaseException:
    """What a single statement's error means to the caller; never with a prompt or text in it."""
    if isinstance(error, (asyncpg.PostgresError, DBAPIError)):
        wrapped = StoreError(f"the database {shown} refused a statement: {_words(error)}")
        wrapped.__cause__ = error
        return wrapped
    return error


def _code(error: BaseException) -> str | None:
    """The server's code of an error, whoever wrapped it."""
    for cause in _causes(error):
        code = getattr(cause, "sqlstate", None)
        if code is not None:
            return str(code)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was wrapped around."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        orig = cause.orig if isinstance(cause, DBAPIError) else None
        cause = orig or cause.__cause__


def _words(error: BaseException) -> str:
    """The innermost cause's own words: no statement, no parameters, no address with a password."""
    *_, cause = _causes(error)
    words = str(cause).partition("\n")[0]
    return words or type(cause).__name__


def _meant(words: str) -> str:
    """The server's code of what a pooler says."""
    if "does not exist" in words or "no such database" in words:
        return "3D000"
    if "authentication failed" in words or "no such user" in words:
        return "28P01"
    return _OF_A_POOLER


def _unsafe(error: BaseException) -> str | None:
    """What is wrong with encryption or certificates, in words; None where nothing is."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message.rstrip(".") or "its certificate cannot be verified"
        if isinstance(cause, (ssl.SSLError, asyncpg.ClientConfigurationError)):
            return str(cause).partition("\n")[0]
        if isinstance(cause, ConnectionError) and "SSL" in str(cause):
            return "it does not encrypt, and sslmode asks for it"
    return None
