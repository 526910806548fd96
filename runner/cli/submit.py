"""`runner submit`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli.common import database_option, files_argument, message, run_async
from runner.cli.harmless import one_line
from runner.cli.validate import batch_option, jobs, read_job_files

if TYPE_CHECKING:
    from runner.jobs.jobfile import JobFile
    from runner.store.records import OnConflict, SubmitReceipt
    from runner.store.store import Store

_LOOKED_UP = 2_000  # jobs that are looked up at once

F = TypeVar("F", bound=Callable[..., Any])


def conflict_options(function: F) -> F:
    """--replace and --keep: what to do with an id that is known with another prompt."""
    replace = click.option(
        "--replace",
        "conflict",
        flag_value="replace",
        help="A changed prompt takes over; the document is written afresh.",
    )
    keep = click.option(
        "--keep",
        "conflict",
        flag_value="keep",
        help="A job whose prompt was changed stays as it was.",
    )
    return replace(keep(function))


def on_conflict(chosen: str | None) -> OnConflict:
    """The store's word for what was chosen; without a choice a conflict is an error."""
    from runner.store.records import OnConflict

    return OnConflict(chosen or "error")


@click.command()
@files_argument
@database_option
@batch_option
@conflict_options
@click.option(
    "--simulate",
    is_flag=True,
    help="Their documents will be simulated ones, written by `runner work --simulate`.",
)
def submit(
    files: tuple[Path, ...],
    database: str,
    batch: str | None,
    conflict: str | None,
    simulate: bool,
) -> None:
    """Queue the jobs of job files, and do no work.

    All files are checked before anything is queued. Jobs that are there already are left alone, so
    the same command may be given again; one whose prompt was changed is refused unless --replace or
    --keep is given.

    \b
    Example:
      runner submit jobs.yaml
    """
    job_files = read_job_files(files, batch)

    async def queue() -> None:
        from runner.store.store import Store

        async with await Store.open(database) as store:
            await submit_all(store, job_files, on_conflict(conflict), simulated=simulate)

    run_async(queue())


async def submit_all(
    store: Store,
    job_files: Sequence[JobFile],
    on_conflict: OnConflict,
    *,
    simulated: bool,
    limit: int | None = None,
) -> list[SubmitReceipt]:
    """Queue the jobs of several files, saying on stderr what came of each.

    Args:
        limit: only the first so many jobs of each file.

    Raises:
        UsageError: a batch holds documents of the other kind, simulated or real; nothing was queued.
        SubmitConflict: an id is known with another prompt; nothing of that file was queued.
    """
    from runner.store.submit import refuse_other_kind

    # What was imported stays: a million jobs are queued in a tenth less time where the collector
    # does not look through it again and again.
    gc.freeze()
    # All of them first: nothing is queued where one of several files is refused.
    for row in await store.batches([job_file.batch.name for job_file in job_files]):
        refuse_other_kind(row.name, known=row.simulated, simulated=simulated)
    receipts = []
    for job_file in job_files:
        receipt = await store.submit(
            job_file.batch,
            partial(job_file.first, limit),
            on_conflict=on_conflict,
            simulated=simulated,
        )
        receipts.append(receipt)
        message(one_line(f"{job_file.batch.name}: {_words(receipt)}"))
    return receipts


async def all_complete(store: Store, job_files: Sequence[JobFile], limit: int) -> bool:
    """Whether the documents of the first jobs of all files are complete."""
    from anyio import to_thread

    from runner.jobs.states import State

    for job_file in job_files:
        (row,) = await store.batches([job_file.batch.name])
        first = job_file.first(limit)
        while ids := await to_thread.run_sync(
            lambda jobs: [job.id for job in islice(jobs, _LOOKED_UP)], first
        ):
            there = await store.known(row.key, ids)
            if len(there) < len(ids) or not all(
                job.state is State.COMPLETED and job.finish is not None and job.finish.complete
                for job in there.values()
            ):
                return False
    return True


def _words(receipt: SubmitReceipt) -> str:
    counts = {
        "new": receipt.new,
        "there already": receipt.present,
        "replaced": receipt.replaced,
        "kept as they were": receipt.kept,
    }
    total = sum(counts.values())
    return f"{jobs(total)}, " + ", ".join(f"{n:,} {word}" for word, n in counts.items() if n)
