"""A bucket of tokens that fills all the time: how much may be used now, and when more."""

from __future__ import annotations

import math

_NOTHING = 1e-6  # of what it holds: less is not waited for


class Bucket:
    """What one limit of so much a minute allows from moment to moment.

    It holds little, so that use is smooth: a server may keep a limit by the minute or by the
    second, and does not say which. An amount larger than the bucket goes when the bucket is full,
    and leaves a debt that is waited for; so nothing waits for ever, and on average the rate is
    kept. Source: Messages API documentation, rate limits (token bucket).

    Args:
        per_s: what flows in each second.
        burst_s: seconds' worth that it holds, at least `least`.
        now_s: a monotonic clock, in seconds.
    """

    __slots__ = ("_burst_s", "_filled_s", "_least", "level", "per_s")

    def __init__(self, per_s: float, burst_s: float, now_s: float, *, least: float = 1.0) -> None:
        self._burst_s = burst_s
        self._least = least
        self._filled_s = now_s
        self.per_s = per_s
        self.level = self.capacity

    @property
    def capacity(self) -> float:
        """What it holds when it is full."""
        return max(self._least, self.per_s * self._burst_s)

    def fill(self, now_s: float) -> None:
        """Let in what came since the last look."""
        passed_s = max(0.0, now_s - self._filled_s)
        self.level = min(self.capacity, self.level + passed_s * self.per_s)
        self._filled_s = now_s

    def set_rate(self, per_s: float, now_s: float) -> None:
        """Let another amount flow in from now on; a debt keeps its length in time."""
        self.fill(now_s)
        if self.level < 0 < self.per_s:
            self.level *= per_s / self.per_s
        self.per_s = per_s
        self.level = min(self.level, self.capacity)

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` may be taken; 0 when it may be taken now."""
        self.fill(now_s)
        missing = min(amount, self.capacity) - self.level
        if missing <= _NOTHING * self.capacity:
            return 0.0
        return missing / self.per_s if self.per_s > 0 else math.inf

    def take(self, amount: float, now_s: float) -> None:
        """Take `amount`, or give back where it is negative; the level may go below nothing."""
        self.fill(now_s)
        self.level = min(self.capacity, self.level - amount)
