"""What a job's own words let expect, in the order in which they are believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.estimating.evidence import ASSUMED_TOKENS, Ground, length_of, prompt_characters
from runner.estimating.lengths import Unit
from runner.estimating.tokenizer import Tokenizer, is_newer, tokenizer
from runner.jobs.spec import ContinuationSpec, JobSpec, Until


def job(prompt: str = "Write about otters.", **changes: object) -> JobSpec:
    spec = JobSpec("a", "claude-haiku-4-5", ({"role": "user", "content": prompt},))
    return replace(spec, **changes)


@pytest.mark.parametrize(
    ("spec", "ground", "expected"),
    [
        (job(), Ground.ASSUMED, ASSUMED_TOKENS),
        (job(max_tokens=4096), Ground.ASSUMED, ASSUMED_TOKENS),
        (job(max_tokens=300), Ground.MAX_TOKENS, 300),
        (job(continuation=ContinuationSpec(max_output_tokens=700)), Ground.MAX_TOKENS, 700),
        (job("In 900 words, please."), Ground.PROMPT, 900),
        (job("In 900 words, please.", max_tokens=300), Ground.PROMPT, 900),
        (job(system="Your answers have 200 words."), Ground.PROMPT, 200),
        (job("In 900 words.", system="Your answers have 200 words."), Ground.PROMPT, 900),
        (job(until=Until(min_words=1000)), Ground.UNTIL, 1100),
        (job("In 300 words.", until=Until(min_words=1000)), Ground.UNTIL, 1100),
        (job("In 3,000 words.", until=Until(min_words=1000)), Ground.PROMPT, 3000),
        (job(until=Until(all=(Until(contains="x"), Until(min_chars=500)))), Ground.UNTIL, 550),
        (job(until=Until(contains="x")), Ground.ASSUMED, ASSUMED_TOKENS),
    ],
)
def test_grounds(spec: JobSpec, ground: Ground, expected: float) -> None:
    length = length_of(spec)
    assert (length.ground, round(length.expected)) == (ground, expected)
    assert length.least <= length.expected <= length.most


TEXT = "The river rose in the night and took the bridge with it. " * 40


@pytest.mark.parametrize(
    ("spec", "ground"),
    [
        (job(f"Translate into German:\n{TEXT}"), Ground.SOURCE),
        (job(f"{TEXT}\n\nPlease rewrite this for children."), Ground.SOURCE),
        (job(TEXT, system="You proofread what you are given."), Ground.SOURCE),
        (job(f"Translate into German, in at most 90 words:\n{TEXT}"), Ground.PROMPT),
        (job(f"Summarise:\n{TEXT}"), Ground.ASSUMED),
        (job(f"Summarise:\n{TEXT}They had to translate the letter.{TEXT}"), Ground.ASSUMED),
        (job("Translate the Odyssey."), Ground.ASSUMED),
    ],
)
def test_a_text_that_is_worked_over_stays_about_as_long(spec: JobSpec, ground: Ground) -> None:
    length = length_of(spec)
    assert length.ground is ground
    if ground is Ground.SOURCE:
        assert length.expected == pytest.approx(len(TEXT), rel=0.05)


def test_a_prompt_is_all_that_is_read() -> None:
    blocks = (
        {"role": "user", "content": [{"type": "text", "text": "12345"}]},
        {"role": "assistant", "content": "123"},
    )
    assert prompt_characters(job(system="12", messages=blocks)) == 10
    image = [{"type": "image", "source": {"type": "base64", "data": "A" * 100_000}}]
    assert 1_000 < prompt_characters(job(messages=({"role": "user", "content": image},))) < 20_000


@pytest.mark.parametrize(
    ("model", "newer"),
    [
        ("claude-opus-4-7", True),
        ("claude-opus-4-6", False),
        ("claude-sonnet-4-6", False),
        ("claude-haiku-4-5-20251001", False),
        ("claude-haiku-5-5", True),
        ("claude-sonnet-5", True),
        ("claude-fable-5-1", True),
        ("claude-something-new", True),
        ("local-llama", False),
    ],
)
def test_tokenizers(model: str, newer: bool) -> None:
    assert is_newer(model) is newer
    by_rule = tokenizer(model)
    assert by_rule.tokens(100, Unit.WORDS) == pytest.approx(195 if newer else 150)
    assert by_rule.tokens(100, Unit.TOKENS) == 100


def test_what_was_counted_goes_before_rules_of_thumb() -> None:
    found = tokenizer("claude-haiku-4-5", counted=[(100, 30), (100, 50)], written=(1_000, 500))
    assert found == Tokenizer(0.4, 0.5, 2)
    assert tokenizer("claude-haiku-4-5", sent=(1_000, 300)).prompt_per_character == 0.3
