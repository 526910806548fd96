"""What keeps calls within rate limits: a limited model cools down for all who share the limit.

Pure bookkeeping: it never sleeps and sends nothing. Who owns it asks, and waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Pace:
    """The one place of a process that knows which models must rest.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cooled_until: dict[str, float] = {}

    def cool_down(self, model: str, seconds: float) -> None:
        """Let no call to `model` start for so long. A longer cool-down that runs already stays."""
        if math.isnan(seconds):
            return
        until = self._clock() + max(0.0, seconds)
        self._cooled_until[model] = max(until, self._cooled_until.get(model, until))

    def rest_s(self, model: str) -> float:
        """Seconds for which no call to `model` may start yet; 0 when one may start now."""
        return max(0.0, self._cooled_until.get(model, -math.inf) - self._clock())

    def cooling(self, model: str) -> bool:
        """Whether no call to `model` may start now."""
        return self.rest_s(model) > 0
