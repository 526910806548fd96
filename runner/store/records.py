"""What goes into and comes out of the store: plain frozen records, no SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from runner.jobs.call import CallOutcome, Strategy, Usage, Verdict
from runner.jobs.price import Rates
from runner.jobs.spec import BatchLimits, JobSpec
from runner.jobs.states import UNFINISHED, Finish, State


class OnConflict(StrEnum):
    """What to do with a submitted job whose id is known under another hash."""

    ERROR = "error"  # refuse the whole submission, nothing is queued
    REPLACE = "replace"  # the new prompt takes over; the old document's text leaves the fold
    KEEP = "keep"  # the job stays as it was


class PauseCause(StrEnum):
    """Why a batch is paused. Only a user's pause outlives the next `runner run`, and a copy's."""

    USER = "user"
    CREDENTIALS = "credentials"
    SPEND_CAP = "spend_cap"
    BUDGET = "budget"
    BREAKER = "breaker"
    COPY = "copy"  # it is being copied to another database, was, or has not arrived whole


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
class SubmitReceipt:
    """What a submission did, in numbers of jobs."""

    batch_key: int
    new: int = 0
    present: int = 0  # same id, same hash: already there
    replaced: int = 0
    kept: int = 0


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
class Lane:
    """Jobs that share limits: one model within one batch, with free room for `free` more."""

    batch_key: int
    model: str
    free: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is set aside of the batch's budget before a call, and released when it ends.

    Args:
        nano_usd: money; 0 where the price is unknown.
        output_tokens: output tokens.
        needs_price: its job has a budget of its own, which is not kept without a price.
    """

    nano_usd: int = 0
    output_tokens: int = 0
    needs_price: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call may not be made now: its batch's budget has no room for it.

    Args:
        reason: in words for the reader.
        paused: the batch is paused. Else calls of it still run, and the job waits for their ends.
    """

    reason: str
    paused: bool


@dataclass(frozen=True, slots=True)
class CallStart:
    """What is known of a call before its request is sent.

    Args:
        strategy: None: a job's first call continues nothing.
        resume_at: characters of the document that stay; this call's text attaches there.
        rates: the price of the day; None where it is not known.
        input_tokens: the whole input that is expected: what stands in the books should the
            process die before the API has told.
        prompt_tokens: the part of the input that is the prompt; the rest is the document so far.
        dropped_output_tokens: output of earlier calls that leaves the document with this one.
        limit_key: the rate limits it falls under; None where nobody keeps them.
        probe_ms: it tries a server that is down: no other call may start for so long.
        beginnings: of a job's first call, the hashes of the beginnings it shares with others.
    """

    number: int
    strategy: Strategy | None
    resume_at: int
    max_tokens: int
    model: str
    rates: Rates | None = None
    reservation: Reservation = Reservation()
    input_tokens: int = 0
    prompt_tokens: int | None = None
    dropped_output_tokens: int = 0
    limit_key: str | None = None
    probe_ms: int = 0
    beginnings: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Counted:
    """What the API has told of a call that runs, and what is known of its output so far: what its
    books begin with, should its process die.

    Args:
        usage: the input as it is billed; `output_tokens` are those that will not be found in its
            saved text: thinking, and words that were left out.
        lost_output_tokens: the part of these that never enters the document.
        rates: the price, by the length that the input really has; None where it is not known.
    """

    usage: Usage
    lost_output_tokens: int = 0
    rates: Rates | None = None


@dataclass(frozen=True, slots=True)
class LearnedCalls:
    """What a batch's calls of one number in their jobs have been like: sums over `calls` of them.

    Args:
        number: 1 for the jobs' first calls; 20 stands for all from there on.
        calls: those that the API answered to their end.
        cut_calls: those of them that `max_tokens` cut.
        most_output_tokens: of the longest answer.
        stream_ms: from the requests to their ends.
    """

    number: int
    calls: int
    cut_calls: int
    input_characters: int
    input_tokens: int
    output_characters: int
    output_tokens: int
    thinking_tokens: int
    most_output_tokens: int
    stream_ms: int


@dataclass(frozen=True, slots=True)
class SavedCall:
    """A call as the store holds it, with the text it gave to the document."""

    key: int
    number: int
    claim: int
    strategy: Strategy | None
    resume_at: int
    max_tokens: int
    model: str
    verdict: Verdict | None
    started_ms: int
    ended_ms: int | None  # None: running, or its process died
    outcome: CallOutcome | None  # None while it runs
    text: str
    prompt_tokens: int | None = None  # the part of the input that is the prompt; None: unknown
    rates: Rates | None = None  # the price of its day; None: unknown
    cost_nano_usd: int | None = None  # None while it runs, or where the price is unknown
    reserved_nano_usd: int = 0
    lost_output_tokens: int = 0
    dropped_output_tokens: int = 0


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


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch with its kept counts.

    `counts` is keyed by (state, finish); finish is None for jobs without one.
    """

    key: int
    name: str
    limits: BatchLimits
    paused: PauseCause | None
    pause_reason: str | None
    created_ms: int
    counts: Mapping[tuple[State, Finish | None], int]
    calls: int
    usage: Usage
    simulated: bool = False  # its documents come from the simulator
    cost_nano_usd: int = 0  # spent so far, by pruned jobs too
    spent_output_tokens: int = 0  # likewise
    reserved_nano_usd: int = 0  # set aside for the calls that run now
    reserved_output_tokens: int = 0
    unpriced_calls: int = 0  # calls whose price was not known: they stand in no cost

    @property
    def jobs(self) -> int:
        return sum(self.counts.values())

    def count(self, *states: State) -> int:
        return sum(n for (state, _), n in self.counts.items() if state in states)

    @property
    def unfinished(self) -> int:
        return self.count(*UNFINISHED)

    @property
    def complete(self) -> int:
        """Documents that are finished and whole."""
        return sum(
            n
            for (state, finish), n in self.counts.items()
            if state is State.COMPLETED and finish is not None and finish.complete
        )

    @property
    def cut(self) -> int:
        """Documents that ended without being whole."""
        return self.count(State.COMPLETED) - self.complete


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
class Held:
    """What a worker holds, as the database sees it now.

    Args:
        claims: by job key, the number of the claim.
        paused: of the batches of these jobs that are paused, by key: why, in words.
    """

    claims: Mapping[int, int]
    paused: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A chunk as it is read back: where its call attaches, and its place in the order of saving."""

    call_number: int
    resume_at: int
    seq: int
    text: str


class OpenLane(NamedTuple):
    """Jobs that wait to be claimed: those of one model within one batch that is not paused.

    `most` is how many calls the batch's budget may have room for; None where nothing waits for it.
    """

    batch_key: int
    model: str
    available: int
    most: int | None = None


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
class FinishedJob:
    """A job whose document ended, and what each of its calls used."""

    batch_key: int
    spec: JobSpec
    calls: tuple[Usage, ...]
