"""Jobs, and what happened to them, as lists, `show` and `prune` have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from runner.jobs.call import Usage
from runner.jobs.spec import JobSpec
from runner.jobs.states import Finish, State


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as lists and `show` need it: everything but prompt and text."""

    key: int
    id: str
    batch: str
    batch_key: int
    model: str
    state: State
    priority: int
    claim: int
    attempt: int
    rescues: int
    finish: Finish | None
    error: str | None
    scheduled_ms: int | None
    created_ms: int
    updated_ms: int
    calls: int
    usage: Usage  # of all its calls that ended; estimated if any of them is
    metadata: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False  # its batch's documents come from the simulator
    cost_nano_usd: int = 0  # of all its calls whose price is known
    unpriced_calls: int = 0


class EventKind(StrEnum):
    """What can happen to a job."""

    CLAIMED = "claimed"
    CALL_BROKEN = "call_broken"
    RETRY_SCHEDULED = "retry_scheduled"
    WAITS = "waits"  # for a rate limit; costs no attempt
    PAUSED = "paused"  # handed back because its batch is paused
    HANDED_BACK = "handed_back"
    RESCUED = "rescued"
    REPLACED = "replaced"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job.

    Args:
        kind: None for its submission, which is told by the job's own `created_ms`.
        worker_id: who claimed it, or from whom it was rescued.
        detail: why, in words.
    """

    at_ms: int
    kind: EventKind | None
    claim: int
    worker_id: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs a command means: those that are named, or all that fit.

    Args:
        job_keys: the named ones; None leaves it to the other fields.
        batch: a batch's name; None means all batches.
        states: only jobs in one of these; empty means any.
        finishes: only documents that ended so; empty means any.
        final_before_ms: only jobs that became final before this time.
    """

    job_keys: tuple[int, ...] | None = None
    batch: str | None = None
    states: frozenset[State] = frozenset()
    finishes: frozenset[Finish] = frozenset()
    final_before_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PruneReceipt:
    """What a prune took away.

    Args:
        freed_bytes: by how much the file grew smaller.
    """

    jobs: int
    batches: int
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A job whose document ended, and what each of its calls used."""

    batch_key: int
    spec: JobSpec
    calls: tuple[Usage, ...]
