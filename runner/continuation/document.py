"""A document as a fold over its calls: `text = text[:resume_at] + call_text`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from runner.continuation.text import clean_end, is_blank

_WINDOW = 512  # characters looked at first to find a clean end; doubled while they do not suffice
_PARTS = 256  # small parts that are kept apart, at most: walking over thousands of them costs


class GrowingDocument:
    """A job's text so far, kept as one piece for each call that gave some of it.

    Nothing is ever rewritten: a call attaches at its resume point, and what stood behind that
    point leaves the document (not the store). Adding text costs what is new, not what is there.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []  # whole pieces, none empty
        self._settled = 0  # characters in them
        # The piece that is being written: in large parts, and the last of it as it came.
        self._open: list[str] = []
        self._new: list[str] = []
        self._open_length = 0
        self._words: list[int] = []  # of the first whole pieces, as far as they were counted

    def __len__(self) -> int:
        return self._settled + self._open_length

    @property
    def text(self) -> str:
        return "".join(self.pieces())

    def attach(self, resume_at: int) -> None:
        """Begin a new piece at `resume_at`, the resume point of a call.

        Raises:
            ValueError: the resume point lies outside the document.
        """
        if not 0 <= resume_at <= len(self):
            raise ValueError(f"resume point {resume_at} outside a document of {len(self)}")
        self._close()
        while self._settled > resume_at:
            last = self._pieces.pop()
            del self._words[len(self._pieces) :]
            self._settled -= len(last)
            if kept := last[: max(0, resume_at - self._settled)]:
                self._pieces.append(kept)
                self._settled += len(kept)

    def add(self, text: str) -> None:
        """Append to the piece that is being written."""
        if text:
            self._new.append(text)
            self._open_length += len(text)
            if len(self._new) >= _PARTS:
                self._open.append("".join(self._new))
                self._new.clear()

    def pieces(self) -> tuple[str, ...]:
        """The text as one piece a call, in order."""
        self._close_open_parts()
        return (*self._pieces, *self._open)

    def words(self) -> int:
        """How many words the text has: what white space parts."""
        pieces = self.pieces()
        self._words += [len(piece.split()) for piece in self._pieces[len(self._words) :]]
        halved = sum(
            not (before[-1].isspace() or behind[0].isspace()) for before, behind in pairwise(pieces)
        )
        return sum(self._words) + sum(len(part.split()) for part in self._open) - halved

    def tail(self, length: int) -> str:
        """The last `length` characters, or all there are."""
        parts: list[str] = []
        missing = length
        for part in self._from_the_end():
            if missing <= 0:
                break
            parts.append(part[-missing:])
            missing -= len(parts[-1])
        return "".join(reversed(parts))

    def clean_end(self, stop_sequences: Sequence[str]) -> int:
        """The resume point of a prefill: see `runner.continuation.text.clean_end`."""
        window = max(_WINDOW, 2 * max(map(len, stop_sequences), default=0))
        while True:
            tail = self.tail(window)
            end = clean_end(tail, stop_sequences)
            # An end near the window's start might move when more of the text is seen.
            if len(tail) == len(self) or end > window // 2:
                return len(self) - len(tail) + end
            window *= 2

    def blocks(self, end: int) -> tuple[str, ...]:
        """The text up to `end` as text blocks for a request: one a call, so that each stays the
        same from request to request and prompt caching can find it; none blank, since the API
        refuses those."""
        blocks: list[str] = []
        for piece in self.pieces():
            part = piece[:end]
            end -= len(part)
            if not part:
                break
            if blocks and (is_blank(part) or is_blank(blocks[-1])):
                blocks[-1] += part
            else:
                blocks.append(part)
        return tuple(blocks)

    def _from_the_end(self) -> Iterable[str]:
        yield from reversed(self._new)
        yield from reversed(self._open)
        yield from reversed(self._pieces)

    def _close(self) -> None:
        self._close_open_parts()
        self._pieces += self._open
        self._settled += self._open_length
        self._open, self._open_length = [], 0

    def _close_open_parts(self) -> None:
        if self._new or len(self._open) > 1:
            self._open = ["".join((*self._open, *self._new))]
            self._new = []


def fold(calls: Iterable[tuple[int, str]]) -> str:
    """A document's text out of its calls' resume points and texts, in the order of the calls."""
    document = GrowingDocument()
    for resume_at, text in calls:
        document.attach(resume_at)
        document.add(text)
    return document.text
