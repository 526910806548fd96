"""What `run` and `work` share: a worker, its signals, its display, and what is said at the end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from runner.cli.common import message
from runner.cli.harmless import one_line
from runner.cli.live import Show, can_draw
from runner.cli.machine import hazards
from runner.cli.main import INTERRUPTED
from runner.cli.money import spent
from runner.cli.pauses import pause_line
from runner.cli.signals import stopping_by_signal
from runner.jobs.states import State
from runner.library import lift_pauses
from runner.messages.client import MessagesClient
from runner.messages.tls import read_small
from runner.store.records import BatchRow, PauseCause
from runner.store.store import Store
from runner.workers.progress import Progress
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker

_STATUS = {PauseCause.SPEND_CAP: 3, PauseCause.BUDGET: 3, PauseCause.CREDENTIALS: 4}
SIMULATED_TOKENS_PER_SECOND = 1500.0
_STOPPING = "stopping: saving what streams; press Ctrl-C again to stop at once"


@asynccontextmanager
async def open_client(*, simulate: bool) -> AsyncIterator[MessagesClient]:
    """The way to the API, or to a simulated one that lives as long as this block.

    Raises:
        CredentialsError: there is no key.
    """
    read_small()
    async with AsyncExitStack() as stack:
        if simulate:
            from runner.simulator import Simulator, SimulatorOptions

            simulator = await stack.enter_async_context(
                Simulator(
                    SimulatorOptions(tokens_per_second=SIMULATED_TOKENS_PER_SECOND, bills_kept=0)
                )
            )
            # It behaves as the real API does, so nothing is to be done otherwise than there.
            client = MessagesClient(
                api_key="simulated", base_url=simulator.base_url, one_block=False
            )
        else:
            client = MessagesClient()
        try:
            yield client
        finally:
            with anyio.CancelScope(shield=True):
                await client.aclose()


async def work_on(
    store: Store,
    client: MessagesClient,
    *,
    batches: Sequence[str] | None,
    simulated: bool,
    concurrency: int | None,
    until_final: bool,
    live: bool,
    wait: bool = False,
) -> int:
    """Work, showing how it goes, and say at the end what came of it.

    Args:
        batches: names; None takes all there are, also those that are queued meanwhile.
        simulated: work on simulated batches; else on real ones.
        wait: wait for batches that are paused, whatever paused them.

    Returns:
        The exit status.
    """
    for warning in await hazards(store):
        message(one_line(f"warning: {warning}"))
    keys = await lift_pauses(store, batches, simulated=simulated)

    async def ours() -> list[BatchRow]:
        return [row for row in await store.batches(batches) if row.simulated is simulated]

    worker = Worker(
        store,
        client,
        batch_keys=None if batches is None else keys,
        simulated=simulated,
        until_final=until_final,
        wait=wait,
        settings=WorkerSettings(concurrency=concurrency),
        progress=Progress(),
    )
    show = Show(ours, worker.progress, live=live and can_draw(sys.stderr))

    def stop() -> None:
        worker.progress.notice(_STOPPING)
        worker.stop()
        show.look()

    with stopping_by_signal(stop):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(show.run)
            try:
                await worker.run()
            finally:
                show.end()
    rows = await ours()
    sum_up(rows)
    return exit_status(rows, stopped=worker.progress.stopping)


def exit_status(rows: Sequence[BatchRow], *, stopped: bool) -> int:
    """0 all documents complete; 3 and 4 say why a batch is paused; 130 stopped by the user before
    the end; 1 anything else that is not complete."""
    if all(row.complete == row.jobs for row in rows):
        return 0
    if causes := [_STATUS[row.paused] for row in rows if row.paused in _STATUS]:
        return max(causes)
    unfinished = any(not state.final and row.count(state) for row in rows for state in State)
    return INTERRUPTED if stopped and unfinished else 1


def sum_up(rows: Sequence[BatchRow]) -> None:
    """Say on stderr what stands in the database now, and where to read it."""
    for row in rows:
        counts = {
            "complete": row.complete,
            "cut": row.cut,
            "failed": row.count(State.DISCARDED),
            "cancelled": row.count(State.CANCELLED),
            "unfinished": row.count(*(state for state in State if not state.final)),
        }
        words = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
        estimated = "~" if row.usage.estimated else ""
        message(
            one_line(
                f"{row.name}{' (simulated)' if row.simulated else ''}: {row.jobs:,} documents: {words or 'none'}; {row.calls:,} calls, "
                f"{row.usage.total_input_tokens:,} input and {estimated}"
                f"{row.usage.output_tokens:,} output tokens; cost {spent(row)}"
            )
        )
        if row.paused:
            message(one_line(pause_line(row)))
    message(
        "read them: `runner export` writes files, `runner list` and `runner show JOB` tell more, "
        "`runner cost` what was paid for what"
    )
