"""What the calls of a batch have been like, so that the next can be foreseen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from runner.jobs.call import CHARACTERS_PER_TOKEN, CallOutcome
from runner.store.bare import both
from runner.store.engine import driver

LAST_NUMBER: Final = 20  # a call's number above it counts as it

# The time is this machine's both times; a clock that was set back counts for nothing.
LEARN: Final = both(
    """\
INSERT INTO learned (batch_key, model, number, calls, cut_calls, input_characters, input_tokens,
  output_characters, output_tokens, thinking_tokens, most_output_tokens, stream_ms)
SELECT ?1, model, least(number, ?2), 1, ?3, ?4, ?5, ?6, ?7, ?8, ?7,
  greatest(0, ended_ms - started_ms)
FROM call WHERE key = ?9
ON CONFLICT (batch_key, model, number) DO UPDATE SET
  calls = learned.calls + 1,
  cut_calls = learned.cut_calls + excluded.cut_calls,
  input_characters = learned.input_characters + excluded.input_characters,
  input_tokens = learned.input_tokens + excluded.input_tokens,
  output_characters = learned.output_characters + excluded.output_characters,
  output_tokens = learned.output_tokens + excluded.output_tokens,
  thinking_tokens = learned.thinking_tokens + excluded.thinking_tokens,
  most_output_tokens = greatest(learned.most_output_tokens, excluded.most_output_tokens),
  stream_ms = learned.stream_ms + excluded.stream_ms
"""
)


def learn(connection: Connection, batch_key: int, call_key: int, outcome: CallOutcome) -> None:
    """Remember a call that the API answered to its end and counted."""
    values = learnt_values(outcome)
    if values is not None:
        driver(connection).execute(LEARN, (batch_key, LAST_NUMBER, *values, call_key))


def learnt_values(outcome: CallOutcome) -> tuple[int, ...] | None:
    """What is remembered of a call, in the order of `LEARN`; None where it tells nothing."""
    usage = outcome.usage
    if outcome.stop_reason is None or usage.estimated:
        return None
    return (
        int(outcome.stop_reason == "max_tokens"),
        outcome.input_characters,
        usage.total_input_tokens,
        outcome.text_characters,
        usage.output_tokens,
        outcome.thinking_tokens,
    )


# Where a batch has shown nothing yet: about what the models in use today write.
ASSUMED_TOKENS_PER_MS: Final = 0.06

SUMS: Final = """\
SELECT sum(output_characters), sum(output_tokens), sum(thinking_tokens), sum(stream_ms), sum(calls)
FROM learned WHERE batch_key = ? AND model = ?
"""


@dataclass(frozen=True, slots=True)
class Pattern:
    """How the calls of a batch to one model write.

    Args:
        tokens_per_character: of text, thinking left aside.
        tokens_per_ms: of all output, from a request to its end.
        thinking_tokens: of a call, on average.
    """

    tokens_per_character: float = 1 / CHARACTERS_PER_TOKEN
    tokens_per_ms: float = ASSUMED_TOKENS_PER_MS
    thinking_tokens: float = 0


def pattern(connection: Connection, batch_key: int, model: str) -> Pattern:
    """How the calls of a batch to a model have written so far, or what is assumed of it."""
    rows = driver(connection).execute(SUMS, (batch_key, model)).fetchall()
    ((characters, tokens, thinking, stream_ms, calls),) = rows
    if not characters:
        return Pattern()
    text = (tokens - thinking) / characters
    pace = tokens / stream_ms if stream_ms else ASSUMED_TOKENS_PER_MS
    return Pattern(text, pace, thinking / calls)
