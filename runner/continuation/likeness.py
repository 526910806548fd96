"""Text compared as a reader would: white space, quotation marks and Unicode forms do not count."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

_QUOTES = str.maketrans({**dict.fromkeys("“”„‟«»″", '"'), **dict.fromkeys("‘’‚‛′´", "'")})


@dataclass(frozen=True, slots=True)
class Plain:
    """A text in its plain form, and where each plain character ends in the text itself.

    Args:
        text: white space runs as one space, straight quotes, Unicode form NFKC.
        ends: for each character of `text`, the offset in the raw text behind what it came from.
    """

    text: str
    ends: tuple[int, ...]


def plain(raw: str) -> Plain:
    """The plain form of `raw`."""
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
    return Plain("".join(characters), tuple(ends))


def _joins(character: str) -> bool:
    """Whether it is one with the character before it: a combining mark, or half a syllable."""
    return unicodedata.combining(character) != 0 or "\u1160" <= character <= "\u11ff"
