"""How a document will go on, as far as its job's own words tell."""

from __future__ import annotations

import math

from runner.continuation.document import GrowingDocument
from runner.jobs.spec import ContinuationSpec, Until

# Where the document itself does not show it yet: a word takes at least one token, and a token of
# prose has four or five characters.
_MOST_WORDS_A_TOKEN = 1.0
_MOST_CHARACTERS_A_TOKEN = 6.0
# A model may write more tersely than so far, but hardly by more than this.
_TERSER = 1.2


def sure_calls(
    until: Until | None, document: GrowingDocument, document_tokens: int, max_tokens: int
) -> int:
    """How many calls will follow the next one for sure, since its text cannot be long enough.

    A model may of course stop before; it is then asked to go on.

    Args:
        document_tokens: what the document so far comes to.
        max_tokens: what a call can write at most.
    """
    if until is None:
        return 0
    if until.all:
        return max(sure_calls(p, document, document_tokens, max_tokens) for p in until.all)
    if until.min_words is not None:
        have, need, most = document.words(), until.min_words, _MOST_WORDS_A_TOKEN
    elif until.min_chars is not None:
        have, need, most = len(document), until.min_chars, _MOST_CHARACTERS_A_TOKEN
    else:
        return 0
    if have and document_tokens:
        most = min(most, _TERSER * have / document_tokens)
    calls = (need - have) / (most * max(1, max_tokens))
    # The next one is not among those that follow it; and what is nearly a whole number is one.
    return max(0, math.ceil(calls - 1e-9) - 1)


def most_calls(bounds: ContinuationSpec, answered: int, output_tokens: int, max_tokens: int) -> int:
    """How many calls may follow the next one, by the job's bounds.

    Args:
        answered: the calls that were answered so far.
        output_tokens: what they have written.
        max_tokens: what the next call can write at most.
    """
    calls = bounds.max_calls - answered - 1
    if bounds.max_output_tokens is not None:
        left = bounds.max_output_tokens - output_tokens
        calls = min(calls, -(-left // max(1, max_tokens)) - 1)
    return max(0, calls)
