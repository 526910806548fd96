"""What prompts say of length, read with care."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.estimating.lengths import Unit, wished
from runner.estimating.numbers import NUMBER, number_of

WORDS, TOKENS, CHARACTERS = Unit.WORDS, Unit.TOKENS, Unit.CHARACTERS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("900", 900),
        ("1,500", 1500),
        ("12,000,000", 12_000_000),
        ("2.5k", 2500),
        ("2 k", 2000),
        ("five", 5),
        ("Twenty-five", 25),
        ("two thousand", 2000),
        ("a dozen", 12),
        ("two dozen", 24),
        ("a hundred", 100),
        ("3 thousand", 3000),
        ("a single", 1),
        ("half a dozen", 6),
    ],
)
def test_numbers(text: str, value: float) -> None:
    import re

    assert re.fullmatch(NUMBER, text, re.IGNORECASE)
    assert number_of(text) == value


@pytest.mark.parametrize(
    ("prompt", "unit", "expected"),
    [
        ("Write an article of about 900 words on tides.", WORDS, 900),
        ("Write a 1,500-word essay.", WORDS, 1500),
        ("Write a 1500 word essay.", WORDS, 1500),
        ("An essay, two thousand words long.", WORDS, 2000),
        ("Around 2k words, please.", WORDS, 2000),
        ("Write between 800 and 1,000 words.", WORDS, 900),
        ("Write 800-1000 words.", WORDS, 900),
        ("Write 800 to 1,000 words.", WORDS, 900),
        ("At least 500 words.", WORDS, 575),
        ("500 words or more.", WORDS, 575),
        ("Answer in no more than 300 words.", WORDS, 240),
        ("Keep it under 300 words.", WORDS, 240),
        ("A text of 2,000 tokens.", TOKENS, 2000),
        ("Up to 280 characters.", CHARACTERS, 224),
        ("Answer in one word.", WORDS, 1),
        # a whole made of parts
        ("Write five stories of 300 words each.", WORDS, 1500),
        ("Write five long, unhurried stories, 1,500 words each.", WORDS, 7500),
        ("Write five stories. Each should have about 400 words.", WORDS, 2000),
        ("Ten chapters of about 900 words.", WORDS, 9000),
        ("12 chapters with 1,000 words per chapter and 3 examples.", WORDS, 12_000),
        ("Write five stories, 3,000 words in all, each with a moral.", WORDS, 3000),
        ("Write five stories, each with a moral. 3,000 words in total.", WORDS, 3000),
        ("Write a 5,000-word report with ten sections of 500 words each.", WORDS, 5000),
        ("Write an article of 900 words with an introduction of 100 words.", WORDS, 900),
        ("About 9,000 words for the first year, a chapter for each month.", WORDS, 9000),
        ("One chapter for each of the twelve months, about 9,000 words.", WORDS, 9000),
        # loosely
        ("Write a three-page report.", WORDS, 1350),
        ("Explain it in two paragraphs.", WORDS, 180),
        ("Summarise it in one sentence.", WORDS, 20),
        ("I need five stories, each about a different animal.", WORDS, 3000),
        # what is there already is not asked for
        ("Summarise this 2,000 word article in 100 words.", WORDS, 100),
        ("Summarise the following 2,000-word article in 100 words.", WORDS, 100),
        ("A 700 word story. Use sentences of at most 12 words.", WORDS, 700),
        ("A 700 word story with a title of 5 words.", WORDS, 700),
        ("Schreibe etwa 600 Wörter über Otter.", WORDS, 600),
    ],
)
def test_wishes(prompt: str, unit: Unit, expected: float) -> None:
    wish = wished(prompt)
    assert wish is not None
    assert (wish.unit, round(wish.expected)) == (unit, expected)
    assert wish.least <= wish.expected <= wish.most


@pytest.mark.parametrize(
    "prompt",
    [
        "Write about otters.",
        "Explain in your own words why the sea has tides.",
        "Explain the difference between the two words.",
        "Insert a heading every 500 words.",
        "Speak at 150 words per minute.",
        "Translate these 500 words into German.",
        "Write in lines of 8 words.",
        "Which of the five stories above is the best?",
        "",
    ],
)
def test_no_wish(prompt: str) -> None:
    assert wished(prompt) is None


def test_a_text_in_the_middle_is_not_read() -> None:
    source = "The report had 90,000 words. " * 2_000
    assert wished(f"Sum up in 50 words:\n{' ' * 3000}{source}{' ' * 3000}") == wished(
        "Sum up in 50 words:"
    )


@given(st.text(alphabet="0123456789,.-k words each between and at least five \n", max_size=400))
def test_anything_is_read(prompt: str) -> None:
    wish = wished(prompt)
    assert wish is None or 0 < wish.least <= wish.expected <= wish.most


@pytest.mark.parametrize("piece", ["1 ", "five ", "between 1 and ", "each word ", "a-", "9,999"])
def test_a_hostile_prompt_takes_no_time(piece: str) -> None:
    before = time.process_time()
    wished(piece * 100_000)
    assert time.process_time() - before < 2
