"""`runner rescue`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runner.cli.common import database_option, message, reading, run_async
from runner.cli.harmless import one_line
from runner.cli.validate import jobs
from runner.errors import NotFound

if TYPE_CHECKING:
    from runner.store.records import WorkerRow


@click.command()
@database_option
@click.option(
    "--worker",
    metavar="ID",
    help="Also this one, which lives or hangs; the beginning of its id is enough.",
)
def rescue(database: str, worker: str | None) -> None:
    """Free the jobs of workers that are dead, now.

    Every run does this by itself; here it can be done without one, and for a process that hangs:
    with --worker its jobs go back to the queue at once, and should it wake up, it can write nothing
    more to them. `runner status` tells the ids.

    \b
    Example:
      runner rescue
      runner rescue --worker 3f2a
    """

    async def order() -> None:
        from runner.workers.settings import WorkerSettings

        most = WorkerSettings().max_rescues
        async with reading(database) as store:
            rows = await store.workers()
            doubtful = _named(rows, worker)
            freed = 0
            for row in rows:
                if row.alive is False or row is doubtful:
                    ids = await store.rescue(row.id, max_rescues=most)
                    message(one_line(f"{jobs(len(ids))} of process {row.pid} on {row.host} freed"))
                    freed += len(ids)
            orphans = await store.rescue_orphans(max_rescues=most)
            message(f"{jobs(freed + len(orphans))} back in the queue")
            for row in rows:
                if row.alive is None and row is not doubtful:
                    message(
                        one_line(
                            f"process {row.pid} on {row.host} may live or not; if it does not: "
                            f"`runner rescue --worker {row.id[:8]}`"
                        )
                    )

    run_async(order())


def _named(rows: list[WorkerRow], beginning: str | None) -> WorkerRow | None:
    if beginning is None:
        return None
    found = [row for row in rows if row.id.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{row.id[:8]} (process {row.pid} on {row.host})" for row in rows) or "none"
    several = "several workers' ids begin" if found else "no worker's id begins"
    raise NotFound(f"{several} with '{beginning}'; there are: {known}.")
