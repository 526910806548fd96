"""Workers, and the rate limits that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A process that works on jobs.

    `alive` is the operating system's word on a process of this machine; None where it cannot
    tell, and only the lease can. `expired` is that of a clock which all share: the lease has run
    out; False where there is no such clock.
    """

    id: str
    host: str
    pid: int
    started_ms: int
    lease_until_ms: int
    alive: bool | None
    expired: bool = False


@dataclass(frozen=True, slots=True)
class PaceMember:
    """A process that uses rate limits which others share.

    Args:
        concurrency: calls it would have open at once now.
        in_flight: calls it has open now.
    """

    worker_id: str
    concurrency: int
    in_flight: int
    seen_ms: int


@dataclass(frozen=True, slots=True)
class PaceRow:
    """Rate limits that the processes on one database share.

    Args:
        name: credential, endpoint and class of models, for a reader.
        cooled_until_ms: until then no call may start.
        cause: why, in words.
        requests_per_minute, input_tokens_per_minute, output_tokens_per_minute: as the API last
            told them; None where it did not.
    """

    limit_key: str
    name: str
    cooled_until_ms: int
    cause: str | None
    requests_per_minute: int | None
    input_tokens_per_minute: int | None
    output_tokens_per_minute: int | None
    updated_ms: int
    members: tuple[PaceMember, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitUse:
    """What a process tells of a limit that it shares with others.

    Args:
        name: of the limit, for a reader.
        wished: calls it would have open at once if the limit were all its own; 0: it has no work.
        in_flight: calls it has open.
        requests_per_minute, input_tokens_per_minute, output_tokens_per_minute: as the API last
            told them; None where it did not.
    """

    limit_key: str
    name: str
    wished: int
    in_flight: int
    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class LimitSeen:
    """A limit as the database knows it, from all who share it.

    Args:
        cooled_s: for so long no call may start.
        cause: why, in words.
        members: by worker, the calls it has open and those it would have open; of those that
            told so within the last seconds.
    """

    limit_key: str
    name: str
    cooled_s: float
    cause: str | None
    requests_per_minute: int | None
    input_tokens_per_minute: int | None
    output_tokens_per_minute: int | None
    members: Mapping[str, tuple[int, int]] = field(default_factory=dict)
