"""The shipped table of models, and the many names one model goes by."""

import pytest

from runner.messages.models import is_anthropic, plain_name, traits
from runner.simulator.models import MODELS

ANTHROPIC = "https://api.anthropic.com"
LOCAL = "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-haiku-4-5-20251001-v1:0",
            "claude-haiku-4-5",
        ),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet"),
        ("Claude-Opus-4-6[1m]", "claude-opus-4-6"),
        ("qwen3-coder:30b", "qwen3-coder:30b"),
        ("", ""),
    ],
)
def test_plain_names(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize(
    ("model", "prefill", "max_output_tokens"),
    [
        ("claude-haiku-4-5", True, 64_000),
        ("claude-haiku-4-5-20251001", True, 64_000),
        ("claude-sonnet-4-5", True, 64_000),
        ("claude-opus-4-5-20251101", True, 64_000),
        ("claude-opus-4-1", True, 32_000),
        ("claude-sonnet-4-20250514", True, 64_000),
        ("claude-opus-4-20250514", True, 32_000),
        ("claude-3-7-sonnet-20250219", True, 64_000),
        ("claude-3-5-haiku-latest", True, 8_192),
        ("claude-3-opus-20240229", True, 4_096),
        ("claude-2.1", True, 4_096),
        ("claude-opus-4-6", False, 128_000),
        ("claude-sonnet-4-6", False, 128_000),
        ("claude-opus-4-7", False, 128_000),
        ("claude-opus-5-5", False, 128_000),
        ("claude-haiku-5-5", False, 128_000),
        ("claude-fable-5-1", False, 128_000),
        ("claude-mythos-preview", False, 64_000),
        ("claude-mythos-5-2", False, 64_000),
        ("claude-sonnet-9", False, 64_000),
        ("claude-novella-4-2", False, 64_000),
        ("claude-opus-4-10", False, 64_000),
        ("claude", False, 64_000),
        ("gpt-oss", False, 64_000),
    ],
)
def test_at_anthropic(model: str, prefill: bool, max_output_tokens: int) -> None:
    found = traits(model, ANTHROPIC)
    assert (found.prefill, found.max_output_tokens) == (prefill, max_output_tokens)
    assert not found.one_block
    assert found.context_window >= found.max_output_tokens


def test_at_another_server() -> None:
    assert traits("smollm2", LOCAL).prefill
    assert traits("smollm2", LOCAL).one_block
    assert not traits("claude-opus-5-5", LOCAL).prefill
    assert traits("claude-haiku-4-5", LOCAL).one_block
    assert not traits("claude-haiku-4-5", LOCAL, one_block=False).one_block
    assert traits("claude-haiku-4-5", ANTHROPIC, one_block=True).one_block


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.anthropic.com", True),
        ("https://API.Anthropic.com/", True),
        ("https://anthropic.com", True),
        ("https://anthropic.com.example.org", False),
        ("https://notanthropic.com", False),
        ("http://localhost:8080/anthropic.com", False),
        ("", False),
    ],
)
def test_whose_endpoint(url: str, own: bool) -> None:
    assert is_anthropic(url) is own


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_the_least_that_is_cached_is_what_the_api_asks_for(model):
    known = traits(model.id, ANTHROPIC).cache_minimum_tokens
    assert known == model.cache_minimum_tokens


def test_of_an_unknown_model_the_most_is_asked_and_of_another_endpoint_nothing_is_cached():
    assert traits("claude-newest-9", ANTHROPIC).cache_minimum_tokens == 4_096
    assert traits("claude-haiku-4-5", "http://localhost:1").cache_minimum_tokens is None
    local = traits("llama", "http://localhost:1", one_block=False)
    assert local.cache_minimum_tokens is None
    as_anthropics = traits("claude-haiku-4-5", "http://localhost:1", one_block=False)
    assert as_anthropics.cache_minimum_tokens == 4_096
