"""A document as its pieces arrive, beside what a reader has seen of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runner.continuation.text import clean_end
from runner.store.records import TextPiece


@dataclass(frozen=True, slots=True)
class News:
    """What to tell the reader: text that is no longer true, and the text that follows."""

    taken_back: str = ""
    text: str = ""


class Followed:
    """Folds pieces into the text and says what is new.

    The end at which a continuation could not go on (white space, a torn character) is held back
    until more comes: that is where nearly all continuations take back, and it need not show.
    """

    def __init__(self) -> None:
        self.last_seq = -1
        self._text = ""
        self._seen = ""
        self._call: tuple[int, int] | None = None

    def begin_again(self) -> None:
        """Forget the text, not what was seen: all pieces are to be taken once more."""
        self.last_seq, self._text, self._call = -1, "", None

    def take(self, pieces: Iterable[TextPiece]) -> None:
        """Fold further pieces into the text."""
        for piece in pieces:
            if (piece.call_number, piece.resume_at) != self._call:
                self._call = (piece.call_number, piece.resume_at)
                self._text = self._text[: piece.resume_at]
            self._text += piece.text
            self.last_seq = piece.seq

    def begin(self, lines: int) -> str:
        """The last lines of what is there; what stands before them counts as seen."""
        self._seen = self._text[: clean_end(self._text)]
        return "".join(self._seen.splitlines(keepends=True)[-lines:]) if lines else ""

    def news(self) -> News:
        """What is new, while more may come. A text that only grew shorter may grow back."""
        settled = self._text[: clean_end(self._text)]
        return News() if self._seen.startswith(settled) else self._advance(settled)

    def rest(self) -> News:
        """What is new, when no more will come."""
        return self._advance(self._text)

    def _advance(self, text: str) -> News:
        kept = _common(self._seen, text)
        news = News(taken_back=self._seen[kept:], text=text[kept:])
        self._seen = text
        return news


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(i for i in range(length) if one[i] != other[i])
