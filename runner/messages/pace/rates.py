"""The rates of one limit: requests, input tokens and output tokens a minute, each kept apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from runner.messages.headers import RateLimit, RateLimits
from runner.messages.pace.bucket import Bucket
from runner.messages.pace.streamed import Streamed, Written

# Of a limit that is taken at the beginning of a request: what is left covers clocks that differ.
USE = 0.985
# More than all of it while the server has plenty left: so what a busy moment lost is made good.
_USE_MORE = 0.035
_PLENTY = 0.6  # the part of the server's bucket above which there is plenty
BURST_S = 0.5  # less than the second's worth that the strictest server holds
_EASE = 0.85  # after a refusal: who else uses this limit is unknown to us
_RECOVER_PER_S = 0.01
_RECOVER_EVERY_S = 0.5
_HELD_MOST_S = 60.0
_HELD_SEEN_BELOW = 0.9  # a fuller bucket does not show how much it holds


class Kind(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    TOKENS = "tokens"  # input and output together


@dataclass(frozen=True, slots=True)
class PerMinute:
    """Limits a minute; None where there is none, or none is known."""

    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    tokens: int | None = None

    def of(self, kind: Kind) -> int | None:
        return {
            Kind.REQUESTS: self.requests,
            Kind.INPUT: self.input_tokens,
            Kind.OUTPUT: self.output_tokens,
            Kind.TOKENS: self.tokens,
        }[kind]

    def __bool__(self) -> bool:
        return any(self.of(kind) for kind in Kind)


@dataclass(slots=True)
class Taken:
    """What one open call was counted with, in each bucket that there was when it began.

    Args:
        output: with the bucket itself: limits may be dropped and set anew while it runs, and the
            new bucket does not know of it.
    """

    input_tokens: float
    output: dict[Kind, tuple[Streamed, Written]] = field(default_factory=dict)


class Rates:
    """Buckets for what is limited a minute, filled by what is told of the limits.

    Only input that is not read from the prompt cache counts, and `max_tokens` does not: a call's
    output counts as it is written. Source: Messages API documentation, rate limits.

    Args:
        now_s: a monotonic clock, in seconds.
        per_minute: the limits as far as they are known.
    """

    def __init__(self, now_s: float, per_minute: PerMinute = PerMinute()) -> None:
        self._limits: dict[Kind, int] = {}
        self._taken: dict[Kind, Bucket] = {}
        self._streamed: dict[Kind, Streamed] = {}
        self._more: dict[Kind, float] = {}
        self._held_s: dict[Kind, float] = {}  # seconds' worth that the server's buckets hold
        self._share = 1.0
        self._ease = 1.0
        self._eased_s = now_s
        self.set_limits(per_minute, now_s)

    @property
    def per_minute(self) -> PerMinute:
        """The limits as far as they are known, for all processes together."""
        return PerMinute(*(self._limits.get(kind) for kind in Kind))

    @property
    def ease(self) -> float:
        """The part of the limits that is used: 1, or less after a refusal."""
        return self._ease

    def set_limits(self, per_minute: PerMinute, now_s: float) -> None:
        """Take limits over that are known from elsewhere; what is None there is left as it is."""
        for kind in Kind:
            self._set(kind, per_minute.of(kind), now_s)

    def drop_limits(self) -> None:
        """Limit nothing any more."""
        self._limits.clear()
        self._taken.clear()
        self._streamed.clear()

    def set_share(self, share: float, now_s: float) -> None:
        """Use only so much of each limit: others use the rest."""
        if share != self._share:
            self._share = share
            self._rate(now_s)

    def wait_s(self, input_tokens: float, output_tokens: float, now_s: float) -> float:
        """Seconds until a call may begin; where only time will tell, a short while to ask again.

        Args:
            input_tokens: those that count, so without what is read from the cache.
            output_tokens: what the call will probably write.
        """
        self._recover(now_s)
        amounts = {Kind.REQUESTS: 1.0, Kind.INPUT: input_tokens}
        wait_s = 0.0
        for kind, bucket in self._taken.items():
            wait_s = max(wait_s, bucket.wait_s(amounts[kind], now_s))
        for kind, streamed in self._streamed.items():
            expected = output_tokens + (input_tokens if kind is Kind.TOKENS else 0.0)
            wait_s = max(wait_s, streamed.wait_s(expected, now_s))
        return wait_s

    def soon(
        self, input_tokens: float, output_tokens: float, seconds: float, now_s: float
    ) -> float:
        """About as many calls as may begin within so many seconds; see `wait_s`."""
        amounts = {Kind.REQUESTS: 1.0, Kind.INPUT: max(1.0, input_tokens)}
        soon = math.inf
        for kind, bucket in self._taken.items():
            bucket.fill(now_s)
            soon = min(soon, (bucket.level + bucket.per_s * seconds) / amounts[kind])
        for kind, streamed in self._streamed.items():
            expected = output_tokens + (input_tokens if kind is Kind.TOKENS else 0.0)
            soon = min(soon, streamed.soon(expected, seconds, now_s))
        return max(0.0, soon)

    def start(self, input_tokens: float, output_tokens: float, now_s: float) -> Taken:
        """A call begins; see `wait_s`."""
        amounts = {Kind.REQUESTS: 1.0, Kind.INPUT: input_tokens}
        for kind, bucket in self._taken.items():
            bucket.take(amounts[kind], now_s)
        taken = Taken(input_tokens)
        for kind, streamed in self._streamed.items():
            at_once = input_tokens if kind is Kind.TOKENS else 0.0
            expected = output_tokens + at_once
            taken.output[kind] = streamed, streamed.start(expected, now_s, at_once=at_once)
        return taken

    def read(self, taken: Taken, input_tokens: float, now_s: float) -> None:
        """The API has counted the call's input (without what it read from the cache)."""
        more = input_tokens - taken.input_tokens
        taken.input_tokens = input_tokens
        if more and (bucket := self._taken.get(Kind.INPUT)) is not None:
            bucket.take(more, now_s)

    def wrote(self, taken: Taken, characters: int, now_s: float) -> None:
        """Text of the call came in."""
        for streamed, written in taken.output.values():
            streamed.wrote(written, characters, now_s)

    def end(self, taken: Taken, output_tokens: float, now_s: float, *, exact: bool) -> None:
        """The call is over, with so much output in all."""
        for kind, (streamed, written) in taken.output.items():
            tokens = output_tokens + (taken.input_tokens if kind is Kind.TOKENS else 0.0)
            streamed.end(written, tokens, now_s, exact=exact)

    def cancel(self, taken: Taken, now_s: float) -> None:
        """The call was never sent."""
        for kind, amount in ((Kind.REQUESTS, 1.0), (Kind.INPUT, taken.input_tokens)):
            if (bucket := self._taken.get(kind)) is not None:
                bucket.take(-amount, now_s)
        for streamed, written in taken.output.values():
            streamed.cancel(written, now_s)

    def told(self, limits: RateLimits, now_s: float, at: datetime | None = None) -> None:
        """The server told its limits beside an answer, and what is left of them.

        Args:
            at: the time of day, by which it says when they will be whole again; None leaves that
                out of account.
        """
        for kind, told in (
            (Kind.REQUESTS, limits.requests),
            (Kind.INPUT, limits.input_tokens),
            (Kind.OUTPUT, limits.output_tokens),
            (Kind.TOKENS, limits.tokens),
        ):
            if told is not None:
                self._told(kind, told, now_s, at)

    def refused(self, now_s: float) -> None:
        """The server refused a request for one of these limits: use less for a while."""
        self._recover(now_s)
        self._ease = max(0.25, self._ease * _EASE)
        self._rate(now_s)

    def _told(self, kind: Kind, told: RateLimit, now_s: float, at: datetime | None) -> None:
        self._set(kind, told.limit, now_s)
        limit = self._limits.get(kind)
        if told.remaining is None or limit is None:
            return
        left = min(1.0, told.remaining / limit)
        if at is not None and told.reset is not None and left < _HELD_SEEN_BELOW:
            # The time is told in whole seconds.
            whole_s = (told.reset - at).total_seconds() + 0.5
            self._held_s[kind] = max(1.0, min(_HELD_MOST_S, whole_s / (1 - left)))
        left_s = self._held_s.get(kind, 1.0) * left
        if (streamed := self._streamed.get(kind)) is not None:
            streamed.told(limit, left, left_s, now_s)
        elif (bucket := self._taken.get(kind)) is not None:
            self._more[kind] = _USE_MORE * max(0.0, (left - _PLENTY) / (1 - _PLENTY))
            bucket.set_rate(self._per_s(kind), now_s)
            # Ours alone would leave more than that. (After a large request it does not: then the
            # bucket is in debt already, and stays so.)
            bucket.level = min(bucket.level, max(0.0, left_s * bucket.per_s))

    def _set(self, kind: Kind, limit: int | None, now_s: float) -> None:
        if not limit or limit == self._limits.get(kind):
            return
        self._limits[kind] = limit
        if kind in self._taken or kind in self._streamed:
            self._rate(now_s)
        elif kind in (Kind.OUTPUT, Kind.TOKENS):
            self._streamed[kind] = Streamed(self._per_s(kind), now_s)
        else:
            self._taken[kind] = Bucket(self._per_s(kind), BURST_S, now_s)

    def _per_s(self, kind: Kind) -> float:
        use = USE + self._more.get(kind, 0.0) if kind in (Kind.REQUESTS, Kind.INPUT) else 1.0
        return self._limits[kind] / 60 * self._share * self._ease * use

    def _rate(self, now_s: float) -> None:
        for kind, bucket in self._taken.items():
            bucket.set_rate(self._per_s(kind), now_s)
        for kind, streamed in self._streamed.items():
            streamed.set_rate(self._per_s(kind), now_s)

    def _recover(self, now_s: float) -> None:
        passed_s = now_s - self._eased_s
        if passed_s < _RECOVER_EVERY_S:
            return
        self._eased_s = now_s
        if self._ease < 1.0:
            self._ease = min(1.0, self._ease + _RECOVER_PER_S * passed_s)
            self._rate(now_s)
