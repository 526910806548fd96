"""What goes into the queue, and how jobs are taken from it and given back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from runner.jobs.spec import JobSpec
from runner.jobs.states import Finish, State
from runner.store.records.calls import SavedCall


class OnConflict(StrEnum):
    """What to do with a submitted job whose id is known under another hash."""

    ERROR = "error"  # refuse the whole submission, nothing is queued
    REPLACE = "replace"  # the new prompt takes over; the old document's text leaves the fold
    KEEP = "keep"  # the job stays as it was


@dataclass(frozen=True, slots=True)
class KnownJob:
    """What is there already of a job that is about to be submitted.

    Args:
        hash: of the prompt it is known under.
        finish: how its document ended; None where it did not.
        output_tokens: paid for so far, of an unfinished one.
    """

    hash: bytes
    state: State
    finish: Finish | None
    output_tokens: int


@dataclass(frozen=True, slots=True)
class SubmitReceipt:
    """What a submission did, in numbers of jobs."""

    batch_key: int
    new: int = 0
    present: int = 0  # same id, same hash: already there
    replaced: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """Jobs that share limits: one model within one batch, with free room for `free` more."""

    batch_key: int
    model: str
    free: int


class OpenLane(NamedTuple):
    """Jobs that wait to be claimed: those of one model within one batch that is not paused.

    `most` is how many calls the batch's budget may have room for; None where nothing waits for it.
    `batch`, `simulated` and `limits` tell which batch it is now, and with what limits: the key of one
    that was pruned away may come back.
    """

    batch_key: int
    model: str
    available: int
    most: int | None = None
    batch: str = ""
    simulated: bool = False
    limits: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a job. `number` is the fencing token: it only ever grows."""

    job_key: int
    number: int
    worker_id: str
    batch_key: int
    job_id: str
    model: str
    attempt: int
    rescues: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker holds, as the database sees it now.

    Args:
        claims: by job key, the number of the claim.
        paused: of the batches of these jobs that are paused, by key: why, in words.
    """

    claims: Mapping[int, int]
    paused: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """All that a worker needs to go on with a job."""

    spec: JobSpec
    calls: tuple[SavedCall, ...]
    next_seq: int  # the chunk sequence number to save under next
    counted_from: int = 0  # calls up to this number count against no bound: a retry came after them


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a worker gives a job back.

    Args:
        state: where the job goes; see `runner.jobs.states.TRANSITIONS`.
        finish: how the document ended, when it did.
        error: why the job waits or failed, for the reader.
        delay_ms: for `scheduled` and `retryable`: how long from now.
        reset_attempt: the job made progress since its last error, so its retry budget is full
            again (before this settlement counts its own attempt).
        error_name: of a job that failed, what tells this error from others: its HTTP status and
            type, or our own name for it. The breaker counts by it.
    """

    state: State
    finish: Finish | None = None
    error: str | None = None
    delay_ms: int = 0
    reset_attempt: bool = False
    error_name: str | None = None
