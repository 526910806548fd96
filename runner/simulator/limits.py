"""Rate limits: token buckets that fill up all the time.

Source: Messages API documentation, rate limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runner.simulator.problems import ApiProblem

_NAMES = {
    "requests": "requests per minute",
    "input-tokens": "input tokens per minute",
    "output-tokens": "output tokens per minute",
}


@dataclass(slots=True)
class _Bucket:
    limit: int
    capacity: float
    level: float
    filled_s: float

    def fill(self, now_s: float) -> None:
        grown = max(0.0, now_s - self.filled_s) * self.limit / 60
        self.level = min(self.capacity, self.level + grown)
        self.filled_s = now_s

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` is there, or the bucket is full if it holds less."""
        return max(0.0, (min(amount, self.capacity) - self.level) * 60 / self.limit)


class RateLimits:
    """The limits of one class of models.

    Args:
        per_minute: limits by name (`requests`, `input-tokens`, `output-tokens`); 0 is no limit.
        burst_s: how many seconds' worth may be used at once: 60 for a limit kept by the minute,
            1 for one that is enforced by the second.
        now_s: a monotonic clock, in seconds.
    """

    def __init__(self, per_minute: dict[str, int], burst_s: float, now_s: float) -> None:
        self._buckets = {}
        for name, limit in per_minute.items():
            if limit:
                # Even a limit enforced by the second lets one whole request through.
                capacity = max(1.0, limit * burst_s / 60)
                self._buckets[name] = _Bucket(limit, capacity, capacity, now_s)

    def admit(self, input_tokens: int, now_s: float) -> None:
        """Take what a request needs at its start, or raise the API's 429 and take nothing.

        Output is taken as it is written (`spend_output`): `max_tokens` does not count.
        """
        needs = {"requests": 1.0, "input-tokens": float(input_tokens), "output-tokens": 1.0}
        for name, bucket in self._buckets.items():
            bucket.fill(now_s)
            wait_s = bucket.wait_s(needs[name])
            if wait_s > 0:
                raise ApiProblem(
                    429,
                    "rate_limit_error",
                    f"This request would exceed your organization's rate limit of "
                    f"{bucket.limit:,} {_NAMES[name]}. For details, refer to: "
                    f"https://docs.claude.com/en/api/rate-limits.",
                    headers={
                        "retry-after": str(math.ceil(wait_s)),
                        "x-should-retry": "true",
                        **self.headers(now_s),
                    },
                )
        for name, bucket in self._buckets.items():
            if name != "output-tokens":
                bucket.level -= needs[name]

    def spend_output(self, tokens: int, now_s: float) -> None:
        """Take tokens that were written; the bucket may go below nothing."""
        bucket = self._buckets.get("output-tokens")
        if bucket is not None:
            bucket.fill(now_s)
            bucket.level -= tokens

    def headers(self, now_s: float) -> dict[str, str]:
        """`anthropic-ratelimit-*` headers of the limits that are set."""
        headers = {}
        for name, bucket in self._buckets.items():
            bucket.fill(now_s)
            full_s = (bucket.capacity - bucket.level) * 60 / bucket.limit
            reset = datetime.now(UTC) + timedelta(seconds=full_s)
            share = max(0.0, bucket.level) / bucket.capacity
            remaining = share * bucket.limit
            step = 1 if name == "requests" else 1000
            prefix = f"anthropic-ratelimit-{name}"
            headers[f"{prefix}-limit"] = str(bucket.limit)
            headers[f"{prefix}-remaining"] = str(int(remaining) // step * step)
            headers[f"{prefix}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers
