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
_DOCUMENT = f"max(0, {_WHOLE_INPUT} - coalesce(call.prompt_tokens, {_WHOLE_INPUT}))"
_DOCUMENT_AGAIN = f"min(call.input_tokens, {_DOCUMENT})"
# Most rows are decided by themselves. Only a call that begins a document again, though it is not
# its first, asks whether the ones before it were turned away before they read anything.
READS_FIRST: Final = """\
CASE
  WHEN call.superseded THEN 0
  WHEN call.number = 1 THEN 1
  WHEN call.resume_at > 0 THEN 0
  ELSE NOT EXISTS (
    SELECT 1 FROM call AS earlier
    WHERE earlier.job_key = call.job_key AND earlier.key < call.key AND earlier.superseded = 0
      AND earlier.input_tokens + earlier.cache_creation_input_tokens
        + earlier.cache_read_input_tokens > 0)
END"""
_PROMPT = f"(call.input_tokens - {_DOCUMENT_AGAIN})"
_LOST = (
    "CASE WHEN call.superseded THEN call.output_tokens "
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

_USD_SQL: Final = {
    "prompt_first_usd": ("prompt_first", "input_price"),
    "prompt_again_usd": ("prompt_again", "input_price"),
    "document_again_usd": ("document_again", "input_price"),
    "cache_written_5m_usd": ("cache_written_5m", "cache_write_5m_price"),
    "cache_written_1h_usd": ("cache_written_1h", "cache_write_1h_price"),
    "cache_read_usd": ("cache_read", "cache_read_price"),
    "output_kept_usd": ("output_kept", "output_price"),
    "output_lost_usd": ("output_lost", "output_price"),
}
# For whoever reads the database with other tools: a row for each call that ended, money in dollars.
LEDGER_COLUMNS: Final = {
    "batch": ("batch.name", "the batch's name"),
    "simulated": ("batch.simulated", "1 when its documents come from the simulator, so that nothing was paid"),
    "job": ("job.id", "the job's id"),
    "job_key": ("call.job_key", "its key"),
    "call_key": ("call.key", "the call's key"),
    "number": ("call.number", "1 for a job's first call, and so on"),
    "model": ("call.model", "the model asked"),
    "day": ("date(call.started_ms / 1000, 'unixepoch')", "the day it was begun, in UTC"),
    "stop_reason": ("call.stop_reason", "as the API said it; NULL where the stream broke"),
    "request_id": ("call.request_id", "the API's name for the request"),
    "superseded": ("call.superseded", "1 when its text left the document for good"),
    "estimated": ("call.usage_estimated", "1 where the API did not say its count, so that tokens and money are estimated"),
    "all_input_tokens": (_WHOLE_INPUT, "the whole input, from the prompt cache or not"),
    "output_tokens": ("call.output_tokens", "output tokens"),
    "cost_usd": ("call.cost_nano_usd / 1e9", "what it cost; NULL where the price is not known"),
    **{
        name: (f"({SPLIT_SQL[part]}) * call.{price} / 1e15", f"of it, for {words}")
        for (name, (part, price)), words in zip(
            _USD_SQL.items(),
            (
                "the prompt read first", "the prompt read again", "the document read again",
                "writes to the prompt cache for 5 minutes", "writes to it for an hour",
                "reads from it", "output that was kept", "output lost or paid twice",
            ),
            strict=True,
        )
    },
}  # fmt: skip
LEDGER_VIEW: Final = (
    "CREATE VIEW ledger AS SELECT\n"
    + ",\n".join(f"  {sql} AS {name}" for name, (sql, _) in LEDGER_COLUMNS.items())
    + "\nFROM call JOIN job ON job.key = call.job_key JOIN batch ON batch.key = job.batch_key\n"
    "WHERE call.ended_ms IS NOT NULL"
)
