"""`runner status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from runner.cli.common import database_option, json_option, print_json, reading, run_async
from runner.cli.harmless import one_line
from runner.cli.table import echo_table
from runner.jobs.states import State

if TYPE_CHECKING:
    from runner.store.records import BatchRow

_WAITING = (State.AVAILABLE, State.SCHEDULED, State.RETRYABLE)


@click.command()
@database_option
@click.option("--batch", "batches", multiple=True, metavar="NAME", help="Only this batch.")
@json_option
def status(database: str, batches: tuple[str, ...], as_json: bool) -> None:
    """Show how far each batch is.

    Works while a run is writing, from any other terminal. With --json, one object with the key
    `batches`: a list of objects with counts of jobs, calls and usage.

    \b
    Example:
      runner status
      runner status --batch five-animals --json
    """

    async def read() -> list[BatchRow]:
        from runner.output.batches import known_batches

        async with reading(database) as store:
            return await known_batches(store, batches or None)

    rows = run_async(read())
    if as_json:
        print_json({"batches": [batch_json(row) for row in rows]})
    elif rows:
        _print(rows)
    else:
        click.echo("no jobs yet: `runner submit FILE` queues some", err=True)


def _print(rows: Sequence[BatchRow]) -> None:
    echo_table(
        (
            "batch", "jobs", "complete", "cut", "failed", "cancelled", "executing", "waiting",
            "calls", "input tokens", "output tokens",
        ),
        [
            (
                row.name,
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
            )
            for row in rows
        ],
    )  # fmt: skip
    for row in rows:
        if row.paused:
            reason = f": {row.pause_reason}" if row.pause_reason else ""
            click.echo(one_line(f"{row.name} is paused ({row.paused}){reason}"))


def batch_json(row: BatchRow) -> dict[str, Any]:
    """A batch as JSON: the words of the tables."""
    from runner.output.document import usage_json

    return {
        "batch": row.name,
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
        "created_ms": row.created_ms,
    }
