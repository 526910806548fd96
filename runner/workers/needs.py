"""What a call is expected to need: by what the calls of its batch and of its job have been like."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.jobs.call import CHARACTERS_PER_TOKEN
from runner.store.learned import ASSUMED_TOKENS_PER_MS
from runner.store.records import Claim, LearnedCalls
from runner.store.store import Store

FRESH_S: Final = 2.0  # what was learned is asked for anew after so long
# Fewer say little: their mean is taken together with the assumption.
ENOUGH_CALLS: Final = 5


@dataclass(frozen=True, slots=True)
class Need:
    """What a call is expected to need, in tokens.

    Args:
        input_characters: of the request's texts.
        input_tokens: the whole input, from the prompt cache or not.
        prompt_tokens: the part of it that is the prompt; the rest is the document so far.
        output_tokens: what such calls write.
        most_output_tokens: what it may write: its `max_tokens`.
        tokens_per_character: of text that it writes.
        tokens_per_ms: how fast it writes.
        thinking_tokens: what goes into thinking before that.
    """

    input_characters: int
    input_tokens: int
    prompt_tokens: int
    output_tokens: int
    most_output_tokens: int
    tokens_per_character: float = 1 / CHARACTERS_PER_TOKEN
    tokens_per_ms: float = ASSUMED_TOKENS_PER_MS
    thinking_tokens: int = 0


class Needs:
    """Foresees calls, and learns from the store what calls have been like."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._learned: dict[tuple[int, str], tuple[float, Sequence[LearnedCalls]]] = {}

    async def learned(self, batch_key: int, model: str) -> Sequence[LearnedCalls]:
        """What the calls of a batch and model have been like, by their number; maybe 2 s old."""
        now = time.monotonic()
        at, rows = self._learned.get((batch_key, model), (-FRESH_S, ()))
        if now - at >= FRESH_S:
            rows = await self._store.learned(batch_key, model)
            self._learned[batch_key, model] = (now, rows)
        return rows

    async def of(
        self, claim: Claim, loop: ContinuationLoop, send: Send, body: Mapping[str, Any]
    ) -> Need:
        """What the call for `send` will need."""
        rows = await self.learned(claim.batch_key, claim.model)
        input_tokens = loop.input_tokens(send)
        return Need(
            input_characters=text_length(body.get("system")) + text_length(body["messages"]),
            input_tokens=input_tokens,
            prompt_tokens=min(input_tokens, loop.prompt_tokens),
            output_tokens=expected_output(rows, send),
            most_output_tokens=send.max_tokens,
            tokens_per_character=tokens_per_character(rows),
            tokens_per_ms=tokens_per_ms(rows),
            thinking_tokens=thinking_tokens(rows),
        )


def expected_output(rows: Sequence[LearnedCalls], send: Send) -> int:
    """Tokens that the call will write, by the mean of those with its number, then of all."""
    same = [row for row in rows if row.number == min(send.number, 20)]
    for some in (same, rows):
        calls = sum(row.calls for row in some)
        if calls >= ENOUGH_CALLS:
            mean = sum(row.output_tokens for row in some) / calls
            return max(1, min(send.max_tokens, round(mean)))
    return max(1, min(send.max_tokens, 1_500))


def tokens_per_character(rows: Sequence[LearnedCalls]) -> float:
    """Tokens that a character of text comes to, thinking left aside."""
    characters = sum(row.output_characters for row in rows)
    if not characters:
        return 1 / CHARACTERS_PER_TOKEN
    return sum(row.output_tokens - row.thinking_tokens for row in rows) / characters


def tokens_per_ms(rows: Sequence[LearnedCalls]) -> float:
    """Tokens that a stream brings in a millisecond, from its request to its end."""
    stream_ms = sum(row.stream_ms for row in rows)
    if not stream_ms:
        return ASSUMED_TOKENS_PER_MS
    return sum(row.output_tokens for row in rows) / stream_ms


def thinking_tokens(rows: Sequence[LearnedCalls]) -> int:
    """Tokens of thinking in a call, by the mean."""
    calls = sum(row.calls for row in rows)
    return round(sum(row.thinking_tokens for row in rows) / calls) if calls else 0


def text_length(value: Any) -> int:
    """Characters of the texts in a request's field."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (dict, Mapping)):  # the abstract kind alone takes several times as long
        return text_length(value.get("text")) + text_length(value.get("content"))
    return sum(map(text_length, value)) if isinstance(value, Sequence) else 0
