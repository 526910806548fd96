"""`runner db copy`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from runner.cli.common import message, run_async
from runner.cli.harmless import harmless, one_line
from runner.cli.validate import jobs
from runner.errors import RunnerError, UsageError

if TYPE_CHECKING:
    from runner.store.copying import CopyReceipt, Told
    from runner.store.store import Store

# By whatever name, and through whatever pooler, a server was reached.
_WHICH = "SELECT pg_postmaster_start_time(), current_database(), current_schema()"
_HALF_WAY = "stopped half-way; nothing is lost, and the same command goes on from here"


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--batch", "batches", multiple=True, metavar="NAME", help="Only this batch; else all there are."
)
@click.option(
    "--wait",
    is_flag=True,
    help="Where it is worked on, let its open calls come to their end, then copy.",
)
@click.option(
    "--afresh",
    is_flag=True,
    help="Throw away what a copy that never became whole has left at TO, and begin anew.",
)
def copy(source: str, target: str, batches: tuple[str, ...], wait: bool, afresh: bool) -> int:
    """Move batches to another database, finished or half-way.

    FROM and TO are files or URLs, as of --db; TO is made where it is not there yet. Everything goes
    along: prompts, documents, calls, events, money. A document that is half written goes on at TO
    from its last saved character, and nothing is paid for again.

    A batch can be written at one place only. So it is paused at FROM for good, stays readable there,
    and says where it went; `runner resume NAME --copied` lifts that. At TO it stays paused until all
    of it has arrived. A copy that was stopped, however it was, is finished by the same command. What
    TO has already is never overwritten: a batch of the same name there is refused.

    \b
    Example:
      runner db copy runner.db postgresql+asyncpg://me@db1/runner
      runner work --db postgresql+asyncpg://me@db1/runner

    Exit status: 2 if a batch cannot go to TO because of what is there, 1 if it is worked on or could
    not be copied; the others were.
    """

    async def order() -> int:
        from runner.output.batches import known_batches
        from runner.store.copying import copy_batch
        from runner.store.store import Store
        from runner.workers.settings import WorkerSettings

        status = 0
        async with await Store.open(source, create=False) as left:
            rows = await known_batches(left, batches or None)
            async with await Store.open(target) as right:
                if await _same(left, right):
                    raise UsageError("FROM and TO are the same database. Nothing was copied.")
                for row in rows:
                    try:
                        with _progress(row.name) as progress:
                            receipt = await copy_batch(
                                left,
                                right,
                                row.name,
                                max_rescues=WorkerSettings().max_rescues,
                                wait=wait,
                                afresh=afresh,
                                progress=progress,
                            )
                    except RunnerError as error:
                        if len(rows) == 1:
                            raise
                        message(f"error: {harmless(str(error))}")
                        status = max(status, error.exit_status)
                    else:
                        _tell(receipt, right.database.shown)
        return status

    async def told() -> int:
        try:
            return await order()
        except asyncio.CancelledError:
            message(_HALF_WAY)
            raise

    return run_async(told())


def _tell(receipt: CopyReceipt, place: str) -> None:
    words = f"{receipt.batch}: {jobs(receipt.jobs)} in {place}"
    if receipt.again:
        words += f", {receipt.again:,} of them from before"
    if receipt.lost_nuls:
        words += (
            f"; {receipt.lost_nuls:,} NUL characters became U+FFFD, for no NUL can be held there"
        )
    message(one_line(words))


async def _same(left: Store, right: Store) -> bool:
    """Whether both are one and the same database."""
    if left.path and right.path:
        return left.path.samefile(right.path)
    if left.path or right.path:
        return False
    one, other = [
        await asyncio.to_thread(store.database.look, lambda read: read.execute(_WHICH).fetchall())
        for store in (left, right)
    ]
    return bool(one == other)


@contextmanager
def _progress(name: str) -> Iterator[Told]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from runner.cli.live import can_draw

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs"),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr, markup=False, emoji=False)
    with Progress(
        *columns, console=console, transient=True, disable=not can_draw(sys.stderr)
    ) as bar:
        task = bar.add_task(one_line(name), total=None)

        def told(arrived: int, of: int) -> None:
            bar.update(task, completed=arrived, total=of)

        yield told
