"""What a call was for: its tokens split by purpose, in SQL, and its money shared out by them.

A request is its prompt, and behind it the document so far. The cache holds a beginning of it, so
what was read outside the cache is its end: the document first, from the end backwards, then the
prompt. The first call of a job that read anything reads the prompt first, all others again. Output
is kept, unless it never entered the document or left it again; a call whose whole text left the
document for good lost all of it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Final

from runner.jobs.price import Rates


class Purpose(StrEnum):
    """What tokens were paid for."""

    PROMPT_FIRST = "prompt_first"
    PROMPT_AGAIN = "prompt_again"
    DOCUMENT_AGAIN = "document_again"
    CACHE_WRITTEN = "cache_written"
    CACHE_READ = "cache_read"
    OUTPUT_KEPT = "output_kept"
    OUTPUT_LOST = "output_lost"

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS: Final = {
    Purpose.PROMPT_FIRST: "prompt read first",
    Purpose.PROMPT_AGAIN: "prompt read again",
    Purpose.DOCUMENT_AGAIN: "document read again",
    Purpose.CACHE_WRITTEN: "cache written",
    Purpose.CACHE_READ: "cache read",
    Purpose.OUTPUT_KEPT: "output kept",
    Purpose.OUTPUT_LOST: "output lost or paid twice",
}


@dataclass(frozen=True, slots=True)
class Split:
    """The tokens of one call, or of several at the same rates, by what they were for.

    `output_kept` of a single call may be less than nothing: where it took back more of earlier
    calls' output than it wrote itself. Over a whole document it cannot.
    """

    prompt_first: int = 0
    prompt_again: int = 0
    document_again: int = 0
    cache_written_5m: int = 0
    cache_written_1h: int = 0
    cache_read: int = 0
    output_kept: int = 0
    output_lost: int = 0

    def __add__(self, other: Split) -> Split:
        return Split(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def tokens(self) -> dict[Purpose, int]:
        """The same by purpose."""
        return {
            Purpose.PROMPT_FIRST: self.prompt_first,
            Purpose.PROMPT_AGAIN: self.prompt_again,
            Purpose.DOCUMENT_AGAIN: self.document_again,
            Purpose.CACHE_WRITTEN: self.cache_written_5m + self.cache_written_1h,
            Purpose.CACHE_READ: self.cache_read,
            Purpose.OUTPUT_KEPT: self.output_kept,
            Purpose.OUTPUT_LOST: self.output_lost,
        }

    def shares(self, cost: int, rates: Rates) -> dict[Purpose, int]:
        """A cost shared out by purpose; the shares always sum to it.

        Args:
            cost: what these tokens cost together.
            rates: at which each of them was paid.
        """
        written = (
            self.cache_written_5m * rates.cache_write_5m
            + self.cache_written_1h * rates.cache_write_1h
        )
        weights = {
            purpose: tokens * (rates.output if purpose in _OUTPUT else rates.input)
            for purpose, tokens in self.tokens.items()
        } | {
            Purpose.CACHE_WRITTEN: written,
            Purpose.CACHE_READ: self.cache_read * rates.cache_read,
        }
        return _shared_out(cost, weights)


_OUTPUT = frozenset({Purpose.OUTPUT_KEPT, Purpose.OUTPUT_LOST})


def _shared_out(cost: int, weights: dict[Purpose, int]) -> dict[Purpose, int]:
    """Whole numbers in the proportion of the weights whose sum is `cost`.

    Each is the difference of two neighbouring rounded running sums, so that nothing is lost to
    rounding and what weighs nothing gets nothing.
    """
    whole = sum(weights.values())
    shares: dict[Purpose, int] = {}
    running = given = 0
    for purpose in Purpose:
        running += weights[purpose]
        upto = cost * running // whole if whole else 0
        shares[purpose] = upto - given
        given = upto
    return shares


# In the words of `call`'s columns, so that a query can say them of any `call` it reads.
_WHOLE_INPUT = (
    "(call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens)"
)
_DOCUMENT = (
    f"(CASE WHEN {_WHOLE_INPUT} > call.prompt_tokens "
    f"THEN {_WHOLE_INPUT} - call.prompt_tokens ELSE 0 END)"
)
_DOCUMENT_AGAIN = (
    f"(CASE WHEN call.input_tokens < {_DOCUMENT} THEN call.input_tokens ELSE {_DOCUMENT} END)"
)
# Most rows are decided by themselves. Only a call that begins a document again, though it is not
# its first, asks whether the ones before it were turned away before they read anything.
READS_FIRST: Final = """\
CASE
  WHEN call.superseded = 1 THEN 0
  WHEN call.number = 1 THEN 1
  WHEN call.resume_at > 0 THEN 0
  WHEN EXISTS (
    SELECT 1 FROM call AS earlier
    WHERE earlier.job_key = call.job_key AND earlier.key < call.key AND earlier.superseded = 0
      AND earlier.input_tokens + earlier.cache_creation_input_tokens
        + earlier.cache_read_input_tokens > 0) THEN 0
  ELSE 1
END"""
_PROMPT = f"(call.input_tokens - {_DOCUMENT_AGAIN})"
_LOST = (
    "CASE WHEN call.superseded = 1 THEN call.output_tokens "
    "ELSE call.lost_output_tokens + call.dropped_output_tokens END"
)

# One expression for each field of `Split`.
SPLIT_SQL: Final[dict[str, str]] = {
    "prompt_first": f"({READS_FIRST}) * {_PROMPT}",
    "prompt_again": f"(1 - ({READS_FIRST})) * {_PROMPT}",
    "document_again": _DOCUMENT_AGAIN,
    "cache_written_5m": "call.cache_creation_input_tokens - call.cache_creation_1h_input_tokens",
    "cache_written_1h": "call.cache_creation_1h_input_tokens",
    "cache_read": "call.cache_read_input_tokens",
    "output_kept": f"call.output_tokens - ({_LOST})",
    "output_lost": _LOST,
}
