"""Rate limits: token buckets that fill up all the time.

Source: Messages API documentation, rate limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.simulator.clock import Clock
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
        now_s: monotonic seconds of the clock.
        clock: whose minutes they are; headers tell the limits in the clients' minutes.
    """

    def __init__(
        self,
        per_minute: Mapping[str, int],
        burst_s: float,
        now_s: float,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or Clock()
        self._buckets: dict[str, _Bucket] = {}
        self.change(per_minute, burst_s, now_s)

    def change(self, per_minute: Mapping[str, int], burst_s: float, now_s: float) -> None:
        """Set other limits; a bucket stays as full as it was, and may be as empty."""
        old, self._buckets = self._buckets, {}
        for name, limit in per_minute.items():
            if limit:
                # Even a limit enforced by the second lets one whole request through.
                capacity = max(1.0, limit * burst_s / 60)
                share = 1.0
                if name in old:
                    old[name].fill(now_s)
                    share = old[name].level / old[name].capacity
                self._buckets[name] = _Bucket(limit, capacity, share * capacity, now_s)

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
                    f"{self._told(bucket):,} {_NAMES[name]}. For details, refer to: "
                    f"https://docs.claude.com/en/api/rate-limits.",
                    headers={"x-should-retry": "true", **self.headers(now_s)},
                    retry_after_s=wait_s,
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
            share = max(0.0, bucket.level) / bucket.capacity
            limit = self._told(bucket)
            step = 1 if name == "requests" else 1000
            prefix = f"anthropic-ratelimit-{name}"
            headers[f"{prefix}-limit"] = str(limit)
            headers[f"{prefix}-remaining"] = str(int(share * limit) // step * step)
            full_s = (bucket.capacity - bucket.level) * 60 / bucket.limit
            headers[f"{prefix}-reset"] = self._clock.moment(full_s)
        return headers

    def _told(self, bucket: _Bucket) -> int:
        """The limit in the clients' minutes, in which more of ours pass where time runs fast."""
        return round(bucket.limit * self._clock.factor)
