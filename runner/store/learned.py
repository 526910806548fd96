"""What the calls of a batch have been like, so that the next can be foreseen."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from runner.jobs.call import CallOutcome
from runner.store.engine import driver

LAST_NUMBER: Final = 20  # a call's number above it counts as it

# The time is this machine's both times; a clock that was set back counts for nothing.
LEARN: Final = """\
INSERT INTO learned (batch_key, model, number, calls, cut_calls, input_characters, input_tokens,
  output_characters, output_tokens, most_output_tokens, stream_ms)
SELECT ?1, model, min(number, ?2), 1, ?3, ?4, ?5, ?6, ?7, ?7, max(0, ended_ms - started_ms)
FROM call WHERE key = ?8
ON CONFLICT (batch_key, model, number) DO UPDATE SET
  calls = calls + 1,
  cut_calls = cut_calls + excluded.cut_calls,
  input_characters = input_characters + excluded.input_characters,
  input_tokens = input_tokens + excluded.input_tokens,
  output_characters = output_characters + excluded.output_characters,
  output_tokens = output_tokens + excluded.output_tokens,
  most_output_tokens = max(most_output_tokens, excluded.most_output_tokens),
  stream_ms = stream_ms + excluded.stream_ms
"""


def learn(connection: Connection, batch_key: int, call_key: int, outcome: CallOutcome) -> None:
    """Remember a call that the API answered to its end and counted."""
    usage = outcome.usage
    if outcome.stop_reason is None or usage.estimated:
        return
    values = (
        batch_key,
        LAST_NUMBER,
        int(outcome.stop_reason == "max_tokens"),
        outcome.input_characters,
        usage.total_input_tokens,
        outcome.text_characters,
        usage.output_tokens,
        call_key,
    )
    driver(connection).execute(LEARN, values)
