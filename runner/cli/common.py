"""What several commands share: options, opening the database to read, JSON on stdout."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from runner.store.store import Store

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

CLOSE_S = 1.0  # of a command that was interrupted

database_option: Callable[[F], F] = click.option(
    "--db",
    "database",
    default="runner.db",
    show_default=True,
    envvar="RUNNER_DB",
    show_envvar=True,
    metavar="FILE|URL",
    help="The database: a file, or postgresql+asyncpg://USER@HOST/DATABASE.",
)
json_option: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
)


def files_argument(function: F) -> F:
    """One or more job files. Whether they can be read is said by the job file's own messages."""
    argument = click.argument(
        "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
    )
    return argument(function)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine."""
    return asyncio.run(main)


@asynccontextmanager
async def reading(database: str) -> AsyncIterator[Store]:
    """Open the database to read; one that is not there is an error and is not made.

    Raises:
        StoreError: it is missing, cannot be read, or is something else.
    """
    # Imported here: `--help` of a command must not wait for SQLAlchemy.
    from runner.store.store import Store

    store = await Store.open(database, create=False)
    bound_s = None
    try:
        yield store
    except asyncio.CancelledError:
        # Nobody waits for the answer any more, and whole tables may take long to be read: what
        # still reads is ended with the event loop.
        bound_s = CLOSE_S
        raise
    finally:
        with suppress(TimeoutError):
            await asyncio.wait_for(store.close(), bound_s)


def print_json(value: Any) -> None:
    """One JSON value as a line on stdout."""
    from runner.output.document import json_line

    click.echo(json_line(value).encode(errors="replace"))


def message(text: str) -> None:
    """A line on stderr, for the reader and not for the next program."""
    with suppress(OSError):  # a terminal that was closed is no reason to stop working
        click.echo(text, err=True)


def colour(stream: Any = None) -> bool:
    """Whether to colour what goes to `stream` (stdout): on a terminal, unless NO_COLOR is set."""
    stream = stream or sys.stdout
    return bool(
        stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
