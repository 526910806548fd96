"""A document's calls, as the continuation loop makes them: how many, what each reads and writes.

    call 1   reads the prompt                                    writes max_tokens
    call 2   reads the prompt, the text so far [, the request]   writes [the last words,] max_tokens
    …        until the document's tokens are written, or a bound is reached

A continuation by `turn` pays for the request to go on as input, and for the last words, which the
reply repeats, as output; one by `prefill` for neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runner.jobs.call import Strategy

# Of runner.continuation.turn: its words that ask to go on, with the last words in them.
ASKING_CHARACTERS: Final = 490
LAST_WORDS_CHARACTERS: Final = 46
# What a seam takes back and the model writes again: half a word, white space.
TAKEN_BACK_TOKENS: Final = {Strategy.PREFILL: 0, Strategy.TURN: 2}


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a job decides about its calls.

    Args:
        prompt_tokens: of its first call's whole input.
        max_tokens: output tokens of one call.
        max_output_tokens: of all calls; None is no bound.
        tokens_per_character: of prose, by the model's tokenizer.
        thinking_tokens: thought in each call before it writes; they count as output.
        whole: each answer is a whole of its own (structured output) and is never continued.
    """

    prompt_tokens: int
    max_tokens: int
    strategy: Strategy
    max_calls: int
    max_output_tokens: int | None
    context_window: int
    tokens_per_character: float
    thinking_tokens: int = 0
    whole: bool = False


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call of a document.

    Args:
        prompt_tokens: input that is the prompt.
        document_tokens: input that is the document so far.
        asking_tokens: input that asks to go on.
        output_tokens: thinking and repeated last words included.
    """

    prompt_tokens: int
    document_tokens: int
    asking_tokens: int
    output_tokens: int

    @property
    def input_tokens(self) -> int:
        return self.prompt_tokens + self.document_tokens + self.asking_tokens


def planned_calls(shape: Shape, document_tokens: float) -> Iterator[PlannedCall]:
    """The calls that a document of so many tokens takes, in order.

    It ends where a bound of the job or the context window ends it.
    """
    turn = shape.strategy is Strategy.TURN
    per_character = shape.tokens_per_character
    last_words = round(LAST_WORDS_CHARACTERS * per_character) if turn else 0
    asking = round(ASKING_CHARACTERS * per_character) if turn else 0
    room = max(1, shape.context_window - shape.prompt_tokens)
    wanted = max(1, min(round(document_tokens), room))
    thinking = min(shape.thinking_tokens, max(0, shape.max_tokens - 1))
    written, paid, repeated = 0, 0, 0
    for number in range(shape.max_calls):
        again = min(written, TAKEN_BACK_TOKENS[shape.strategy]) if number else 0
        resumed_at = written - again
        # A call too small for its last words is asked again with twice the room.
        most = max(shape.max_tokens, 2 * (repeated + thinking))
        if shape.max_output_tokens is not None:
            most = min(most, shape.max_output_tokens - paid)
        output = min(most, thinking + repeated + wanted - resumed_at)
        if output <= 0:
            return
        yield PlannedCall(shape.prompt_tokens, resumed_at, asking if number else 0, output)
        paid += output
        written = max(written, resumed_at + output - repeated - thinking)
        if written >= wanted or shape.whole:
            return
        repeated = last_words
