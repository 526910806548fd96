"""Prompts are counted a few at a time, and an endpoint that cannot count is asked once a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from runner.estimating.sampling import AT_ONCE, count
from runner.estimating.survey import Survey
from runner.estimating.tokenizer import PAGE
from runner.jobs.spec import JobSpec
from runner.jobs.traits import ModelTraits
from runner.messages.models import traits

pytestmark = pytest.mark.anyio


class Counter:
    """Counts as an endpoint would: a token for each four characters, or not at all."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.asked: list[str] = []
        self.open = self.most_open = 0

    async def count_tokens(self, body: Mapping[str, Any]) -> int | None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await anyio.lowlevel.checkpoint()
        self.open -= 1
        text = body["messages"][0]["content"]
        self.asked.append(text)
        return (
            None if any(word in text + body["model"] for word in self.refused) else len(text) // 4
        )


def known(model: str) -> ModelTraits:
    return traits(model, "https://api.anthropic.com")


def sample(count: int, model: str = "claude-haiku-4-5") -> list[Any]:
    jobs = [
        JobSpec(f"j{n}", model, ({"role": "user", "content": f"Write of number {n:04}."},))
        for n in range(count)
    ]
    survey = Survey(known)
    return [(survey.kind_of(job), job) for job in jobs]


async def test_prompts_and_a_page_are_counted_a_few_at_a_time() -> None:
    counter = Counter()
    found = await count(counter, sample(30), known)
    assert (found.counted, found.asked) == (30, 30)
    assert found.of_model("claude-haiku-4-5") == [(21, 5)] * 30
    assert found.pages == {"claude-haiku-4-5": len(PAGE) // 4}
    assert counter.most_open == AT_ONCE


async def test_one_prompt_that_cannot_be_counted_is_left_out() -> None:
    found = await count(Counter("number 0003"), sample(10), known)
    assert (found.counted, found.asked) == (9, 10)


async def test_who_cannot_count_is_asked_once_a_model() -> None:
    counter = Counter("claude-opus-5")
    mixed = [*sample(10), *sample(10, "claude-opus-5")]
    found = await count(counter, mixed, known)
    assert found.counted == 10
    assert counter.asked.count(PAGE) == 2
    assert len(counter.asked) == 12
