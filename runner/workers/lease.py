"""A process's sign of life, and the time for which it may trust its own claims."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio

from runner.errors import StoreError
from runner.store.store import Store
from runner.workers.settings import WorkerSettings

log = logging.getLogger(__name__)


def boot_clock() -> float:
    """Seconds on a clock that no one sets and that runs on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Lease:
    """Renews this process's lease, and says when it can no longer be trusted.

    Others may take our jobs over `lease_s` after the last renewal. We count from *before* that
    renewal was sent, on our own clock, and stop at `trust_s`: earlier than they can start, however
    long the renewal took and whatever the wall clock does.
    """

    def __init__(
        self,
        store: Store,
        worker_id: str,
        settings: WorkerSettings,
        *,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._settings = settings
        self._clock = clock
        self._renewed_at = clock()

    @property
    def trusted(self) -> bool:
        """Whether no other process can have taken our jobs over."""
        return self._left_s() > 0

    async def keep(self) -> None:
        """Renew until the trust is gone, then return."""
        while self.trusted:
            if not await self._renew(timeout_s=self._left_s()):
                return
            # Never asleep when the trust ends: the streams must stop then, not a heartbeat later.
            await anyio.sleep(min(self._settings.heartbeat_s, self._left_s()))
        log.warning("the lease was not renewed for %s s", self._settings.trust_s)

    def _left_s(self) -> float:
        """Seconds of trust that are left."""
        return max(0.0, self._settings.trust_s - (self._clock() - self._renewed_at))

    async def _renew(self, timeout_s: float) -> bool:
        """False: others took our jobs over already."""
        asked_at = self._clock()
        with anyio.move_on_after(timeout_s):
            try:
                kept = await self._store.renew_lease(
                    self._worker_id, lease_ms=round(self._settings.lease_s * 1000)
                )
            except StoreError as error:
                log.warning("the lease could not be renewed: %s", error)
                return True
            if not kept:
                return False
            self._renewed_at = asked_at
        return True
