"""`runner status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from runner.cli.common import database_option, json_option, print_json, reading, run_async
from runner.cli.harmless import one_line
from runner.cli.meter import duration
from runner.cli.money import budget_lines, cost_cell
from runner.cli.pauses import pause_line
from runner.cli.table import echo_table
from runner.jobs.price import usd_json
from runner.jobs.states import State

if TYPE_CHECKING:
    from runner.store.records import BatchRow, WorkerRow

WINDOW_MS = 600_000
ENOUGH_ENDS = 3  # jobs; fewer say nothing about the others

_WAITING = (State.AVAILABLE, State.SCHEDULED, State.RETRYABLE)


@click.command()
@database_option
@click.option("--batch", "batches", multiple=True, metavar="NAME", help="Only this batch.")
@json_option
def status(database: str, batches: tuple[str, ...], as_json: bool) -> None:
    """Show how far each batch is.

    Works while a run is writing, from any other terminal. With --json, one object with the key
    `batches`: a list of objects with counts of jobs, calls and usage, and `workers`: the processes
    that are at work. The time left is told while some are, by how many jobs ended in the last ten
    minutes.

    \b
    Example:
      runner status
      runner status --batch five-animals --json
    """

    async def read() -> tuple[list[BatchRow], list[WorkerRow], dict[int, float]]:
        from runner.output.batches import known_batches
        from runner.store.store import wall_clock

        async with reading(database) as store:
            rows = await known_batches(store, batches or None)
            workers = [row for row in await store.workers() if row.alive is not False]
            if not workers:
                return rows, [], {}
            now_ms = wall_clock()
            ends = await store.last_ends(since_ms=now_ms - WINDOW_MS)
            return rows, workers, seconds_left(rows, ends, now_ms)

    rows, workers, left_s = run_async(read())
    if as_json:
        print_json(
            {
                "batches": [
                    batch_json(row) | {"seconds_left": left_s.get(row.key)} for row in rows
                ],
                "workers": [worker_json(row) for row in workers],
            }
        )
    elif rows:
        _print(rows)
        _print_how_it_goes(rows, workers, left_s)
    else:
        click.echo("no jobs yet: `runner submit FILE` queues some", err=True)


def _print(rows: Sequence[BatchRow]) -> None:
    echo_table(
        (
            "batch", "jobs", "complete", "cut", "failed", "cancelled", "executing", "waiting",
            "calls", "input tokens", "output tokens", "cost",
        ),
        [
            (
                f"{row.name} (simulated)" if row.simulated else row.name,
                row.jobs,
                row.complete,
                row.cut,
                row.count(State.DISCARDED),
                row.count(State.CANCELLED),
                row.count(State.EXECUTING),
                row.count(*_WAITING),
                row.calls,
                row.usage.total_input_tokens,
                f"{'~' if row.usage.estimated else ''}{row.usage.output_tokens:,}",
                cost_cell(
                    row.cost_nano_usd, row.unpriced_calls, estimated=row.usage.estimated
                ),
            )
            for row in rows
        ],
    )  # fmt: skip


def _print_how_it_goes(
    rows: Sequence[BatchRow], workers: Sequence[WorkerRow], left_s: Mapping[int, float]
) -> None:
    for worker in workers:
        click.echo(
            one_line(f"at work: worker {worker.id[:8]}, process {worker.pid} on {worker.host}")
        )
    if not workers and any(row.unfinished and not row.paused for row in rows):
        click.echo("no process is at work: `runner work` starts one")
    for row in rows:
        for line in budget_lines(row):
            click.echo(one_line(line))
        if row.paused:
            click.echo(one_line(pause_line(row)))
        elif row.key in left_s:
            click.echo(one_line(f"{row.name}: about {duration(left_s[row.key])} left"))


def seconds_left(
    rows: Sequence[BatchRow], ends: Sequence[tuple[int, int]], now_ms: int
) -> dict[int, float]:
    """Time left of each batch, by key, at the pace of its last ends; none where it cannot be told.

    Args:
        ends: batch key and time of the jobs that ended last, newest first.
    """
    left: dict[int, float] = {}
    for row in rows:
        times = [at_ms for batch_key, at_ms in ends if batch_key == row.key]
        if len(times) >= ENOUGH_ENDS and row.unfinished and not row.paused:
            span_ms = max(1, now_ms - times[-1])
            left[row.key] = row.unfinished * span_ms / 1000 / len(times)
    return left


def worker_json(row: WorkerRow) -> dict[str, Any]:
    """A worker as JSON."""
    return {"id": row.id, "host": row.host, "pid": row.pid, "started_ms": row.started_ms}


def batch_json(row: BatchRow) -> dict[str, Any]:
    """A batch as JSON: the words of the tables."""
    from runner.output.document import usage_json

    return {
        "batch": row.name,
        "simulated": row.simulated,
        "jobs": row.jobs,
        "complete": row.complete,
        "cut": row.cut,
        "states": {state.value: row.count(state) for state in State},
        "finishes": {
            finish.value: count
            for (_, finish), count in sorted(row.counts.items(), key=str)
            if finish is not None
        },
        "paused": row.paused,
        "pause_reason": row.pause_reason,
        "calls": row.calls,
        "usage": usage_json(row.usage),
        "cost_usd": usd_json(row.cost_nano_usd),
        "unpriced_calls": row.unpriced_calls,
        "max_cost_usd": usd_json(row.limits.max_cost_nano_usd),
        "reserved_usd": usd_json(row.reserved_nano_usd),
        "spent_output_tokens": row.spent_output_tokens,
        "max_output_tokens": row.limits.max_output_tokens,
        "created_ms": row.created_ms,
    }
