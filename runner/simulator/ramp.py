"""The ramp: how fast the rate of requests may grow.

Source: Messages API documentation, rate limits ("acceleration limits"); how the real API measures
it is not published. Here the requests of the last minute may be made again in the next one, and
so many more.
"""

from __future__ import annotations

from collections import deque

_WINDOW_S = 60.0
_BURST_S = 5.0


class Ramp:
    """Lets requests in at the rate of the last minute, and at most `growth` a minute more.

    Args:
        growth: requests a minute by which the rate may grow within a minute; 0 is no limit.
        now_s: a monotonic clock, in seconds.
    """

    def __init__(self, growth: int, now_s: float) -> None:
        self.growth = growth
        self._admitted: deque[float] = deque()
        self._filled_s = now_s
        self._level = self._capacity(growth)

    def wait_s(self, now_s: float) -> float:
        """Seconds until one more request may come; 0 when it may come now."""
        if not self.growth:
            return 0.0
        while self._admitted and self._admitted[0] + _WINDOW_S <= now_s:
            self._fill(self._admitted.popleft() + _WINDOW_S, len(self._admitted) + 1)
        self._fill(now_s, len(self._admitted))
        # The rate falls with each request that is a minute old, also while one waits.
        level, at_s, count = self._level, now_s, len(self._admitted)
        for admitted_s in self._admitted:
            due_s = at_s + (1.0 - level) * 60 / (count + self.growth)
            if due_s <= admitted_s + _WINDOW_S:
                return max(0.0, due_s - now_s)
            level += (admitted_s + _WINDOW_S - at_s) * (count + self.growth) / 60
            at_s, count = admitted_s + _WINDOW_S, count - 1
        return max(0.0, at_s + (1.0 - level) * 60 / self.growth - now_s)

    def take(self, now_s: float) -> None:
        """One request was let in."""
        if self.growth:
            self._admitted.append(now_s)
            self._level -= 1

    def _fill(self, to_s: float, in_window: int) -> None:
        per_minute = in_window + self.growth
        grown = max(0.0, to_s - self._filled_s) * per_minute / 60
        self._level = min(self._capacity(per_minute), self._level + grown)
        self._filled_s = max(self._filled_s, to_s)

    def _capacity(self, per_minute: int) -> float:
        return max(1.0, per_minute * _BURST_S / 60)
