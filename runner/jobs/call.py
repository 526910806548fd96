"""The words for one call to the Messages API that several rooms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.jobs.price import Rates


class Strategy(StrEnum):
    """How a continuation is asked for."""

    PREFILL = "prefill"  # the document so far is the beginning of the assistant's answer
    TURN = "turn"  # a user turn asks to go on


class Verdict(StrEnum):
    """What is known of a seam, the place where a call's text joins the document."""

    EXACT = "exact"  # by the protocol: a prefill goes on at the very character
    ALIGNED = "aligned"
    OVERLAP = "overlap"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the API counts them.

    `input_tokens` excludes what was written to or read from the prompt cache; the whole input is
    the sum of the first three fields. `cache_creation_1h_input_tokens` are those of
    `cache_creation_input_tokens` that were written for an hour; the others were for 5 minutes.
    `estimated` is True where the stream broke before the API said its final count: then
    `output_tokens` is our own estimate.
    """

    input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    cache_creation_1h_input_tokens: int = 0

    @property
    def total_input_tokens(self) -> int:
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call cost, and how much of what was paid for is of use.

    Args:
        cost_nano_usd: in nano-dollars; None where the price is not known.
        prompt_tokens: the part of the input that is the prompt; None where nobody can tell.
        lost_output_tokens: output that never entered the document: a rejected reply, the last
            words repeated on request.
        rates: at which it was paid, by the length that its input had; None where they are those
            it was begun with.
    """

    cost_nano_usd: int | None = None
    prompt_tokens: int | None = None
    lost_output_tokens: int = 0
    rates: Rates | None = None


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What came of one call.

    Args:
        stop_reason: as the API said it; None where the stream broke before saying one.
        stop_sequence: the stop sequence that ended the answer; it is not part of the text.
        stop_details: the API's category and explanation of a refusal.
        request_id: the API's name for the request, for its support.
        error: what broke the call, in words for a reader; None where nothing did.
        verdict: what is known of the seam; None where there is none, or nothing is known.
        rejected: the text of a reply that did not go on with the document, kept for the curious;
            it never enters the document.
        charge: what it cost.
        text_characters: characters of the answer's text, kept or not.
        output_counted: the API has told how many output tokens it was, if not all that came of it.
        thinking_characters: characters of what came beside it, such as thinking.
        thinking_tokens: output tokens that went into thinking, as the API counts them.
        input_characters: characters of the request's texts.
    """

    stop_reason: str | None
    stop_sequence: str | None = None
    stop_details: Mapping[str, Any] | None = None
    usage: Usage = Usage()
    request_id: str | None = None
    error: str | None = None
    verdict: Verdict | None = None
    rejected: str | None = None
    charge: Charge = Charge()
    text_characters: int = 0
    output_counted: bool = False
    thinking_characters: int = 0
    thinking_tokens: int = 0
    input_characters: int = 0


# English prose comes to about four characters a token.
CHARACTERS_PER_TOKEN = 4


def estimate_tokens(characters: int) -> int:
    """Tokens that so many characters of text come to, roughly, where nobody counted them."""
    return -(-characters // CHARACTERS_PER_TOKEN)
