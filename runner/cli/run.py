"""`runner run`."""

from __future__ import annotations

from pathlib import Path

import click

from runner.cli.common import database_option, files_argument, message, run_async
from runner.cli.confirming import ask_above
from runner.cli.estimate import estimated, tell
from runner.cli.submit import all_complete, conflict_options, on_conflict, submit_all
from runner.cli.validate import batch_option, read_job_files
from runner.cli.work import SIMULATED, work_options


@click.command()
@files_argument
@database_option
@batch_option
@conflict_options
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Try the first N jobs of each file; the same command without it goes on with the rest.",
)
@click.option(
    "--dry-run", is_flag=True, help="Tell what it would cost, as `runner estimate` does, and end."
)
@click.option("--yes", is_flag=True, help="Do not ask, whatever it is expected to cost.")
@click.option(
    "--wait",
    is_flag=True,
    help="When anything pauses a batch, wait for it to go on rather than end.",
)
@work_options
def run(
    files: tuple[Path, ...],
    database: str,
    batch: str | None,
    conflict: str | None,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    wait: bool,
    simulate: bool,
    concurrency: int | None,
    no_live: bool,
) -> int:
    """Submit job files and work until every job is final.

    All files are checked before anything is queued or spent. Every piece of text is saved as it
    streams in: after Ctrl-C, a crash or a power cut, the same command goes on from the last saved
    character. The first Ctrl-C saves what streams and stops, the second stops at once.

    A spending limit, a budget, a refused key or the breaker pauses a batch, and the run ends once
    nothing else is left to do. With --wait it stays: `runner limits`, `runner resume` or `runner
    retry` from another terminal lets it go on, and every ten minutes one job finds out whether a
    spending limit was lifted.

    Where the job file sets `limits.confirm_above_usd` and what is left is expected to cost more, a
    person at a terminal is asked first.

    \b
    Example:
      runner run jobs.yaml
      runner run jobs.yaml --limit 5
      runner run jobs.yaml --wait
      runner run jobs.yaml --simulate --db trial.db

    Exit status: 0 if all documents of these batches are complete (with --limit: those of these
    jobs), 1 if some are not, 2 for a wrong job file or where you said no, 3 if a budget or a spend
    cap stopped it, 4 if the key was refused, 130 if it was interrupted.
    """
    job_files = read_job_files(files, batch)
    if dry_run:
        tell(estimated(job_files, database, simulate=simulate, limit=limit))
        return 0
    if not (simulate or yes):
        ask_above(job_files, database, limit)

    async def submit_and_work() -> int:
        # Imported when the files are known to be good: the SDK takes its time.
        from runner.cli.working import open_client, work_on
        from runner.library import open_store

        async with open_client(simulate=simulate) as client, open_store(database) as store:
            await submit_all(
                store, job_files, on_conflict(conflict), simulated=simulate, limit=limit
            )
            status = await work_on(
                store,
                client,
                batches=sorted({job_file.batch.name for job_file in job_files}),
                simulated=simulate,
                concurrency=concurrency,
                until_final=True,
                live=not no_live,
                wait=wait,
            )
            if status == 1 and limit is not None and await all_complete(store, job_files, limit):
                return 0  # what is not complete was queued before, and is not what was tried
            return status

    status = run_async(submit_and_work())
    if simulate:
        message(SIMULATED)
    return status
