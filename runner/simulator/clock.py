"""The simulator's time, which may run faster than the clock on the wall."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class Clock:
    """Seconds of the simulator.

    Args:
        factor: how many of them pass in one second of the clients; 1 is real time.
    """

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def now_s(self) -> float:
        """Monotonic seconds of the simulator."""
        return asyncio.get_running_loop().time() * self.factor

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of the simulator; also for none, so that others have a turn."""
        await asyncio.sleep(max(0.0, seconds) / self.factor)

    def moment(self, seconds: float) -> str:
        """When so many seconds of the simulator have passed, as headers say it (RFC 3339)."""
        at = datetime.now(UTC) + timedelta(seconds=seconds / self.factor)
        # As the API sends it; where time runs fast a whole second would be far too coarse.
        precision = "seconds" if self.factor == 1 else "milliseconds"
        return at.isoformat(timespec=precision).replace("+00:00", "Z")
