"""A rehearsal: some documents written by the simulator for trial, in a database that is thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from runner.jobs.spec import BatchLimits, BatchSpec, JobSpec
from runner.library import open_store
from runner.messages.client import MessagesClient
from runner.store.records import FinishedJob
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker

# What is not finished then is left out: an estimate should not keep anybody waiting.
LONGEST_S = 20.0
# Nothing of it is kept, so nothing needs to be saved soon.
_SETTINGS = WorkerSettings(checkpoint_s=1.0, checkpoint_characters=100_000, poll_s=0.02)


async def rehearse(
    client: MessagesClient, batch: BatchSpec, jobs: Sequence[JobSpec]
) -> list[FinishedJob]:
    """The documents of these jobs that came to their end, and what their calls used.

    Args:
        client: the way to a simulator: whatever is written here is paid for.
        batch: theirs; its budget and pace do not hold here.
    """
    limits = BatchLimits(
        concurrency=batch.limits.concurrency,
        concurrency_by_model=batch.limits.concurrency_by_model,
        breaker=False,
        prices=batch.limits.prices,
    )
    with TemporaryDirectory(prefix="runner-estimate-") as folder:
        async with open_store(Path(folder) / "rehearsal.db") as store:
            await store.submit(BatchSpec(batch.name, limits), jobs, simulated=True)
            worker = Worker(store, client, simulated=True, settings=_SETTINGS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_later, worker)
                await worker.run()
                tasks.cancel_scope.cancel()
            return await store.finished(
                models={job.model for job in jobs}, simulated=True, limit=len(jobs)
            )


async def _stop_later(worker: Worker) -> None:
    await anyio.sleep(LONGEST_S)
    worker.stop()
