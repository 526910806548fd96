"""Which jobs a command means: named, or chosen by batch, state and finish."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.errors import UsageError
from runner.jobs.states import Finish, State

if TYPE_CHECKING:
    from runner.store.reading import ReadingStore
    from runner.store.records import JobRow, Selection

F = TypeVar("F", bound=Callable[..., Any])

jobs_argument: Callable[[F], F] = click.argument("references", nargs=-1, metavar="[JOB]...")
one_batch_option: Callable[[F], F] = click.option(
    "--batch", metavar="NAME", help="All jobs of this batch."
)


def states_option(*among: State) -> Callable[[F], F]:
    """--state, for the states that the command can do something about."""
    return click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice([state.value for state in among]),
        help="All jobs in this state; may be given again.",
    )


async def chosen(
    store: ReadingStore,
    references: tuple[str, ...],
    *,
    batch: str | None = None,
    states: tuple[str, ...] = (),
    finishes: tuple[str, ...] = (),
) -> tuple[Selection, list[JobRow]]:
    """The selection, and the jobs that were named.

    Raises:
        UsageError: nothing was chosen, or both by name and otherwise.
        NotFound: there is no such job or batch.
    """
    from runner.output.batches import known_batches
    from runner.store.records import Selection

    filtered = batch is not None or states or finishes
    if not references and not filtered:
        raise UsageError("name jobs, or choose them by --batch, --state or the like (see --help).")
    if references and filtered:
        raise UsageError("name jobs, or choose them by options, not both; BATCH/ID names one job.")
    if references:
        named = [await store.find_job(reference) for reference in references]
        return Selection(job_keys=tuple(job.key for job in named)), named
    if batch is not None:
        await known_batches(store, [batch])
    return Selection(
        batch=batch,
        states=frozenset(map(State, states)),
        finishes=frozenset(map(Finish, finishes)),
    ), []
