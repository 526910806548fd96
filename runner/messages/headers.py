"""What the API says beside its answer: rate limits and how long to wait."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit as the API last told it; None for what it did not tell or told unreadably.

    Args:
        limit: requests or tokens a minute.
        remaining: how many are left of it now; the API rounds tokens to thousands.
        reset: when it will be full again.
    """

    limit: int | None = None
    remaining: int | None = None
    reset: datetime | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits that stood in a response's headers; None for those that did not.

    Source: Messages API documentation, rate limits, response headers.
    """

    requests: RateLimit | None = None
    tokens: RateLimit | None = None
    input_tokens: RateLimit | None = None
    output_tokens: RateLimit | None = None

    @staticmethod
    def from_headers(headers: Mapping[str, str]) -> RateLimits:
        """Read `anthropic-ratelimit-*`; `headers` are looked up by lower-case name."""
        return RateLimits(
            requests=_limit(headers, "requests"),
            tokens=_limit(headers, "tokens"),
            input_tokens=_limit(headers, "input-tokens"),
            output_tokens=_limit(headers, "output-tokens"),
        )


NO_LIMITS = RateLimits()


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds the server asks us to wait, as it said them; None where it named none.

    `retry-after-ms` is the finer one and goes first; `retry-after` is seconds or an HTTP date.
    A time in the past is 0. Whoever waits must cap it: see `runner.messages.backoff`.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


def _limit(headers: Mapping[str, str], name: str) -> RateLimit | None:
    prefix = f"anthropic-ratelimit-{name}-"
    found = RateLimit(
        limit=_count(headers.get(prefix + "limit")),
        remaining=_count(headers.get(prefix + "remaining")),
        reset=_moment(headers.get(prefix + "reset")),
    )
    return None if found == RateLimit() else found


def _number(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _count(value: str | None) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
