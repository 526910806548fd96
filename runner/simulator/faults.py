"""Everything that can go wrong on the way to an answer, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from runner.simulator.problems import ApiProblem


class FaultKind(StrEnum):
    """The faults; those from `SLOW_START` on strike an answer that would have been well."""

    HTTP_400_OWN_LIMIT = "http_400_own_limit"
    HTTP_401 = "http_401"
    HTTP_402 = "http_402"
    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_413 = "http_413"
    HTTP_429 = "http_429"
    HTTP_429_NO_RETRY_AFTER = "http_429_no_retry_after"
    HTTP_429_RAMP = "http_429_ramp"
    HTTP_429_SPEND_CAP = "http_429_spend_cap"
    HTTP_500 = "http_500"
    HTTP_502_HTML = "http_502_html"
    HTTP_503 = "http_503"
    HTTP_504 = "http_504"
    HTTP_529 = "http_529"
    SLOW_START = "slow_start"  # no headers for some seconds
    STALL = "stall"  # no bytes any more, until the client goes
    DROP = "drop"  # the connection is closed after some events
    DROP_BYTE = "drop_byte"  # the connection is closed after some byte
    RESET = "reset"  # the connection is reset, and what is on its way may be lost
    ERROR_OVERLOADED = "error_overloaded"  # an `error` event in mid-stream
    ERROR_API = "error_api"
    CLEAN_END = "clean_end"  # the body ends in good order, but without `message_stop`
    INVALID_JSON = "invalid_json"  # one event's data is cut short; the stream goes on
    PINGS = "pings"  # nothing but pings any more, until the client goes
    DUPLICATE_EVENTS = "duplicate_events"  # every event but the text comes twice
    UNKNOWN_EVENTS = "unknown_events"  # events and deltas of kinds nobody has heard of
    SPLIT_PACKETS = "split_packets"  # packets end anywhere, also within a character


# These leave an answer in one piece alone: it has no events.
_STREAM_ONLY = frozenset(
    {
        FaultKind.ERROR_OVERLOADED,
        FaultKind.ERROR_API,
        FaultKind.CLEAN_END,
        FaultKind.INVALID_JSON,
        FaultKind.PINGS,
        FaultKind.DUPLICATE_EVENTS,
        FaultKind.UNKNOWN_EVENTS,
        FaultKind.SPLIT_PACKETS,
    }
)
_BYTES_AN_EVENT = 110


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that is to strike.

    Args:
        number: text events that come before it; for `drop_byte` bytes of the body, for
            `slow_start` and 429s seconds; None draws it, or takes the option's value.
    """

    kind: FaultKind
    number: int | None = None

    @classmethod
    def parse(cls, word: str) -> Fault:
        """Read `kind` or `kind:number`.

        Raises:
            ValueError: there is no such kind, or the number is none.
        """
        name, _, number = word.partition(":")
        return cls(FaultKind(name), int(number) if number else None)

    @property
    def is_answer(self) -> bool:
        """Whether it is an HTTP error instead of an answer."""
        return self.kind.startswith("http_")

    def fits(self, *, stream: bool) -> bool:
        """Whether it can strike this kind of request."""
        return stream or self.kind not in _STREAM_ONLY

    def place(self, random: Random, events: int) -> int:
        """Where it strikes an answer of so many text events: before which event, or at which byte."""
        if self.number is not None:
            return self.number
        span = events * _BYTES_AN_EVENT if self.kind is FaultKind.DROP_BYTE else events
        return random.randint(0, max(0, span - 1))

    def problem(self, retry_after_s: int) -> ApiProblem:
        """The HTTP error of a fault that is one."""
        status, type_, message, code = _ANSWERS[self.kind]
        wait_s: float | None = None
        if self.kind in {FaultKind.HTTP_429, FaultKind.HTTP_429_RAMP}:
            wait_s = self.number if self.number is not None else retry_after_s
        html = _BAD_GATEWAY if self.kind is FaultKind.HTTP_502_HTML else None
        return ApiProblem(status, type_, message, code, html=html, retry_after_s=wait_s)


def problem_of(kind: FaultKind, retry_after_s: float | None = None) -> ApiProblem:
    """The answer of a kind of fault that is an HTTP error, met for a reason and not by chance."""
    status, type_, message, code = _ANSWERS[kind]
    return ApiProblem(status, type_, message, code, retry_after_s=retry_after_s)


class FaultPlan:
    """Says which fault strikes which request: the script first, then by probability.

    Raises:
        ValueError: a name in `probabilities` or `script` is no fault.
    """

    def __init__(self, probabilities: Mapping[str, float], script: Mapping[int, str]) -> None:
        self._probabilities = [(FaultKind(k), p) for k, p in sorted(probabilities.items())]
        self._script = {n: Fault.parse(word) for n, word in script.items()}

    def draw(self, number: int, random: Random) -> Fault | None:
        """The fault of the n-th request; None where all goes well."""
        scripted = self._script.get(number)
        if scripted is not None:
            return scripted
        chance = random.random()
        for kind, probability in self._probabilities:
            if chance < probability:
                return Fault(kind)
            chance -= probability
        return None


_BAD_GATEWAY = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    "<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)
_ANSWERS: Mapping[FaultKind, tuple[int, str, str, str | None]] = {
    FaultKind.HTTP_400_OWN_LIMIT: (
        400,
        "invalid_request_error",
        "You have reached your specified API usage limits. You will regain access on 2099-01-01.",
        None,
    ),
    FaultKind.HTTP_401: (401, "authentication_error", "invalid x-api-key", None),
    FaultKind.HTTP_402: (402, "billing_error", "Your payment method was declined.", None),
    FaultKind.HTTP_403: (
        403,
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
        None,
    ),
    FaultKind.HTTP_404: (404, "not_found_error", "model: not here any more", None),
    FaultKind.HTTP_413: (
        413,
        "request_too_large",
        "Request exceeds the maximum allowed number of bytes.",
        None,
    ),
    FaultKind.HTTP_429: (
        429,
        "rate_limit_error",
        "This request would exceed your organization's rate limit.",
        None,
    ),
    FaultKind.HTTP_429_NO_RETRY_AFTER: (
        429,
        "rate_limit_error",
        "Number of requests has exceeded your rate limit.",
        None,
    ),
    FaultKind.HTTP_429_RAMP: (
        429,
        "rate_limit_error",
        "This request would exceed the rate at which your organization's usage may grow.",
        "ramp_limit_exceeded",
    ),
    FaultKind.HTTP_429_SPEND_CAP: (
        429,
        "rate_limit_error",
        "Your organization has reached its monthly API usage threshold.",
        "enforced_spend_limit_reached",
    ),
    FaultKind.HTTP_500: (500, "api_error", "Internal server error", None),
    FaultKind.HTTP_502_HTML: (502, "api_error", "Bad gateway", None),
    FaultKind.HTTP_503: (503, "api_error", "Service temporarily unavailable", None),
    FaultKind.HTTP_504: (504, "timeout_error", "Request timed out", None),
    FaultKind.HTTP_529: (529, "overloaded_error", "Overloaded", None),
}
