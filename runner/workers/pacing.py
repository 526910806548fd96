"""When calls may start: the rate limits that the calls of this process share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from runner.jobs.call import Usage
from runner.messages.errors import CallError
from runner.messages.headers import RateLimits
from runner.store.records import Claim
from runner.workers.caching import Marked
from runner.workers.needs import Need


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


@dataclass(slots=True)
class Permit:
    """Leave to make one call. Closed once, when the call is over or was never made.

    Args:
        limit_key: the rate limits it falls under; None where nobody shares them.
    """

    limit_key: str | None = None

    def began(self, rate_limits: RateLimits) -> None:
        """The answer's headers came."""

    def counted(self, usage: Usage) -> None:
        """The API has told how the input is billed."""

    def wrote(self, characters: int) -> None:
        """So many more characters were written."""

    def close(self, usage: Usage | None) -> None:
        """The call is over; None: it was never made."""


@dataclass(frozen=True, slots=True)
class Rest:
    """No call may start for so long: longer than a job is worth holding."""

    seconds: float


class Pacing:
    """Gives leave to make calls, at the pace that rate limits allow."""

    def __init__(self) -> None:
        self._pace = Pace()

    def cooling(self, model: str) -> bool:
        """Whether no call to `model` may start now."""
        return self._pace.cooling(model)

    async def enter(self, claim: Claim, need: Need, marked: Marked) -> Permit | Rest:
        """Leave for one call, when its time has come; may be cancelled at any time."""
        rest_s = self._pace.rest_s(claim.model)
        return Rest(rest_s) if rest_s else Permit()

    async def limited(self, claim: Claim, error: CallError, seconds: float) -> None:
        """The API refused a call for its rate: all that share the limit rest for so long."""
        self._pace.cool_down(claim.model, seconds)
