"""Takes over the jobs of processes that are gone."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from runner import faults
from runner.store.records import WorkerRow
from runner.store.store import Store
from runner.workers.lease import boot_clock
from runner.workers.progress import Progress
from runner.workers.settings import WorkerSettings


class Rescuer:
    """Looks for dead processes and hands their jobs back to the queue.

    On this machine the operating system says who is dead: a process holds a lock that the kernel
    drops with it, so a restart after `kill -9` goes on at once. A process that lives but does not
    renew its lease while we watch loses its jobs after `lease_s`. We measure that on our own clock,
    not by the time it wrote: a wall clock that is set, on either side, rescues nobody too early.
    Where a server's clock decides for all, its word is taken.
    """

    def __init__(
        self,
        store: Store,
        worker_id: str,
        settings: WorkerSettings,
        progress: Progress,
        *,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._settings = settings
        self._progress = progress
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}  # worker: its lease, and since when we see it

    async def run(self) -> None:
        """Look every few seconds."""
        while True:
            await anyio.sleep(self._settings.rescue_s)
            await self.look()

    async def look(self) -> None:
        """Rescue the jobs of every process that is gone."""
        most = self._settings.max_rescues
        rescued: list[str] = []
        others = [row for row in await self._store.workers() if row.id != self._worker_id]
        self._seen = {row.id: self._first_seen(row) for row in others}
        for row in others:
            if row.alive is False:
                faults.hit("rescue.before")
                rescued += await self._store.rescue(row.id, max_rescues=most)
            elif row.expired or self._clock() - self._seen[row.id][1] > self._settings.lease_s:
                rescued += await self._store.rescue(
                    row.id, max_rescues=most, lease_until_ms=row.lease_until_ms
                )
        rescued += await self._store.rescue_orphans(max_rescues=most)
        if rescued:
            faults.hit("rescue.after")
            self._progress.notice(
                f"{len(rescued)} interrupted {'job goes' if len(rescued) == 1 else 'jobs go'} on"
            )

    def _first_seen(self, row: WorkerRow) -> tuple[int, float]:
        """Its lease as it stands, and since when it stands so."""
        seen = self._seen.get(row.id)
        if seen is not None and seen[0] == row.lease_until_ms:
            return seen
        return row.lease_until_ms, self._clock()
