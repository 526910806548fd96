"""`runner retry`."""

from __future__ import annotations

import click

from runner.cli.choosing import chosen, jobs_argument, one_batch_option, states_option
from runner.cli.common import database_option, message, reading, run_async
from runner.cli.harmless import one_line
from runner.cli.validate import jobs
from runner.jobs.states import Finish, State


@click.command()
@jobs_argument
@database_option
@one_batch_option
@states_option(State.COMPLETED, State.CANCELLED, State.DISCARDED)
@click.option(
    "--finish",
    "finishes",
    multiple=True,
    type=click.Choice([finish.value for finish in Finish]),
    help="All documents that ended so; may be given again.",
)
@click.option("--afresh", is_flag=True, help="Begin with an empty document.")
def retry(
    references: tuple[str, ...],
    database: str,
    batch: str | None,
    states: tuple[str, ...],
    finishes: tuple[str, ...],
    afresh: bool,
) -> int:
    """Put jobs that ended back in the queue, keeping their text.

    JOB is a job's id, or BATCH/ID where several batches have it. The document goes on from its end,
    and what was made of it before counts against no bound: one that max_calls cut has as many calls
    again. To raise a bound as well, change the job file and submit it after this. Complete documents
    are left alone, unless --afresh asks for them anew; their old calls then stay in the books.
    `runner run` or `runner work` does the work.

    \b
    Example:
      runner retry --finish max_calls
      runner retry --batch five-animals --state discarded
      runner retry five-stories --afresh

    Exit status: 0 if all named jobs are in the queue, 1 if not.
    """

    async def order() -> int:
        async with reading(database) as store:
            selection, named = await chosen(
                store, references, batch=batch, states=states, finishes=finishes
            )
            message(f"{jobs(await store.retry(selection, afresh=afresh))} back in the queue")
            others = []
            for job in named:
                now = await store.job(job.key)
                if now.state.final:
                    others.append(now)
            for job in others:
                message(one_line(f"{job.batch}/{job.id} is complete; --afresh has it written anew"))
            return 1 if others else 0

    return run_async(order())
