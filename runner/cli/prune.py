"""`runner prune`."""

from __future__ import annotations

import re
import sys

import click

from runner.cli.choosing import chosen, one_batch_option, states_option
from runner.cli.common import database_option, message, reading, run_async
from runner.cli.validate import jobs
from runner.errors import UsageError
from runner.jobs.states import State

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """A length of time such as 30d, in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([smhdw])", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is no age; write 30d, 12h, 90m or 2w")
    return int(match[1]) * _UNITS_S[match[2]]


@click.command()
@database_option
@click.option(
    "--older-than",
    callback=_seconds,
    metavar="AGE",
    help="Jobs that ended so long ago: 30d, 12h, 2w.",
)
@one_batch_option
@states_option(State.COMPLETED, State.CANCELLED, State.DISCARDED)
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(
    database: str, older_than: int | None, batch: str | None, states: tuple[str, ...], yes: bool
) -> int:
    """Delete jobs that ended, with their documents, and make the database smaller.

    Calls, text and events go with them, and their tokens leave the sums of `runner status`: export
    first what you want to keep. Jobs that are not final are never touched. A batch that has no job
    left goes too. Asks before it deletes; where nobody can be asked, it needs --yes.

    \b
    Example:
      runner prune --older-than 30d
      runner prune --batch trial --yes

    Exit status: 1 if you said no.
    """

    async def order() -> int:
        from dataclasses import replace

        from runner.jobs.states import FINAL
        from runner.store.records import Selection

        async with reading(database) as store:
            selection = Selection()
            if older_than is None or batch is not None or states:
                selection, _ = await chosen(store, (), batch=batch, states=states)
            if older_than is not None:
                before_ms = store.now_ms() - older_than * 1000
                selection = replace(selection, final_before_ms=before_ms)
            selection = replace(selection, states=selection.states or FINAL)
            found = await store.selected(selection)
            if not yes and found and not _agreed(f"Delete {jobs(found)} with their documents?"):
                message("nothing was deleted")
                return 1
            receipt = await store.prune(selection)
            smaller = (
                "the server uses their room again"
                if store.path is None
                else f"the file is {receipt.freed_bytes / (1 << 20):,.1f} MiB smaller"
            )
            message(f"{jobs(receipt.jobs)} deleted; {smaller}")
            return 0

    return run_async(order())


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: give --yes.")
    return click.confirm(question, err=True)
