"""Calls: what is known before, while and after they run, and the text they gave."""

from __future__ import annotations

from dataclasses import dataclass

from runner.jobs.call import CallOutcome, Strategy, Usage, Verdict
from runner.jobs.price import Rates


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
class TextPiece:
    """A chunk as it is read back: where its call attaches, and its place in the order of saving."""

    call_number: int
    resume_at: int
    seq: int
    text: str


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
