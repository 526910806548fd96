"""The splice of a prefill to a server that may take it and begin the answer afresh all the same.

Some local servers do, without a word. Such an answer is known by its opening, which is the
document's own: its first characters are held back until they differ from it, or are too many for an
accident. The answer is rejected then, and nothing of it enters the document.
"""

from __future__ import annotations

from runner.continuation.text import Intake
from runner.jobs.call import Verdict

OPENING = 60  # characters that an answer shares with the document's beginning by no accident
LEAST = 8  # the same for an answer or a document that is no longer than that


class FreshStart:
    """Lets an answer through once it is known not to be the document from its beginning.

    A document that already repeats its beginning may truly do so again: such an answer is let
    through, and its seam is `unverified`.

    Args:
        document: the document up to the resume point.
    """

    def __init__(self, document: str) -> None:
        self.verdict: Verdict | None = None
        self.rejected: str | None = None
        document = document.lstrip()
        self._beginning = document[:OPENING]
        self._repeats = document.find(self._beginning, 1) >= 0 or len(self._beginning) < LEAST
        self._intake = Intake()
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text to save now."""
        return self._take(self._intake.feed(piece), over=False)

    def end(self, *, cut: bool) -> str:
        """The text to save when the stream is over."""
        return self._take(self._intake.end(cut=cut), over=True)

    def _take(self, text: str, *, over: bool) -> str:
        if self.verdict is not None:
            return text
        if self.rejected is not None:
            self.rejected += text
            return ""
        self._held += text
        opening = self._held.lstrip()[: len(self._beginning)]
        if opening != self._beginning[: len(opening)]:
            return self._let_in(Verdict.EXACT)
        if len(opening) < len(self._beginning) and not over:
            return ""
        if len(opening) < LEAST:  # over: too little to tell, or nothing at all
            return self._let_in(Verdict.UNVERIFIED) if opening else ""
        if self._repeats:
            return self._let_in(Verdict.UNVERIFIED)
        self.rejected, self._held = self._held, ""
        return ""

    def _let_in(self, verdict: Verdict) -> str:
        self.verdict = verdict
        text, self._held = self._held, ""
        return text
