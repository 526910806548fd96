"""How full the context window is, by what the API counted of earlier calls and by estimate.

The estimate is low rather than high: a call too many is refused and costs little, and a document
that is ended too early is cut for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.jobs.call import Usage, estimate_tokens
from runner.jobs.spec import JobSpec

# A call that has room for less than this part of the window brings hardly a paragraph, and its
# whole input is paid for.
_LEAST_ROOM = 1 / 1_000
# So near to its end an estimate is not good enough, and the API is asked to count.
_NEAR = 1 / 8


class Room:
    """Knows how many tokens a request takes up, from the counts of the calls before it.

    Args:
        spec: the job: its prompt is estimated until the API has counted it.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._tokens = estimate_tokens(_text_length(spec.messages) + _text_length(spec.system))
        self._characters = 0  # of the document, in those tokens
        self._counted = False
        self._prompt_tokens = self._tokens
        self._tokens_per_character = 1 / 4

    def note(self, document_characters: int, usage: Usage) -> None:
        """The API counted a request that held so many characters of the document."""
        tokens = usage.total_input_tokens
        if tokens == 0:
            return  # the call broke before it was counted, or the server does not count
        grown = document_characters - self._characters
        if self._counted and grown > 0 and tokens > self._tokens:
            self._tokens_per_character = (tokens - self._tokens) / grown
        self._tokens, self._characters, self._counted = tokens, document_characters, True
        if document_characters == 0:
            self._prompt_tokens = tokens

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt alone."""
        return self._prompt_tokens

    @property
    def counted(self) -> tuple[int, int] | None:
        """The last request that the API counted: its tokens, and the characters of the document
        that it held; None: none yet."""
        return (self._tokens, self._characters) if self._counted else None

    def tokens(self, document_characters: int) -> int:
        """Tokens of a request that holds so many characters of the document."""
        grown = document_characters - self._characters
        return max(0, self._tokens + round(grown * self._tokens_per_character))

    def is_near(self, document_characters: int, context_window: int) -> bool:
        """Whether such a request may leave no room, by an estimate that may be wrong."""
        return context_window - self.tokens(document_characters) < context_window * _NEAR

    def is_full(self, document_characters: int, context_window: int) -> bool:
        """Whether such a request leaves no room worth paying for."""
        left = context_window - self.tokens(document_characters)
        return left < max(1, context_window * _LEAST_ROOM)


def _text_length(value: Any) -> int:
    """Characters of the texts in it. Pictures and papers are left to the API's own count."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return _text_length(value.get("text")) + _text_length(value.get("content"))
    return sum(map(_text_length, value)) if isinstance(value, Sequence) else 0
