"""How many calls may be open at once on one limit: a level that finds itself."""

from __future__ import annotations

import math

_CUT = 0.7  # what is left of the calls in flight after a 429
_BACK = 0.9  # of them up to which growth is quick again
_STEADY_S = 10.0  # growth comes at least so often while the level binds
_STEADY_PART = 0.1  # of the level, far below what is known to be too much
_RAMP_LEAST = 1 / 8
_RAMP_BACK_S = 60.0  # after so long without an acceleration 429 the ramp doubles again


class Level:
    """Calls that may be open, and calls that may wait for their answer to begin.

    Both begin at one and double with each round trip, up to half the level of the last refusal. Up to
    that level growth is by one with each answer that begins, beyond it additive. A 429 cuts
    the calls that may be open by a factor, and those that may be unanswered back to one: so we come
    back gently whatever streams still.

    Args:
        now_s: a monotonic clock, in seconds.
    """

    def __init__(self, now_s: float) -> None:
        self.open = 1.0
        self._unanswered = 1.0
        self._quick_below = math.inf
        self._ramp = 1.0
        self._ramp_cut_s = now_s
        self._grew_s = now_s

    @property
    def ramp(self) -> float:
        """How fast it grows: 1, or less after an acceleration 429."""
        return self._ramp

    def free(self, in_flight: int, unanswered: int) -> bool:
        """Whether one more call may begin."""
        return in_flight + 1 <= self.open + 1e-9 and unanswered + 1 <= self._unanswered + 1e-9

    def answered(self, in_flight: int, now_s: float) -> None:
        """An answer began: the server took the request.

        Args:
            in_flight: calls that are open, this one among them.
        """
        if self._ramp < 1.0 and now_s - self._ramp_cut_s >= _RAMP_BACK_S:
            self._ramp, self._ramp_cut_s = min(1.0, 2 * self._ramp), now_s
        self._unanswered += max(self._ramp, 0.25)
        # Room that nobody uses proves nothing.
        if in_flight < self.open - max(1.0, 0.1 * self.open):
            return
        if self.open < self._quick_below:
            # Room for one more. Far below what is known to be too much, also for another in place
            # of this one, which may go on streaming for minutes.
            self.open += self._ramp * (2 if self._far_below else 1)
        elif now_s - self._grew_s >= _STEADY_S:
            self.open += 1.0
        else:
            self.open += self._ramp / self.open
            return
        self._grew_s = now_s

    def waited(self, in_flight: int, now_s: float) -> None:
        """A call waits for one of those that are open: time alone lets it grow, too. Else it would
        stand still for as long as long answers stream, where the last ones to begin taught nothing
        because others failed beside them."""
        if in_flight <= self.open < in_flight + 1 and now_s - self._grew_s >= _STEADY_S:
            self.open += max(1.0, _STEADY_PART * self.open) if self._far_below else 1.0
            self._grew_s = now_s

    @property
    def _far_below(self) -> bool:
        return self.open < self._quick_below / 2

    def limited(self, in_flight: int, now_s: float, *, acceleration: bool = False) -> None:
        """A 429 came; once for all that were refused together.

        Args:
            in_flight: calls that were open, the refused one among them.
            acceleration: use grew too fast: the ramp is lowered, too.
        """
        # Where calls are short, few may be open just then.
        used = max(1.0, min(self.open, max(float(in_flight), self.open / 2)))
        self._quick_below = max(1.0, used * _BACK)
        self.open = max(1.0, used * _CUT)
        self._unanswered = 1.0
        self._grew_s = now_s
        if acceleration:
            self._ramp = max(_RAMP_LEAST, self._ramp / 2)
            self._ramp_cut_s = now_s

    def restart(self) -> None:
        """Come back by slow start, as after an outage; what was the level is the aim."""
        self._quick_below = max(1.0, self.open)
        self.open = 1.0
        self._unanswered = 1.0
