"""The bound on a request's input: never below what a tokenizer counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.messages.most_input import PICTURE_TOKENS, most_input_tokens, most_text_tokens
from runner.simulator.tokens import count_tokens
from runner.simulator.validate import read_request

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).map(lambda t: f"x{t}")
BLOCKS = st.builds(lambda text: {"type": "text", "text": text}, TEXTS)
PAPERS = st.builds(
    lambda data: {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": data},
    },
    TEXTS,
)
CONTENTS = st.one_of(TEXTS, st.lists(st.one_of(BLOCKS, PAPERS), min_size=1, max_size=4))


def body(content: Any, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "claude-opus-5-5", "max_tokens": 100, "messages": messages, **fields}


@given(TEXTS)
def test_a_text_has_no_more_tokens_than_the_bound(text: str) -> None:
    assert count_tokens(text) <= most_text_tokens(text)


@given(CONTENTS, TEXTS)
def test_a_request_has_no_more_tokens_than_the_bound(content: Any, system: str) -> None:
    asked = body(content, system=system)
    request = read_request(asked, "2026-10-21")
    most = most_input_tokens(asked)
    assert most is not None
    tokens = [count_tokens(block.text or "") + block.weight_tokens for block in request.blocks]
    assert sum(tokens) + request.extra_tokens <= most


def test_a_character_that_a_tokenizer_may_take_apart() -> None:
    assert most_text_tokens("\ufdfa") == 33  # three bytes, and eighteen characters when taken apart
    assert most_text_tokens("e\u0301") == 3
    assert most_text_tokens("\ud83d") == 3  # half a pair, as JSON can hold it


def test_pictures_count_by_what_they_are_and_not_by_their_bytes() -> None:
    picture = {"type": "image", "source": {"type": "base64", "data": "A" * 1_000_000}}
    plain = most_input_tokens(body([{"type": "text", "text": "see"}]))
    assert plain is not None
    assert most_input_tokens(body([{"type": "text", "text": "see"}, picture, picture])) == (
        plain + 2 * PICTURE_TOKENS
    )


@pytest.mark.parametrize("kind", ["base64", "url", "file"])
def test_nobody_can_tell_how_long_a_paper_is(kind: str) -> None:
    paper = {"type": "document", "source": {"type": kind, "data": "JVBERi0="}}
    assert most_input_tokens(body([paper])) is None
    result = {"type": "search_result", "content": [paper]}
    assert most_input_tokens(body([result])) is None


def test_a_form_that_is_asked_for_is_explained_to_the_model() -> None:
    schema = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    plain = most_input_tokens(body("x"))
    assert plain is not None
    assert most_input_tokens(body("x", output_config=schema)) > plain + 2_000


def test_what_is_no_part_of_the_prompt_does_not_count() -> None:
    assert most_input_tokens(body("x", stop_sequences=["y" * 999], metadata={"user_id": "z"})) == (
        most_input_tokens(body("x"))
    )
