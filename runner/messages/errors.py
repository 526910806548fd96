"""The kinds of error a call can meet, and the error of a client that has no key."""

from __future__ import annotations

from enum import StrEnum

from runner.errors import RunnerError
from runner.messages.headers import NO_LIMITS, RateLimits


class ErrorKind(StrEnum):
    """What an error asks of us."""

    RETRY = "retry"  # this job later: network, 5xx, overloaded, a broken stream
    RATE_LIMIT = "rate_limit"  # everything on this limit waits; costs no attempt
    CREDENTIALS = "credentials"  # the batch pauses: the key is refused
    SPEND_CAP = "spend_cap"  # the batch pauses: a spending limit is reached
    PREFILL_REFUSED = "prefill_refused"  # this model does not go on from an assistant message
    JOB = "job"  # this job cannot work: its own 400s


class CredentialsError(RunnerError):
    """There is no usable key, so no request was sent."""

    exit_status = 4


class CallError(RunnerError):
    """A call to the Messages API failed.

    Args:
        status: HTTP status; None where no response came.
        type: the API's error code where it gave one, else its error type; or our own name for
            what broke (`unreachable`, `timeout`, `broken_stream`, `unsendable`).
        retry_after_s: seconds the server asks us to wait; None where it named none.
        rate_limits: as the headers of the refused response told them.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        type: str,
        status: int | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
        rate_limits: RateLimits = NO_LIMITS,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.type = type
        self.status = status
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.rate_limits = rate_limits
