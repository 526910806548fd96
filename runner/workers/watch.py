"""Notices what others did to jobs that this process works on: cancelled, replaced, paused."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from runner.store.store import Store
from runner.workers.job_run import Interruption, JobRun


class Watch:
    """Looks at the database while jobs run, and tells the runs what it sees.

    A stream that brings text finds out by itself, when its next chunk is refused; one that is
    silent (a model that thinks, a stall) does not. The look costs microseconds while nobody has
    written, and one short query when somebody has.

    Args:
        running: the runs of this process, by job key; it changes meanwhile.
    """

    def __init__(
        self, store: Store, worker_id: str, running: Mapping[int, JobRun], every_s: float
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._running = running
        self._every_s = every_s
        self._version = -1

    async def run(self) -> None:
        """Look every `every_s` seconds."""
        while True:
            await anyio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Interrupt the runs whose claim is gone; tell the others whether their batch is paused."""
        version = await self._store.data_version()
        # Before the question: whatever is claimed while it is asked must not be taken for lost.
        runs = list(self._running.values())
        if version == self._version or not runs:
            return
        self._version = version
        held = await self._store.held(self._worker_id)
        for run in runs:
            if held.claims.get(run.claim.job_key) != run.claim.number:
                run.interrupt(Interruption.CLAIM_LOST)
            run.paused = held.paused.get(run.claim.batch_key)
