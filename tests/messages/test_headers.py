"""Headers: read where they can be read, passed over where not."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.messages.headers import RateLimit, RateLimits, retry_after_s

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_all_limits() -> None:
    headers = {
        f"anthropic-ratelimit-{name}-{part}": value
        for name, values in {
            "requests": ("50", "49", "2026-11-22T12:00:01Z"),
            "tokens": ("90000", "1000", "2026-11-22T13:00:00+01:00"),
            "input-tokens": ("80000", "0", "2026-11-22T12:00:01.5Z"),
            "output-tokens": ("10000", "10000", "2026-11-22T12:00:01Z"),
        }.items()
        for part, value in zip(("limit", "remaining", "reset"), values, strict=True)
    }
    limits = RateLimits.from_headers(headers)
    assert limits.requests == RateLimit(50, 49, datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC))
    assert limits.tokens == RateLimit(90000, 1000, NOW)
    assert limits.input_tokens is not None
    assert limits.input_tokens.remaining == 0
    assert limits.output_tokens is not None
    assert limits.output_tokens.limit == 10000


def test_none_and_nonsense() -> None:
    assert RateLimits.from_headers({}) == RateLimits()
    headers = {
        "anthropic-ratelimit-requests-limit": "many",
        "anthropic-ratelimit-requests-reset": "soon",
        "anthropic-ratelimit-tokens-remaining": "nan",
        "anthropic-ratelimit-input-tokens-limit": "5",
    }
    assert RateLimits.from_headers(headers) == RateLimits(input_tokens=RateLimit(limit=5))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "4294967"}, 4294967.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:01:00 GMT"}, 60.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:01:00 -0000"}, 60.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "later"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@given(st.text())
def test_no_value_is_an_accident(value: str) -> None:
    headers = {"retry-after": value, "anthropic-ratelimit-requests-reset": value}
    seconds = retry_after_s(headers, NOW)
    assert seconds is None or seconds >= 0
    RateLimits.from_headers(headers)
