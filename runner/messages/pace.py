"""How many calls may start now: open calls are counted, and a limited model cools down for all.

Pure bookkeeping: it never sleeps and sends nothing. Who owns it asks, and waits.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping


class Pace:
    """The one place that knows which calls are open and which models must rest.

    Args:
        concurrency: calls open at once, over all models.
        by_model: the same for single models, by the name that requests give.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        concurrency: int,
        by_model: Mapping[str, int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._concurrency = concurrency
        self._by_model = dict(by_model)
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._cooled_until: dict[str, float] = {}

    @property
    def free_slots(self) -> int:
        """Calls that may start now over all models, cool-downs aside."""
        return max(0, self._concurrency - self._open.total())

    def free(self, model: str) -> int:
        """Calls to `model` that may start now; 0 while it cools down."""
        if self.cooled_until(model) is not None:
            return 0
        room = self._by_model.get(model, self._concurrency) - self._open[model]
        return max(0, min(room, self.free_slots))

    def start(self, model: str) -> None:
        """Count a call as open. It is the caller's to have asked `free` before."""
        self._open[model] += 1

    def finish(self, model: str) -> None:
        """Count a call as over, however it ended.

        Raises:
            ValueError: no call to `model` is open.
        """
        if self._open[model] < 1:
            raise ValueError(f"no call to {model} is open")
        self._open[model] -= 1

    def cool_down(self, model: str, seconds: float) -> None:
        """Let no call to `model` start for so long. A longer cool-down that runs already stays."""
        if math.isnan(seconds):
            return
        until = self._clock() + max(0.0, seconds)
        self._cooled_until[model] = max(until, self._cooled_until.get(model, until))

    def cooled_until(self, model: str) -> float | None:
        """When calls to `model` may start again, on the clock given; None: they may now."""
        until = self._cooled_until.get(model)
        if until is None:
            return None
        if until <= self._clock():
            del self._cooled_until[model]
            return None
        return until
