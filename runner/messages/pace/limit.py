"""All that is known of one limit: its rates, its level, its cool-down, and whether it is down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from random import Random

from runner.messages.headers import RateLimits
from runner.messages.pace.level import Level
from runner.messages.pace.outage import Outage
from runner.messages.pace.rates import Rates, Taken


@dataclass(slots=True)
class Flight:
    """One open call, as its limit sees it."""

    taken: Taken
    began_s: float
    answered: bool = False  # its answer began
    succeeded: bool = False  # it brought something
    closed: bool = False


class Limit:
    """What all calls share that go with one credential to one endpoint and class of models.

    Pure bookkeeping: it never sleeps and sends nothing. Who owns it asks, waits, and tells it what
    happened. All times are of one monotonic clock, in seconds.

    Args:
        name: for the reader.
        random: where jitter comes from.
    """

    def __init__(self, name: str, now_s: float, random: Random) -> None:
        self.name = name
        self.rates = Rates(now_s)
        self.level = Level(now_s)
        self.outage = Outage(random)
        self.in_flight = 0
        self.unanswered = 0
        self._cooled_until_s = -math.inf
        self._cut_s = -math.inf  # the last time that a refusal was counted

    def rest_s(self, now_s: float) -> float:
        """Seconds for which no call may begin, whatever else is free."""
        return max(0.0, self._cooled_until_s - now_s, self.outage.rest_s(now_s))

    def cooling_s(self, now_s: float) -> float:
        """Seconds that are left of a cool-down."""
        return max(0.0, self._cooled_until_s - now_s)

    def wait_s(self, input_tokens: float, output_tokens: float, now_s: float) -> float:
        """Seconds until a call may begin; infinite where another one must end or be answered.

        Where only time will tell it is a short while, after which to ask again.

        Args:
            input_tokens: those that count: without what is read from the prompt cache.
            output_tokens: what the call will probably write.
        """
        rest_s = self.rest_s(now_s)
        if rest_s > 0:
            return rest_s
        if not self.outage.on:
            self.level.waited(self.in_flight, now_s)
            if not self.level.free(self.in_flight, self.unanswered):
                return math.inf
        return self.rates.wait_s(input_tokens, output_tokens, now_s)

    def soon(
        self,
        input_tokens: float,
        output_tokens: float,
        seconds: float,
        now_s: float,
        *,
        ending: float = 0.0,
    ) -> float:
        """About as many calls as may begin within so many seconds.

        Args:
            input_tokens, output_tokens: of one of them; see `wait_s`.
            ending: calls that are open now and will probably have made room by then.
        """
        if self.rest_s(now_s) > seconds:
            return 0.0
        if self.outage.on:
            return 1.0
        self.level.waited(self.in_flight, now_s)
        free = self.level.open - self.in_flight
        # Where jobs are short, those that are looked for only when another has ended would leave
        # its room empty, and room that nobody uses proves nothing.
        free += min(ending, self.level.open)
        return max(0.0, min(free, self.rates.soon(input_tokens, output_tokens, seconds, now_s)))

    def start(self, input_tokens: float, output_tokens: float, now_s: float) -> Flight:
        """A call begins; see `wait_s`."""
        if self.outage.on:
            self.outage.probing(now_s)
        self.in_flight += 1
        self.unanswered += 1
        return Flight(self.rates.start(input_tokens, output_tokens, now_s), now_s)

    def answered(
        self, flight: Flight, limits: RateLimits, now_s: float, at: datetime | None = None
    ) -> None:
        """The call's answer begins.

        Args:
            at: the time of day; see `Rates.told`.
        """
        self.rates.told(limits, now_s, at)
        if not flight.answered:
            flight.answered = True
            self.unanswered -= 1
            if not self.outage.troubled:
                self.level.answered(self.in_flight, now_s)

    def wrote(self, flight: Flight, characters: int, now_s: float) -> float | None:
        """Text of the call came in. Where that ends an outage, the seconds it lasted."""
        self.rates.wrote(flight.taken, characters, now_s)
        return None if flight.succeeded else self._succeeded(flight, now_s)

    def end(
        self, flight: Flight, output_tokens: float, now_s: float, *, exact: bool, success: bool
    ) -> float | None:
        """The call is over; once. Where that ends an outage, the seconds it lasted.

        Args:
            output_tokens: what it wrote in all.
            exact: the API counted them.
            success: it came to its proper end.
        """
        if flight.closed:
            return None
        flight.closed = True
        self.in_flight -= 1
        self.unanswered -= not flight.answered
        self.rates.end(flight.taken, output_tokens, now_s, exact=exact)
        return self._succeeded(flight, now_s) if success and not flight.succeeded else None

    def cancel(self, flight: Flight, now_s: float) -> None:
        """The call was never sent."""
        if flight.closed:
            return
        flight.closed = True
        self.in_flight -= 1
        self.unanswered -= not flight.answered
        self.rates.cancel(flight.taken, now_s)

    def limited(
        self,
        flight: Flight,
        limits: RateLimits,
        seconds: float,
        now_s: float,
        *,
        acceleration: bool = False,
    ) -> bool:
        """A 429: no call begins for `seconds`. Whether it is the first of those refused together.

        Args:
            acceleration: use grew too fast.
        """
        self.rates.told(limits, now_s)
        self.cool_down(seconds, now_s)
        # Whoever was sent before the last cut says nothing new.
        if flight.began_s <= self._cut_s:
            return False
        self._cut_s = now_s
        self.level.limited(self.in_flight, now_s, acceleration=acceleration)
        if not acceleration:
            self.rates.refused(now_s)
        return True

    def cool_down(self, seconds: float, now_s: float, *, slack_s: float = 0.0) -> None:
        """Let no call begin for so long; a longer cool-down that runs already stays.

        Args:
            slack_s: by so much a cool-down that runs already counts as longer than it is.
        """
        until_s = now_s + max(0.0, seconds)
        running_s = self._cooled_until_s + (slack_s if self._cooled_until_s > now_s else 0.0)
        if not math.isnan(until_s) and until_s > running_s:
            self._cooled_until_s = until_s

    def failed(self, flight: Flight, reason: str, now_s: float, *, servers_own: bool) -> bool:
        """The call got nothing, for a reason of the server's; whether an outage begins with it.

        Args:
            reason: in words for the reader.
            servers_own: it cannot be the job's doing.
        """
        if flight.succeeded:
            return False
        pending = self.unanswered - (not flight.answered and not flight.closed)
        return self.outage.failed(reason, now_s, servers_own=servers_own, pending=pending)

    def join_outage(self, reason: str, seconds: float, now_s: float) -> None:
        """Another process found the server down, or tries it now."""
        self.outage.join(reason, seconds, now_s)

    def end_outage(self, now_s: float) -> float | None:
        """The server answers again; the seconds for which it did not, None where nobody minded."""
        lasted_s = self.outage.succeeded(now_s)
        if lasted_s is not None:
            self.level.restart()
        return lasted_s

    def _succeeded(self, flight: Flight, now_s: float) -> float | None:
        flight.succeeded = True
        return self.end_outage(now_s)
