"""`runner cancel`."""

from __future__ import annotations

import click

from runner.cli.choosing import chosen, jobs_argument, one_batch_option, states_option
from runner.cli.common import database_option, message, reading, run_async
from runner.cli.harmless import one_line
from runner.cli.validate import jobs
from runner.jobs.states import State


@click.command()
@jobs_argument
@database_option
@one_batch_option
@states_option(State.AVAILABLE, State.SCHEDULED, State.EXECUTING, State.RETRYABLE)
def cancel(
    references: tuple[str, ...], database: str, batch: str | None, states: tuple[str, ...]
) -> int:
    """Cancel jobs: what is not final will not be worked on.

    JOB is a job's id, or BATCH/ID where several batches have it. A job that is being written stops
    within two seconds, whichever process writes it, and keeps its text; `runner retry` lets it go
    on. Jobs that are final stay as they are.

    \b
    Example:
      runner cancel five-stories
      runner cancel --batch five-animals --state available

    Exit status: 0 if none of the named jobs will be worked on, 1 if one of them had ended otherwise.
    """

    async def order() -> int:
        async with reading(database) as store:
            selection, named = await chosen(store, references, batch=batch, states=states)
            message(f"{jobs(await store.cancel(selection))} cancelled")
            others = []
            for job in named:
                now = await store.job(job.key)
                if now.state is not State.CANCELLED:
                    others.append(now)
            for job in others:
                message(
                    one_line(f"{job.batch}/{job.id} was {job.state} already; it stays as it is")
                )
            return 1 if others else 0

    return run_async(order())
