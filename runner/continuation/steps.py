"""What the continuation loop can answer: send this request, or stop here and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from runner.jobs.call import CallOutcome, Strategy, Verdict
from runner.jobs.states import Finish


@dataclass(frozen=True, slots=True)
class PastCall:
    """A call that was made before, as the loop needs to know it.

    Args:
        outcome: None where its process died before it could say.
        rejected: its reply was rejected: it did not go on with the document.
        verdict: what was known of its seam.
        counted: False where a retry came after it: its text stays in the document, and it counts
            against no bound.
    """

    resume_at: int
    text: str
    outcome: CallOutcome | None
    rejected: bool = False
    verdict: Verdict | None = None
    counted: bool = True


class Splice(Protocol):
    """Joins one call's stream to the document: takes its pieces, gives back what to save.

    Attributes:
        verdict: what is known of the seam; None while nothing is, or where there is no seam.
        rejected: the text of a reply that does not go on with the document; None while there is
            none. It never enters the document.
    """

    verdict: Verdict | None
    rejected: str | None

    def feed(self, piece: str) -> str:
        """The text to save now, which may be empty."""

    def end(self, *, cut: bool) -> str:
        """The text to save when the stream is over.

        Args:
            cut: more would have followed: the stream broke, or `max_tokens` ran out.
        """


@dataclass(frozen=True, slots=True)
class Plan:
    """How a strategy means to make the next call.

    Args:
        strategy: None for a call that continues nothing.
        resume_at: offset in the document, in characters, at which the call's text attaches.
        messages: the conversation to send, in the API's form.
        splice: joins the call's stream to the document, and tells the seam's verdict.
    """

    strategy: Strategy | None
    resume_at: int
    messages: tuple[Mapping[str, Any], ...]
    splice: Splice


@dataclass(frozen=True, slots=True)
class Send:
    """Make this call.

    Args:
        number: counts a job's calls from 1.
        max_tokens: output tokens to ask for.
        near_window: prompt and document may fill the context window; only a count can tell.
    """

    number: int
    plan: Plan
    max_tokens: int
    near_window: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The document is finished, or cut for good.

    Args:
        detail: the reason in words, where `finish` does not say it all.
    """

    finish: Finish
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class CannotContinue:
    """No further call could work, and the document is not whole."""

    reason: str


Step = Send | Finished | CannotContinue
