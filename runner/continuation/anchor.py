"""Where a `turn` takes up the document, and the last words it asks the model to repeat."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from runner.continuation.likeness import goes_round, plain
from runner.continuation.text import clean_end

RECENT = 4_000  # characters of the document's end in which an anchor must stand only once
LONGEST_WORD = 64  # characters without white space taken for one half-written word, at most
MIN_ANCHOR, MAX_ANCHOR = 40, 400  # characters
MIN_ANCHOR_WORDS = 5


@dataclass(frozen=True, slots=True)
class Anchor:
    """The last words before a resume point.

    Args:
        text: as they stand in the document.
        unique: they stand only once in it, and a reply that begins with them repeats them for
            certain.
    """

    text: str
    unique: bool


def word_end(text: str) -> int:
    """The last offset at which `text` ends in a whole word.

    A word that nothing follows may be half written, even one that looks whole, so it goes, unless
    white space stands behind it. Scripts without white space lose one character only.
    """
    clean = clean_end(text)
    if clean < len(text) and text[clean:].strip("\N{REPLACEMENT CHARACTER}"):
        return clean
    start = max(0, clean - LONGEST_WORD)
    for at in range(clean - 1, start - 1, -1):
        if text[at].isspace():
            return clean_end(text[:at])
    if start == 0 and clean <= LONGEST_WORD and text.isascii():
        return 0
    return clean_end(text[: _character_start(text, clean)])


def choose(text: str) -> Anchor:
    """The anchor for a document that goes on behind `text`, which ends at its resume point."""
    recent = text[-RECENT:]
    seen = plain(recent).text
    start = len(recent)
    words = 0
    while start > 0 and len(recent) - start < MAX_ANCHOR:
        start = _word_start(recent, start)
        words += 1
        length = len(recent) - start
        if length < MIN_ANCHOR or words < MIN_ANCHOR_WORDS:
            continue
        if _is_unique(recent[start:], seen, text):
            return Anchor(recent[start:], unique=True)
    return Anchor(recent[start:], unique=_is_unique(recent[start:], seen, text))


def _is_unique(words: str, seen: str, text: str) -> bool:
    """Whether they stand once in the recent text, however written, and once in the whole, and
    cannot be the next round of a chorus.

    Counted so that places that overlap count apart: "la la la" stands twice in "la la la la".
    """
    likeness = plain(words).text
    once = 0 <= seen.find(likeness) == seen.rfind(likeness) and text.find(words) == text.rfind(
        words
    )
    return once and not goes_round(seen, likeness, no_accident=3)


def _word_start(text: str, end: int) -> int:
    """The start of the word that ends at or before `end`; long ones are taken in parts."""
    at = end
    while at > 0 and text[at - 1].isspace():
        at -= 1
    least = max(0, at - LONGEST_WORD)
    while at > least and not text[at - 1].isspace():
        at -= 1
    return at


def _character_start(text: str, end: int) -> int:
    """The start of the last character a reader would see as one, marks and joiners included."""
    at = end - 1
    while at > 0 and (
        unicodedata.combining(text[at])
        or text[at] in "\u200d\ufe0f"
        or text[at - 1] == "\u200d"
        or "\U0001f3fb" <= text[at] <= "\U0001f3ff"
    ):
        at -= 1
    return max(at, 0)
