"""Where a document may be cut, and how a stream's pieces become clean text."""

from __future__ import annotations

from collections.abc import Sequence

from runner.jobs.call import Verdict

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# The API refuses a prefill that ends in white space, and a text block that is nothing else. It does
# not say which characters it counts; we take Python's, and the marks that other languages add to
# them. Taking too many away costs nothing: the model writes them again.
_MORE_BLANKS = "\ufeff\u180e\u200b\u2060"
# A cut can tear a character: its bytes come as U+FFFD, and the whole of it must be written again.
_UNFIT_AT_END = _MORE_BLANKS + REPLACEMENT


def is_blank(text: str) -> bool:
    """Whether `text` holds nothing but white space."""
    if text[:1].isalnum():  # nearly always, and a request has a block for each call
        return False
    return all(character.isspace() or character in _MORE_BLANKS for character in text)


def clean_end(text: str, stop_sequences: Sequence[str] = ()) -> int:
    """The last offset at which `text` may be cut to be continued as a prefill.

    Before it there is no white space, no torn character, and no stop sequence or beginning of one: the
    API looks for stop sequences only in what it writes, so one that straddles a seam would be
    missed. Backed off to before its beginning, the model writes the whole of it in one call.
    """
    end = len(text)
    while True:
        clean = _without_blanks(text, end)
        clean -= _stop_sequence_begun(text, clean, stop_sequences)
        if clean == end:
            return end
        end = clean


def _without_blanks(text: str, end: int) -> int:
    while end and (text[end - 1].isspace() or text[end - 1] in _UNFIT_AT_END):
        end -= 1
    return end


def _stop_sequence_begun(text: str, end: int, stop_sequences: Sequence[str]) -> int:
    """Characters before `end` that are the beginning of a stop sequence; the longest counts."""
    longest = 0
    for sequence in stop_sequences:
        for length in range(min(len(sequence), end), longest, -1):
            if text.startswith(sequence[:length], end - length):
                longest = length
                break
    return longest


class Intake:
    """The plainest splice: makes text fit to be saved out of a stream's pieces.

    JSON may carry an astral character as two surrogates, and a stream may split them over two
    pieces: they are put together here. A surrogate that stays alone, and NUL, which neither
    terminals nor every database takes, become U+FFFD.

    Args:
        verdict: what is known of the seam, by the way the call is made.
    """

    def __init__(self, verdict: Verdict | None = None) -> None:
        self.verdict = verdict
        self.rejected: str | None = None  # whatever comes goes on with the document
        self._high = ""

    def feed(self, piece: str) -> str:
        """The text to save now; a first half of a character waits for its second."""
        text = self._high + piece
        self._high = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._high, text = text[-1], text[:-1]
        return _mended(text)

    def end(self, *, cut: bool) -> str:  # noqa: ARG002  a splice is told, whether it cares or not
        """The text to save when the stream is over."""
        text, self._high = self._high, ""
        return _mended(text)


def _mended(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
