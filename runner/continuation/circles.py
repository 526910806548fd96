"""Notices a document that goes in circles: the same words again and again, exactly or nearly.

Real texts repeat themselves too: choruses, tables, logs. What tells a circle is that nothing else
comes any more, for longer than a reader would bear. So it is looked for at the document's end
alone, and only once thousands of characters have brought nothing new. The figures were chosen on
real texts and made circles: `benchmarks/circles.py`, docs/continuation.md.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from runner.continuation.document import GrowingDocument

LOOK_EVERY = 4_000  # characters
LEAST = 12_000  # characters that must have brought nothing new
ROUNDS = 4  # times that a long round must have come
LONGEST = 60_000  # characters looked at: rounds of up to a quarter of them are noticed
_PROBE = 120  # characters of the end whose earlier place gives the length of a round
_MOST_CANDIDATES = 50

# A window goes nearly in circles where so small a part of its pieces are different ones. In prose
# nearly all are; in the most monotonous tables and logs still one in seven.
_PIECE = 24  # characters
_WINDOWS = ((LEAST, 0.10), (4 * LEAST, 0.05))
_PACKS = 0.2  # the part that packing leaves of a text that may go in circles

# Whether it is worth a closer look: of so many pieces of what came last, so many came before.
_SAMPLES = 10
_FAMILIAR = 3

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Circle:
    """Where a document began to go in circles.

    Args:
        start: offset of the first round.
        phrase: the beginning of a round.
    """

    start: int
    phrase: str

    def __str__(self) -> str:
        words = " ".join(self.phrase.split())
        return f'it goes in circles from character {self.start:,} on: "{words}" again and again'


def find(document: GrowingDocument) -> Circle | None:
    """The circle at the document's end, if it goes in one."""
    if len(document) < LEAST:
        return None
    tail = document.tail(LONGEST)
    found = _exact(tail) or (_nearly(tail) if _sounds_familiar(tail) else None)
    if found is None:
        return None
    return Circle(len(document) - len(tail) + found.start, found.phrase)


def _exact(tail: str) -> Circle | None:
    probe = tail[-_PROBE:]
    at = len(tail) - _PROBE
    for _ in range(_MOST_CANDIDATES):
        at = tail.rfind(probe, 0, at + _PROBE - 1)
        if at < 0:
            return None
        period = len(tail) - _PROBE - at
        length = max(LEAST, ROUNDS * period)
        if length > len(tail):
            return None
        if tail[-length:-period] == tail[period - length :]:
            return _begun(tail, len(tail) - length, period)
    return None


def _begun(tail: str, start: int, period: int) -> Circle:
    """The circle of known period, from where its first round begins."""
    while start > 0 and tail[start - 1] == tail[start - 1 + period]:
        start -= 1
    return Circle(start, tail[start : start + min(period, _SHOWN)])


def _sounds_familiar(tail: str) -> bool:
    """Whether some of what came last came before, as nearly all of it did in a circle.

    A look at samples costs a tenth of a look at everything, and tells of nearly every text that it
    is none. A circle that it misses by ill luck is looked at again a few thousand characters on.
    """
    text = tail.casefold()
    start = len(text) - LOOK_EVERY
    found = 0
    for number in range(_SAMPLES):
        # Unevenly spread: even steps could fall in with the rounds of a circle.
        at = start + (number * number * 41 + number * 229) % (LOOK_EVERY - _PIECE)
        found += text.find(text[at : at + _PIECE], 0, at + _PIECE - 1) >= 0
        if found == _FAMILIAR:
            return True
        if found + _SAMPLES - 1 - number < _FAMILIAR:
            return False
    return False


def _nearly(tail: str) -> Circle | None:
    for size, few in _WINDOWS:
        if size > len(tail):
            return None
        start = len(tail) - size
        window = " ".join(tail[start:].casefold().split())
        packed = window.encode()
        if len(zlib.compress(packed, 1)) > _PACKS * len(packed):
            continue  # much in it is new; the compressor tells so many times faster than we can
        pieces = [window[at : at + _PIECE] for at in range(len(window) - _PIECE + 1)]
        if len(pieces) < LEAST // 2:
            continue  # hardly anything but white space: nothing is known of it
        if len(set(pieces)) < few * len(pieces):
            return Circle(start, tail[start : start + _SHOWN])
    return None
