"""The time of a PostgreSQL server, which decides for all machines that work on its database."""

from __future__ import annotations

import time
from typing import Final

PROMPT_MS: Final = 500
PASSED_BY_MS: Final = 60_000

SERVER_MS: Final = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"


class ServerClock:
    """The server's time, told by this machine's own steady clock between two looks at it.

    So no wall clock of a worker decides anything, and machines whose clocks differ agree.
    """

    def __init__(self) -> None:
        self._ahead_ms: float | None = None
        self._seen_ms = 0.0

    def seen(self, server_ms: int, asked_ms: float) -> None:
        """The server has just told its time.

        An answer that took long is passed by for a while: it may have been long under way.

        Args:
            asked_ms: when it was asked, by this machine's steady clock.
        """
        now_ms = steady_ms()
        if (
            self._ahead_ms is None
            or now_ms - asked_ms <= PROMPT_MS
            or now_ms - self._seen_ms > PASSED_BY_MS
        ):
            self._ahead_ms, self._seen_ms = server_ms - now_ms, now_ms

    def now_ms(self) -> int:
        if self._ahead_ms is None:
            return time.time_ns() // 1_000_000  # nothing was asked of the server yet
        return round(steady_ms() + self._ahead_ms)


def steady_ms() -> float:
    """Milliseconds on a clock of this machine that nobody sets."""
    # It runs on while the machine sleeps, and nobody sets it.
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock) * 1000
