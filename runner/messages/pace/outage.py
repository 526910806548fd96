"""When a server is down for all: one call at a time tries it, the others wait."""

from __future__ import annotations

import math
from collections import deque
from random import Random

FAILURES = 5  # one after another, with no success between them
# Of errors that might be the jobs' own: more than it takes to pause a batch whose jobs all fail.
DOUBTFUL_FAILURES = 25
_FIRST_S = 1.0
MOST_S = 60.0  # between two probes
_JITTER = 0.2
_RECENT = 20
_TROUBLED = 3  # failures among them, from which on use grows no more
_STORMY = 0.5  # the part of recent calls that failed, from which on a failure says nothing


class Outage:
    """Counts failures that are the server's, and lets one probe through at growing distances.

    Args:
        random: where the jitter comes from.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failures = 0
        self._sure_failures = 0
        self._recent: deque[bool] = deque(maxlen=_RECENT)
        self._next_s = -math.inf
        self.began_s: float | None = None
        self.reason = ""

    @property
    def on(self) -> bool:
        return self.began_s is not None

    def age_s(self, now_s: float) -> float:
        """Seconds since it began; 0 where none is on."""
        return 0.0 if self.began_s is None else now_s - self.began_s

    @property
    def troubled(self) -> bool:
        """Whether so much fails that nothing should be asked for beyond what is."""
        return sum(self._recent) >= _TROUBLED

    @property
    def stormy(self) -> bool:
        """Whether so much fails that a failure says nothing of the job that met it."""
        full = len(self._recent) == _RECENT
        return self.on or (full and sum(self._recent) > _STORMY * _RECENT)

    def rest_s(self, now_s: float) -> float:
        """Seconds until a probe may go; 0 when it may, or where no outage is on."""
        return max(0.0, self._next_s - now_s) if self.on else 0.0

    def failed(self, reason: str, now_s: float, *, servers_own: bool, pending: int = 0) -> bool:
        """A call got no answer for a reason of the server's; whether an outage begins with it.

        Args:
            servers_own: it cannot be the job's doing, as an overload or a dead connection.
            pending: other calls that wait for their answer. Errors come sooner than answers, so
                the first of many that began together tell nothing of the others.
        """
        self._recent.append(True)
        self._failures += 1
        self._sure_failures += servers_own
        self.reason = reason
        if self.on:
            self._next_s = max(self._next_s, now_s + self._distance_s(now_s))
            return False
        sure = self._sure_failures >= max(FAILURES, pending)
        if sure or self._failures >= max(DOUBTFUL_FAILURES, pending):
            self.began_s = now_s
            self._next_s = now_s + self._distance_s(now_s)
            return True
        return False

    def join(self, reason: str, seconds: float, now_s: float) -> None:
        """Another process says that the server is down, and that nobody may try it for so long."""
        if not self.on:
            self.began_s = now_s
            self.reason = reason
        self._next_s = max(self._next_s, now_s + seconds)

    def distance_s(self, now_s: float) -> float:
        """Seconds from one probe to the next: they grow with the outage."""
        return min(MOST_S, max(_FIRST_S, self.age_s(now_s) / 2))

    def probing(self, now_s: float) -> None:
        """A probe goes; no other until it comes to something, or the time has passed again."""
        self._next_s = now_s + self._distance_s(now_s)

    def succeeded(self, now_s: float) -> float | None:
        """A call was answered; where that ends an outage, the seconds it lasted."""
        if self.on:
            self._recent.clear()  # what failed then says nothing of now
        self._recent.append(False)
        self._failures = 0
        self._sure_failures = 0
        began_s, self.began_s = self.began_s, None
        self._next_s = -math.inf
        return None if began_s is None else now_s - began_s

    def _distance_s(self, now_s: float) -> float:
        return self.distance_s(now_s) * (1.0 + self._random.uniform(-_JITTER, 0.0))
