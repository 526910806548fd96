"""Text compared as a reader would: white space, quotation marks and Unicode forms do not count."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_QUOTES = str.maketrans({**dict.fromkeys("“”„‟«»″", '"'), **dict.fromkeys("‘’‚‛′´", "'")})

# Characters that tell where a text goes round: few, so that a short chorus is noticed.
_BEFORE, _AFTER = 5, 16
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Plain:
    """A text in its plain form, and where each plain character ends in the text itself.

    Args:
        text: white space runs as one space, straight quotes, Unicode form NFKC.
        ends: for each character of `text`, the offset in the raw text behind what it came from.
    """

    text: str
    ends: Sequence[int]


def plain(raw: str) -> Plain:
    """The plain form of `raw`."""
    return _plain_ascii(raw) if raw.isascii() else _plain(raw)


def _plain_ascii(raw: str) -> Plain:
    """The same, many times as fast: in ASCII only white space has other forms."""
    ends: list[int] = []
    at = 0
    for run in _SPACES.finditer(raw):
        ends += range(at + 1, run.start() + 1)
        at = run.end()
        ends.append(at)
    ends += range(at + 1, len(raw) + 1)
    return Plain(_SPACES.sub(" ", raw), ends)


def _plain(raw: str) -> Plain:
    characters: list[str] = []
    ends: list[int] = []
    at = 0
    while at < len(raw):
        end = at + 1
        if raw[at].isspace():
            while end < len(raw) and raw[end].isspace():
                end += 1
            form = " "
        else:
            while end < len(raw) and _joins(raw[end]):
                end += 1
            # A compatibility form may hold spaces of its own (as U+00A8 does): one is enough.
            form = unicodedata.normalize("NFKC", raw[at:end].translate(_QUOTES)).translate(_QUOTES)
        characters += form
        ends += [end] * len(form)
        at = end
    return Plain("".join(characters), ends)


def _joins(character: str) -> bool:
    """Whether it is one with the character before it: a combining mark, or half a syllable."""
    return unicodedata.combining(character) != 0 or "\u1160" <= character <= "\u11ff"


def goes_round(document: str, repeat: str, *, no_accident: int) -> bool:
    """Whether a reply that begins with what looks like a repeat of the document's end may also be
    read in another way, as text that rightly says the same once more.

    The other way is that the reply repeats less of the document, or nothing, and goes on from
    there. It is likely where the repeat's own beginning is the document's end as well, or where
    what the reply would go on with already follows in the document upon words like the last ones,
    as the next line of a chorus does.

    Args:
        document: its recent text, in plain form.
        repeat: the part of the reply that would be taken off, in plain form.
        no_accident: characters that stand at both ends of a repeat by no accident.
    """
    repeat = repeat.strip()
    if any(document[-_BEFORE:] + between + repeat[:_AFTER] in document for between in ("", " ")):
        return True
    for shorter in range(1, len(repeat)):
        if document.endswith(repeat[:shorter]):
            if shorter >= no_accident:
                return True
            other = document[-(shorter + _BEFORE) :] + repeat[shorter : shorter + _AFTER]
            if other in document:
                return True
    return False
