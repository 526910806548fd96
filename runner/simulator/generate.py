"""From a request to its answer: which part of the true document, and why it stops. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from runner.simulator.behaviours import Behaviour
from runner.simulator.documents import Document
from runner.simulator.markers import Markers
from runner.simulator.request import Request
from runner.simulator.tokens import token_ends

_TORN = "\N{REPLACEMENT CHARACTER}"
# What the API counts for an answer that says nothing but "that was all".
_EMPTY_ANSWER_TOKENS = 2
# A model that stops early has written this share of what was missing.
_EARLY_SHARE = 0.3
# One that goes in circles writes so many tokens of the document first, and then this.
_BEFORE_CIRCLE_TOKENS = 40
_CIRCLE = "And so it went on, as it had gone on before, and nobody knew when it would end. "
_LONGEST_CIRCLE_TOKENS = 20_000


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one event.

    Args:
        start, end: the part of the document that was generated for it, in characters; a stop
            sequence and a torn character are generated, but their text is not (all) handed out.
        tokens: tokens generated for it.
        apart: it is no part of the document: the repeated last words, an opening, a circle.
    """

    text: str
    start: int
    end: int
    tokens: int
    apart: bool = False


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
        lead, tail: what is written before and after the document's part, and is none of it.
        thinking_tokens: thought before anything is written.
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
    lead: str = ""
    tail: str = ""
    thinking_tokens: int = 0

    @property
    def token_count(self) -> int:
        """How many tokens of text are generated for it."""
        apart = sum(len(token_ends(text)) for text in (self.lead, self.tail) if text)
        return self.last_token - self.first_token + apart

    @property
    def has_text(self) -> bool:
        """Whether it writes anything at all."""
        return bool(self.text_end > self.start or self.torn or self.lead or self.tail)

    def pieces(self, tokens_per_piece: int) -> Iterator[Piece]:
        """The answer event by event."""
        yield from _apart(self.lead, self.start, tokens_per_piece)
        yield from self._of_document(tokens_per_piece)
        yield from _apart(self.tail, self.document.ends[self.last_token - 1], tokens_per_piece)

    def _of_document(self, tokens_per_piece: int) -> Iterator[Piece]:
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
    behaviour: Behaviour = Behaviour.OBEYS,
    lead: str = "",
) -> Answer:
    """The answer that goes on with the true document where the request's text so far ends.

    Args:
        room_tokens: what the context window leaves for output.
        tear_characters: whether a cut may fall within a character of several bytes.
        behaviour: how it is given.
        lead: what it writes before it goes on; counts against `max_tokens`.
    """
    ends, text = document.ends, document.text
    start = _start(request, text, behaviour)
    first = bisect_right(ends, start)
    allowed = min(request.max_tokens, room_tokens)
    cut = "max_tokens" if allowed == request.max_tokens else "model_context_window_exceeded"
    thinking = allowed if behaviour is Behaviour.THINKS_ONLY else min(markers.thinks, allowed)
    lead_ends = token_ends(lead)
    left = allowed - thinking - len(lead_ends)
    if left <= 0 and (thinking or lead_ends):  # nothing of the document is reached
        shown = len(lead_ends) + left
        lead = lead[: lead_ends[shown - 1]] if shown > 0 else ""
        return Answer(
            document, start, first, first, start, False, allowed, cut,
            lead=lead, thinking_tokens=thinking,
        )  # fmt: skip
    wanted = _wanted(first, len(ends), behaviour)
    last = min(first + left, wanted)
    reason = cut if last < wanted else "end_turn"
    tail = ""
    if behaviour is Behaviour.CIRCLES and last == wanted:
        circle = left - (last - first)
        tail = _circle(min(circle, _LONGEST_CIRCLE_TOKENS))
        reason = cut if circle <= _LONGEST_CIRCLE_TOKENS else "end_turn"
    if markers.refusal is not None and markers.refusal_after <= last:
        last = max(first, markers.refusal_after)
        reason = "refusal"
    end = max(start, ends[last - 1]) if last else 0
    found = _first_stop(text, start, end, request.stop_sequences)
    sequence = None
    torn = False
    if found is not None:
        sequence, end = found
        last = bisect_right(ends, end + len(sequence) - 1) + 1
        reason, tail = "stop_sequence", ""
    elif (
        tear_characters
        and reason == "max_tokens"
        and not tail
        and last - first > 1  # a call that brings no whole token would never get on
        and not text[ends[last - 2]].isascii()
    ):
        torn, end = True, ends[last - 2]
    count = last - first + len(lead_ends) + thinking + (len(token_ends(tail)) if tail else 0)
    return Answer(
        document,
        start,
        first,
        last,
        end,
        torn,
        count or (_EMPTY_ANSWER_TOKENS if reason == "end_turn" else 0),
        reason,
        sequence,
        refusal=markers.refusal if reason == "refusal" else None,
        lead=lead,
        tail=tail,
        thinking_tokens=thinking,
    )


def _start(request: Request, text: str, behaviour: Behaviour) -> int:
    """Where in the document the answer begins."""
    turn = bool(request.asking_blocks)
    if behaviour is Behaviour.RESTARTS or (request.model.restarts and not turn):
        return 0
    start = min(len(request.prefill), len(text))
    if behaviour is Behaviour.SKIPS:
        start = len(text) - len(text[start:].lstrip())
    return start


def _wanted(first: int, all_tokens: int, behaviour: Behaviour) -> int:
    """Up to which token of the document the model would write if nothing stopped it."""
    if behaviour is Behaviour.STOPS_EARLY:
        return first + int((all_tokens - first) * _EARLY_SHARE)
    if behaviour is Behaviour.CIRCLES:
        return min(all_tokens, first + _BEFORE_CIRCLE_TOKENS)
    return first if behaviour is Behaviour.COMMENTS else all_tokens


def _circle(tokens: int) -> str:
    if tokens <= 0:
        return ""
    text = _CIRCLE * (tokens // len(_CIRCLE.split()) + 1)
    return text[: token_ends(text)[tokens - 1]]


def _apart(text: str, place: int, tokens_per_piece: int) -> Iterator[Piece]:
    """The events of a text that is no part of the document, at a place of it."""
    if not text:
        return
    ends = token_ends(text)
    stops = [*range(0, len(ends), tokens_per_piece), len(ends)]
    for first, stop in pairwise(stops):
        begin = ends[first - 1] if first else 0
        yield Piece(text[begin : ends[stop - 1]], place, place, stop - first, apart=True)


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
