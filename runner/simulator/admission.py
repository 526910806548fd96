"""What refuses a request that is well formed: overload, spending limits, the ramp, rate limits.

Source: Messages API documentation, rate limits and errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runner.simulator.books import Books
from runner.simulator.clock import Clock
from runner.simulator.faults import FaultKind, problem_of
from runner.simulator.limits import RateLimits
from runner.simulator.options import SimulatorOptions
from runner.simulator.problems import ApiProblem
from runner.simulator.ramp import Ramp


@dataclass(slots=True)
class _Class:
    """One class of models.

    Args:
        refused_s, until_s: when its last 429 with a `retry-after` was answered, and until when
            that asked for patience.
    """

    limits: RateLimits
    ramp: Ramp
    refused_s: float = -math.inf
    until_s: float = -math.inf


class Admission:
    """Lets requests in, as the options say at that moment."""

    def __init__(self, options: SimulatorOptions, clock: Clock, books: Books) -> None:
        self._options = options
        self._clock = clock
        self._books = books
        self._classes: dict[str, _Class] = {}
        self._spent_tokens = 0
        # From the first request on, for the clock stands still before there is an event loop.
        self._overloaded_s: float = options.overloaded_s
        self._overloaded_until_s: float | None = None

    def change(self, options: SimulatorOptions, *, overloaded: bool) -> None:
        """Go on with other options.

        Args:
            overloaded: `overloaded_s` begins anew.
        """
        self._options, now_s = options, self._clock.now_s()
        for group in self._classes.values():
            group.limits.change(self._per_minute(), options.burst_s, now_s)
            group.ramp.growth = options.ramp_requests_per_minute
        if overloaded:
            self._overloaded_until_s = now_s + options.overloaded_s

    def arrived(self, rate_class: str, arrived_s: float) -> None:
        """A request came; was it within the time that a 429 had asked for?"""
        group = self._classes.get(rate_class)
        if group is not None and arrived_s < group.until_s:
            factor = self._clock.factor
            since_s, early_s = arrived_s - group.refused_s, group.until_s - arrived_s
            self._books.asked_too_early(rate_class, since_s / factor, early_s / factor)

    def check_overload(self) -> None:
        """Refuse every request while overloaded.

        Raises:
            ApiProblem: 529.
        """
        now_s = self._clock.now_s()
        if self._overloaded_until_s is None:
            self._overloaded_until_s = now_s + self._overloaded_s
        if now_s < self._overloaded_until_s:
            self._refuse(FaultKind.HTTP_529)

    def admit(self, rate_class: str, input_tokens: int) -> RateLimits:
        """Let a request in: take what it needs at its start.

        Args:
            input_tokens: those that count against the rate limit.

        Returns:
            The limits that its output counts against.

        Raises:
            ApiProblem: a spending limit is reached, or it comes too fast.
        """
        options, now_s = self._options, self._clock.now_s()
        if 0 < options.own_limit_tokens <= self._spent_tokens:
            self._refuse(FaultKind.HTTP_400_OWN_LIMIT)
        if 0 < options.spend_cap_tokens <= self._spent_tokens:
            self._refuse(FaultKind.HTTP_429_SPEND_CAP)
        group = self._class(rate_class)
        wait_s = group.ramp.wait_s(now_s)
        if wait_s > 0:
            self._refuse(FaultKind.HTTP_429_RAMP, wait_s)
        group.limits.admit(input_tokens, now_s)
        group.ramp.take(now_s)
        return group.limits

    def spent(self, tokens: int) -> None:
        """Tokens of any kind that count against the spending limits."""
        self._spent_tokens += tokens

    def headers_of(self, problem: ApiProblem, rate_class: str | None) -> dict[str, str]:
        """`retry-after` of an answer, remembered for its class of models."""
        if problem.retry_after_s is None:
            return {}
        wait_s = math.ceil(problem.retry_after_s / self._clock.factor)
        headers = {"retry-after": str(wait_s)}
        promised_s = float(wait_s)
        if self._clock.factor != 1:
            promised_ms = math.ceil(problem.retry_after_s * 1000 / self._clock.factor)
            headers["retry-after-ms"] = str(promised_ms)
            promised_s = promised_ms / 1000
        if rate_class is not None and problem.status == 429:
            group, now_s = self._class(rate_class), self._clock.now_s()
            group.refused_s = now_s
            group.until_s = max(group.until_s, now_s + promised_s * self._clock.factor)
        return headers

    def _refuse(self, kind: FaultKind, retry_after_s: float | None = None) -> None:
        self._books.struck(kind)
        raise problem_of(kind, retry_after_s)

    def _class(self, rate_class: str) -> _Class:
        group = self._classes.get(rate_class)
        if group is None:
            options, now_s = self._options, self._clock.now_s()
            limits = RateLimits(self._per_minute(), options.burst_s, now_s, self._clock)
            group = _Class(limits, Ramp(options.ramp_requests_per_minute, now_s))
            self._classes[rate_class] = group
        return group

    def _per_minute(self) -> dict[str, int]:
        options = self._options
        return {
            "requests": options.requests_per_minute,
            "input-tokens": options.input_tokens_per_minute,
            "output-tokens": options.output_tokens_per_minute,
        }
