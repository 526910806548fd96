"""For how long a process may trust its own claims, counted from before it asked to keep them."""

from __future__ import annotations

import anyio
import pytest

from runner.workers.lease import Lease
from runner.workers.settings import WorkerSettings

pytestmark = pytest.mark.anyio

SETTINGS = WorkerSettings(lease_s=60, trust_s=50)


class SlowStore:
    """A store whose renewal takes its time, on a clock of its own."""

    def __init__(self, takes_s: float, *, kept: bool = True) -> None:
        self.now_s = 1000.0
        self._takes_s = takes_s
        self._kept = kept

    def clock(self) -> float:
        return self.now_s

    async def renew_lease(self, worker_id: str, *, lease_ms: int) -> bool:  # noqa: ARG002
        self.now_s += self._takes_s
        return self._kept


async def test_trust_counts_from_before_the_renewal_was_sent():
    """The store may have written the lease at any moment until its answer came: the earliest one
    is what others count from."""
    store = SlowStore(takes_s=30)
    lease = Lease(store, "w", SETTINGS, clock=store.clock)  # type: ignore[arg-type]
    assert await lease._renew(timeout_s=60)
    store.now_s += 19
    assert lease.trusted
    store.now_s += 1  # 50 s since it was sent, 20 s since the answer
    assert not lease.trusted


async def test_a_renewal_that_took_longer_than_the_trust_renews_nothing():
    store = SlowStore(takes_s=51)
    lease = Lease(store, "w", SETTINGS, clock=store.clock)  # type: ignore[arg-type]
    await lease._renew(timeout_s=60)
    assert not lease.trusted


async def test_one_who_was_rescued_is_told_so():
    store = SlowStore(takes_s=0, kept=False)
    lease = Lease(store, "w", SETTINGS, clock=store.clock)  # type: ignore[arg-type]
    assert not await lease._renew(timeout_s=60)


async def test_nobody_sleeps_over_the_end_of_the_trust():
    """A renewal that hangs ends with the trust, and so does the keeping of the lease."""

    class Hangs:
        async def renew_lease(self, worker_id: str, *, lease_ms: int) -> bool:  # noqa: ARG002
            await anyio.sleep_forever()
            return True

    settings = WorkerSettings(lease_s=120, trust_s=0.05, heartbeat_s=60)
    lease = Lease(Hangs(), "w", settings)  # type: ignore[arg-type]
    with anyio.fail_after(60):
        await lease.keep()
    assert not lease.trusted
