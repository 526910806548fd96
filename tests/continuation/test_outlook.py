"""How a document will go on, as far as its job's own words tell."""

from __future__ import annotations

import pytest

from runner.continuation.document import GrowingDocument
from runner.continuation.outlook import most_calls, sure_calls
from runner.jobs.spec import ContinuationSpec, Until


def document(text: str) -> GrowingDocument:
    grown = GrowingDocument()
    grown.add(text)
    return grown


@pytest.mark.parametrize(
    ("until", "words", "tokens", "sure"),
    [
        (None, 0, 0, 0),
        (Until(contains="x"), 0, 0, 0),
        # No token holds more than a word: 100 tokens a call, 1,000 words, one call is the next.
        (Until(min_words=1_000), 0, 0, 9),
        (Until(min_words=100), 0, 0, 0),
        # Here a word has taken two tokens so far: 60 words a call at most.
        (Until(min_words=1_000), 100, 200, 14),
        (Until(min_words=1_000), 990, 2_000, 0),
        (Until(min_chars=1_300), 0, 0, 2),
        (Until(all=(Until(contains="x"), Until(min_words=1_000))), 0, 0, 9),
    ],
)
def test_sure_is_what_must_follow(until, words, tokens, sure) -> None:
    assert sure_calls(until, document("word " * words), tokens, 100) == sure


@pytest.mark.parametrize(
    ("bounds", "answered", "written", "most"),
    [
        (ContinuationSpec(max_calls=10), 0, 0, 9),
        (ContinuationSpec(max_calls=10), 9, 0, 0),
        (ContinuationSpec(max_calls=10, max_output_tokens=450), 1, 100, 3),
        (ContinuationSpec(max_calls=10, max_output_tokens=450), 4, 400, 0),
    ],
)
def test_bounds_say_what_may_follow(bounds, answered, written, most) -> None:
    assert most_calls(bounds, answered, written, 100) == most
