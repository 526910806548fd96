"""Takes over the jobs of processes that are gone."""

from __future__ import annotations

import logging

import anyio

from runner.store.store import Store
from runner.workers.progress import Progress
from runner.workers.settings import WorkerSettings

log = logging.getLogger(__name__)


class Rescuer:
    """Looks for dead processes and hands their jobs back to the queue.

    On this machine the operating system says who is dead: a process holds a lock that the kernel
    drops with it, so a restart after `kill -9` goes on at once. A process that lives but gives no
    sign of life loses its jobs when its lease runs out.
    """

    def __init__(
        self, store: Store, worker_id: str, settings: WorkerSettings, progress: Progress
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._settings = settings
        self._progress = progress

    async def run(self) -> None:
        """Look every few seconds."""
        while True:
            await anyio.sleep(self._settings.rescue_s)
            await self.look()

    async def look(self) -> None:
        """Rescue the jobs of every process that is gone."""
        rescued: list[str] = []
        for worker in await self._store.workers():
            if worker.id != self._worker_id and worker.gone:
                rescued += await self._store.rescue(
                    worker.id, max_rescues=self._settings.max_rescues
                )
        rescued += await self._store.rescue_orphans(max_rescues=self._settings.max_rescues)
        if rescued:
            self._progress.notice(
                f"{len(rescued)} interrupted {'job goes' if len(rescued) == 1 else 'jobs go'} on"
            )
