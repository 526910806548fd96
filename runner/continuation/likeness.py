"""Text compared as a reader would: white space, quotation marks and Unicode forms do not count."""

from __future__ import annotations

import re
import unicodedata

_QUOTES = {**dict.fromkeys("“”„‟«»″", '"'), **dict.fromkeys("‘’‚‛′´", "'")}
_STRAIGHT = str.maketrans(_QUOTES)
# All that is white space in ASCII.
_ASCII_SPACES = str.maketrans(dict.fromkeys("\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f", " "))

# Characters that tell where a text goes round: few, so that a short chorus is noticed.
_BEFORE, _AFTER = 5, 16
_RUNS = re.compile(r"\s\s+")
_MANY = re.compile("  +")


class Plain:
    """A text in its plain form, and where each plain character ends in the text itself.

    Attributes:
        text: white space runs as one space, straight quotes, Unicode form NFKC.
    """

    __slots__ = ("_raw", "text")

    def __init__(self, raw: str, text: str) -> None:
        self.text = text
        self._raw = raw

    def end(self, at: int) -> int:
        """The offset in the raw text behind what the character at `at` of `text` came from.

        Found when it is asked for: mostly nobody asks, and then for one near the beginning, while
        a look at each character costs far more than the plain form itself.
        """
        if not self._raw.isascii():
            return _plain(self._raw, at)[1][at]
        # In ASCII nothing but white space has other forms.
        left_out = 0
        for run in _RUNS.finditer(self._raw):
            if at < run.start() - left_out:
                break
            left_out += len(run[0]) - 1
        return at + 1 + left_out


def plain(raw: str) -> Plain:
    """The plain form of `raw`."""
    if raw.isascii():
        return Plain(raw, _one_space_each(raw.translate(_ASCII_SPACES)))
    if not unicodedata.is_normalized("NFKC", raw):
        return Plain(raw, _plain(raw)[0])
    text = _one_space_each(raw)
    for quote, straight in _QUOTES.items():
        if quote in text:
            text = text.replace(quote, straight)
    return Plain(raw, text)


def _one_space_each(text: str) -> str:
    """Each run of white space as one space."""
    if text.isascii():  # with no white space in it but spaces
        return _MANY.sub(" ", text) if "  " in text else text
    words = " ".join(text.split())
    before, behind = text[0].isspace(), text[-1].isspace()
    return f"{' ' if before else ''}{words}{' ' if behind and words else ''}"


def _plain(raw: str, last: int | None = None) -> tuple[str, list[int]]:
    """The same, character by character, with the end of each: in other Unicode forms one may stand
    for several.

    Args:
        last: no further than to this character of the plain form.
    """
    characters: list[str] = []
    ends: list[int] = []
    at = 0
    while at < len(raw) and (last is None or len(ends) <= last):
        end = at + 1
        if raw[at].isspace():
            while end < len(raw) and raw[end].isspace():
                end += 1
            form = " "
        else:
            while end < len(raw) and _joins(raw[end]):
                end += 1
            # A compatibility form may hold spaces of its own (as U+00A8 does): one is enough.
            form = unicodedata.normalize("NFKC", raw[at:end].translate(_STRAIGHT)).translate(
                _STRAIGHT
            )
        characters += form
        ends += [end] * len(form)
        at = end
    return "".join(characters), ends


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
