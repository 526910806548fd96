"""`runner list`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import click

from runner.cli.common import colour, database_option, json_option, print_json, reading, run_async
from runner.cli.money import cost_cell
from runner.cli.table import LOOK_AHEAD, Table
from runner.jobs.states import Finish, State

if TYPE_CHECKING:
    from runner.store.records import JobRow

_HEADER = ("job", "batch", "state", "finish", "calls", "output tokens", "cost", "error")


@click.command("list")
@database_option
@click.option("--batch", metavar="NAME", help="Only this batch.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in State]),
    help="Only jobs in this state; may be given again.",
)
@click.option(
    "--finish",
    "finishes",
    multiple=True,
    type=click.Choice([finish.value for finish in Finish]),
    help="Only documents that ended so; may be given again.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N jobs.")
@json_option
def list_jobs(
    database: str,
    batch: str | None,
    states: tuple[str, ...],
    finishes: tuple[str, ...],
    limit: int | None,
    as_json: bool,
) -> None:
    """List jobs, filtered.

    Output tokens and cost with a ~ are in part our own estimate: a stream broke before the API
    counted. With --json, one JSON object a line and job.

    \b
    Example:
      runner list --state discarded
      runner list --finish max_calls --json
    """

    async def listing() -> None:
        async with reading(database) as store:
            rows = store.jobs(
                batch=batch,
                states=[State(state) for state in states],
                finishes=[Finish(finish) for finish in finishes],
                limit=limit,
            )
            await (_print_json(rows) if as_json else _print_table(rows))

    run_async(listing())


async def _print_json(rows: AsyncIterator[JobRow]) -> None:
    from runner.output.document import job_json

    async for row in rows:
        print_json(job_json(row))


async def _print_table(rows: AsyncIterator[JobRow]) -> None:
    """Print as rows come: widths are settled by the first of them."""
    first: list[Sequence[object]] = []
    table: Table | None = None
    async for row in rows:
        cells = _cells(row)
        if table is not None:
            click.echo(table.line(cells))
            continue
        first.append(cells)
        if len(first) == LOOK_AHEAD:
            table = _begin(first)
    if table is None:
        _begin(first)


def _begin(first: list[Sequence[object]]) -> Table:
    table = Table(_HEADER, first)
    click.echo(table.head(bold=colour()))
    for cells in first:
        click.echo(table.line(cells))
    return table


def _cells(job: JobRow) -> Sequence[object]:
    return (
        job.id,
        f"{job.batch} (simulated)" if job.simulated else job.batch,
        job.state,
        job.finish,
        job.calls,
        f"{'~' if job.usage.estimated else ''}{job.usage.output_tokens:,}",
        cost_cell(job.cost_nano_usd, job.unpriced_calls, estimated=job.usage.estimated),
        job.error or "",
    )
