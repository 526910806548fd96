"""`runner work`, and the options that it shares with `runner run`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from runner.cli.common import database_option, message, run_async
from runner.cli.harmless import one_line

F = TypeVar("F", bound=Callable[..., Any])

SIMULATED = "these documents are simulated; true ones need another --db or --batch"

_LEFT_ALONE = {
    False: "{} holds simulated documents and is left alone; --simulate works on it",
    True: "{} holds real documents and is left alone; it needs a run without --simulate",
}


def work_options(function: F) -> F:
    """The options of a command that works on jobs."""
    options = (
        click.option("--no-live", is_flag=True, help="Print plain lines, draw no live display."),
        click.option(
            "--concurrency",
            type=click.IntRange(min=1),
            metavar="N",
            help="Calls open at once, over all batches; each batch's own limits hold too.",
        ),
        click.option(
            "--simulate",
            is_flag=True,
            help="Use a simulated Messages API on this machine; needs no key.",
        ),
    )
    for option in options:
        function = option(function)
    return function


@click.command()
@database_option
@click.option("--batch", "batches", multiple=True, metavar="NAME", help="Only this batch.")
@click.option("--wait", is_flag=True, help="When nothing is left, wait for new jobs until stopped.")
@work_options
def work(
    database: str,
    batches: tuple[str, ...],
    wait: bool,
    simulate: bool,
    concurrency: int | None,
    no_live: bool,
) -> int:
    """Work on what is queued until every job is final.

    Simulated documents are written with --simulate only, and real ones without. Several of these may work on one database. The first Ctrl-C saves what streams and stops, the
    second stops at once.

    A database that cannot be used now, because its server is down, its disk full or another program
    locks it, is waited for, at the start as later. Ctrl-C ends the waiting.

    \b
    Example:
      runner submit jobs.yaml
      runner work

    Exit status: as of `runner run`, over all batches that were worked on.
    """

    async def open_and_work() -> int:
        # Imported here, since the SDK takes its time and `--help` has none.
        from runner.cli.opening import open_patiently
        from runner.cli.working import open_client, work_on
        from runner.output.batches import known_batches
        from runner.store.submit import refuse_other_kind

        async with open_client(simulate=simulate) as client, open_patiently(database) as store:
            for row in await known_batches(store, batches or None):
                if batches:
                    refuse_other_kind(row.name, known=row.simulated, simulated=simulate)
                elif row.simulated is not simulate and row.unfinished:
                    message(one_line(_LEFT_ALONE[simulate].format(row.name)))
            return await work_on(
                store,
                client,
                batches=batches or None,
                simulated=simulate,
                concurrency=concurrency,
                until_final=not wait,
                live=not no_live,
            )

    status = run_async(open_and_work())
    if simulate:
        message(SIMULATED)
    return status
