"""How long a job's document will be, by what its job file says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from runner.estimating.lengths import Unit, Wish, wished
from runner.jobs.spec import JobSpec, Until

# What nobody says anything about is taken for a page or three.
ASSUMED_TOKENS: Final = 1_500
_ASSUMED_LEAST, _ASSUMED_MOST = 0.3, 2.5
_WORKED_OVER: Final = re.compile(
    r"\b(?:translat(?:e|ion)|proofread|copy-?edit|re-?write|rephrase|paraphrase|transcribe)\b",
    re.IGNORECASE,
)
_SHORTEST_SOURCE: Final = 400  # characters; a shorter prompt holds no text to be worked over
_SOURCE_LEAST, _SOURCE_MOST = 0.7, 1.4
_IMAGE_CHARACTERS: Final = 6_000  # some 1,500 tokens


class Ground(StrEnum):
    """What a document's expected length rests on; the best comes first."""

    REHEARSED = "rehearsed"  # written in a trial by the simulator
    FINISHED = "finished"  # documents of this batch that are finished
    SIMILAR = "similar"  # finished documents of the model, set against what was expected of them
    UNTIL = "until"  # min_words or min_chars
    PROMPT = "prompt"  # what the prompt asks for
    SOURCE = "source"  # a text to be translated or worked over is about as long afterwards
    MAX_TOKENS = "max_tokens"  # no more than that is written
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Length:
    """A document's length before anything of it is written, in `unit`."""

    ground: Ground
    unit: Unit
    least: float
    expected: float
    most: float


def length_of(spec: JobSpec) -> Length:
    """The length that a job's own words let expect.

    The condition of `until` and the prompt's wish are both kept to, so the longer one holds;
    without either, `max_tokens` is taken for the owner's guess of an answer, where it is small.
    """
    until = None if spec.until is None else _least(spec.until)
    wish = _wish(spec)
    if until is not None and (wish is None or _characters(wish) <= _characters(until)):
        return Length(Ground.UNTIL, until.unit, until.least, until.expected, until.most)
    if wish is not None:
        return Length(Ground.PROMPT, wish.unit, wish.least, wish.expected, wish.most)
    if source := _source_characters(spec):
        least, most_characters = _SOURCE_LEAST * source, _SOURCE_MOST * source
        return Length(Ground.SOURCE, Unit.CHARACTERS, least, source, most_characters)
    most = spec.continuation.max_output_tokens
    if spec.max_tokens is not None:
        most = min(most or spec.max_tokens, spec.max_tokens)
    if most is not None and most <= ASSUMED_TOKENS:
        return Length(Ground.MAX_TOKENS, Unit.TOKENS, 0.25 * most, most, 2.5 * most)
    expected = float(ASSUMED_TOKENS)
    return Length(
        Ground.ASSUMED,
        Unit.TOKENS,
        _ASSUMED_LEAST * expected,
        expected,
        _ASSUMED_MOST * expected,
    )


def prompt_characters(spec: JobSpec) -> int:
    """Characters of all that a job's first call reads, pictures and tools roughly so."""
    extra = sum(len(str(value)) for key, value in spec.params.items() if key == "tools")
    return _size(list(spec.messages)) + _size(spec.system) + extra


def _wish(spec: JobSpec) -> Wish | None:
    """The wish of the last message, else of the system prompt, else of what was said before."""
    for text in (
        _text(spec.messages[-1].get("content")) if spec.messages else "",
        _text(spec.system),
        *(_text(message.get("content")) for message in reversed(spec.messages[:-1])),
    ):
        if found := wished(text):
            return found
    return None


def _source_characters(spec: JobSpec) -> int:
    """Characters of a text that the job asks to be translated or worked over; 0 where it asks for
    none. Orders stand at a prompt's beginning or end, or in the system prompt."""
    text = _text(spec.messages[-1].get("content")) if spec.messages else ""
    if len(text) < _SHORTEST_SOURCE:
        return 0
    orders = (text[:300], text[-300:], _text(spec.system)[:1_000])
    return len(text) if any(map(_WORKED_OVER.search, orders)) else 0


def _least(until: Until) -> Wish | None:
    """The length that a condition asks for at least; models stop a little beyond it."""
    found = []
    if until.min_words is not None:
        found.append(_at_least(Unit.WORDS, until.min_words))
    if until.min_chars is not None:
        found.append(_at_least(Unit.CHARACTERS, until.min_chars))
    found += [least for part in until.all if (least := _least(part)) is not None]
    return max(found, key=_characters, default=None)


def _at_least(unit: Unit, amount: int) -> Wish:
    return Wish(unit, amount, 1.1 * amount, 1.8 * amount, f"{amount:,} {unit}")


def _characters(wish: Wish) -> float:
    return wish.expected * {Unit.WORDS: 6, Unit.TOKENS: 4, Unit.CHARACTERS: 1}[wish.unit]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "\n".join(
            block["text"]
            for block in value
            if isinstance(block, dict) and isinstance(block.get("text"), str)
        )
    return ""


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value))
    if isinstance(value, dict):
        if value.get("type") == "image":
            return _IMAGE_CHARACTERS
        return _size(value.get("text")) + _size(value.get("content")) + _source(value)
    return 0


def _source(block: dict[str, Any]) -> int:
    """Characters of a document block; of its bytes where it is not text, a tenth are."""
    source = block.get("source")
    if not isinstance(source, dict):
        return 0
    data = source.get("data")
    size = len(data) if isinstance(data, str) else 0
    return size if source.get("type") == "text" else size // 10
