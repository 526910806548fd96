"""From a request to its answer: which part of the true document, and why it stops. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner.simulator.documents import Document
from runner.simulator.markers import Markers
from runner.simulator.request import Request

_TORN = "\N{REPLACEMENT CHARACTER}"
# What the API counts for an answer that says nothing but "that was all".
_EMPTY_ANSWER_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one event.

    Args:
        start, end: the part of the document that was generated for it, in characters; a stop
            sequence and a torn character are generated, but their text is not (all) handed out.
        tokens: tokens generated for it.
    """

    text: str
    start: int
    end: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one request.

    Args:
        start: where in the document it begins, in characters.
        first_token, last_token: the tokens generated: from the one that holds `start` up to, but
            without, `last_token`.
        text_end: where its text ends in the document; before the tokens' end at a stop sequence.
        torn: its last token is a character cut in two.
        output_tokens: what it is billed for.
    """

    document: Document
    start: int
    first_token: int
    last_token: int
    text_end: int
    torn: bool
    output_tokens: int
    stop_reason: str
    stop_sequence: str | None = None
    refusal: str | None = None

    @property
    def token_count(self) -> int:
        """How many tokens are generated for it."""
        return self.last_token - self.first_token

    def pieces(self, tokens_per_piece: int) -> Iterator[Piece]:
        """The answer event by event."""
        text, ends = self.document.text, self.document.ends
        position = self.start
        whole_end = self.last_token - self.torn
        for index in range(self.first_token, whole_end, tokens_per_piece):
            stop = min(index + tokens_per_piece, whole_end)
            end = ends[stop - 1]
            yield Piece(text[position : min(end, self.text_end)], position, end, stop - index)
            position = end
        if self.torn:
            yield Piece(_TORN, position, position, 1)


def answer(
    request: Request,
    document: Document,
    markers: Markers,
    *,
    room_tokens: int,
    tear_characters: bool,
) -> Answer:
    """The answer that goes on with the true document where the request's prefill ends.

    Args:
        room_tokens: what the context window leaves for output.
        tear_characters: whether a cut may fall within a character of several bytes.
    """
    ends, text = document.ends, document.text
    start = min(len(request.prefill), len(text))
    first = bisect_right(ends, start)
    allowed = min(request.max_tokens, room_tokens)
    last = min(first + allowed, len(ends))
    reason = "end_turn"
    if last < len(ends):
        reason = "max_tokens" if allowed == request.max_tokens else "model_context_window_exceeded"
    if markers.refusal is not None and markers.refusal_after <= last:
        last = max(first, markers.refusal_after)
        reason = "refusal"
    end = max(start, ends[last - 1]) if last else 0
    found = _first_stop(text, start, end, request.stop_sequences)
    if found is not None:
        sequence, place = found
        last = bisect_right(ends, place + len(sequence) - 1) + 1
        return Answer(
            document, start, first, last, place, False, last - first, "stop_sequence", sequence
        )
    torn = (
        tear_characters
        and reason == "max_tokens"
        and last - first > 1  # a call that brings no whole token would never get on
        and not text[ends[last - 2]].isascii()
    )
    count = last - first
    return Answer(
        document,
        start,
        first,
        last,
        ends[last - 2] if torn else end,
        torn,
        count or (_EMPTY_ANSWER_TOKENS if reason == "end_turn" else 0),
        reason,
        refusal=markers.refusal if reason == "refusal" else None,
    )


def _first_stop(
    text: str, start: int, end: int, sequences: Sequence[str]
) -> tuple[str, int] | None:
    """The stop sequence that is complete first in `text[start:end]`, and where it begins.

    What the prefill holds of a sequence does not count: the model is not seen to write it.
    """
    best: tuple[int, str, int] | None = None
    for sequence in sequences:
        place = text.find(sequence, start, end)
        if place >= 0 and (best is None or place + len(sequence) < best[0]):
            best = (place + len(sequence), sequence, place)
    return None if best is None else (best[1], best[2])
