"""The arithmetic of a document's calls, held against the continuation loop itself."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.estimating.arithmetic import (
    ASKING_CHARACTERS,
    LAST_WORDS_CHARACTERS,
    Shape,
    planned_calls,
)
from runner.jobs.call import CallOutcome, Strategy, Usage
from runner.jobs.spec import ContinuationSpec, JobSpec
from runner.jobs.traits import ModelTraits
from runner.simulator.prose import Writer
from runner.simulator.tokens import count_tokens, token_ends

PREFILL = Shape(
    prompt_tokens=100,
    max_tokens=400,
    strategy=Strategy.PREFILL,
    max_calls=50,
    max_output_tokens=None,
    context_window=200_000,
    tokens_per_character=1 / 4,
)
TURN = replace(PREFILL, strategy=Strategy.TURN)


def test_a_short_document_takes_one_call() -> None:
    (call,) = planned_calls(PREFILL, 400)
    assert (call.input_tokens, call.output_tokens) == (100, 400)


def test_prefill_reads_prompt_and_text_again_and_writes_nothing_twice() -> None:
    calls = list(planned_calls(PREFILL, 1_000))
    assert [call.input_tokens for call in calls] == [100, 500, 900]
    assert [call.output_tokens for call in calls] == [400, 400, 200]


def test_turn_also_pays_for_being_asked_and_for_last_words() -> None:
    calls = list(planned_calls(TURN, 1_000))
    assert len(calls) == 3
    assert sum(call.output_tokens for call in calls) > 1_000
    assert calls[1].asking_tokens > 0
    assert calls[0].asking_tokens == 0


def test_bounds_end_it() -> None:
    assert len(list(planned_calls(replace(PREFILL, max_calls=2), 10_000))) == 2
    bounded = planned_calls(replace(PREFILL, max_output_tokens=900), 10_000)
    assert sum(call.output_tokens for call in bounded) == 900
    window = planned_calls(replace(PREFILL, context_window=1_100), 10_000)
    assert sum(call.output_tokens for call in window) == 1_000
    assert len(list(planned_calls(replace(PREFILL, whole=True), 10_000))) == 1


@given(
    st.sampled_from([PREFILL, TURN]),
    st.integers(1, 300),
    st.integers(0, 100),
    st.floats(0, 20_000),
    st.integers(1, 100),
)
def test_it_always_ends_and_never_passes_a_bound(
    shape: Shape, max_tokens: int, thinking: int, tokens: float, max_calls: int
) -> None:
    shape = replace(
        shape, max_tokens=max_tokens, thinking_tokens=thinking, max_calls=max_calls,
        max_output_tokens=5_000,
    )  # fmt: skip
    calls = list(planned_calls(shape, tokens))
    assert 1 <= len(calls) <= max_calls
    assert sum(call.output_tokens for call in calls) <= 5_000
    assert all(call.output_tokens > 0 for call in calls)


def _as_the_loop_does(text: str, strategy: Strategy, max_tokens: int) -> list[Usage]:
    """The calls of a document, by the loop and a model that obeys it to the letter."""
    spec = JobSpec(
        "a",
        "claude-haiku-5-5",
        ({"role": "user", "content": "Write."},),
        max_tokens=max_tokens,
        continuation=ContinuationSpec(strategy=strategy, max_calls=1_000),
    )
    traits = ModelTraits(prefill=True, max_output_tokens=64_000, context_window=1_000_000)
    loop = ContinuationLoop(spec, traits)
    usages = []
    while isinstance(step := loop.next_step(), Send):
        messages = loop.request(step)["messages"]
        sent = "".join(part["text"] for message in messages[1:] for part in message["content"])
        rest = text[step.plan.resume_at :]
        if strategy is Strategy.TURN and step.number > 1:
            ask = messages[-1]["content"][0]["text"]
            words = ask.split("<last_words>")[1].split("</last_words>")[0]
            rest = words + rest
        ends = token_ends(rest)
        cut = len(ends) > step.max_tokens
        answer = rest[: ends[step.max_tokens - 1]] if cut else rest
        usage = Usage(
            input_tokens=count_tokens("Write.") + count_tokens(sent),
            output_tokens=min(len(ends), step.max_tokens),
        )
        loop.begin(step)
        loop.feed(answer)
        loop.end(CallOutcome("max_tokens" if cut else "end_turn", usage=usage))
        usages.append(usage)
    return usages


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(list(Strategy)), st.integers(150, 900), st.integers(3, 30), st.integers(0, 99)
)
def test_it_counts_as_the_loop_does(
    strategy: Strategy, max_tokens: int, blocks: int, seed: int
) -> None:
    writer = Writer(Random(seed))
    text = " ".join(writer.sentence() for _ in range(5 * blocks))
    true = _as_the_loop_does(text, strategy, max_tokens)
    shape = replace(
        TURN if strategy is Strategy.TURN else PREFILL,
        prompt_tokens=count_tokens("Write."),
        max_tokens=max_tokens,
        max_calls=1_000,
        tokens_per_character=count_tokens(text) / len(text),
    )
    planned = list(planned_calls(shape, count_tokens(text)))
    assert abs(len(planned) - len(true)) <= 1
    read, written = (sum(u.input_tokens for u in true), sum(u.output_tokens for u in true))
    assert sum(call.output_tokens for call in planned) == pytest.approx(written, rel=0.05, abs=20)
    if len(planned) == len(true):
        assert sum(call.input_tokens for call in planned) == pytest.approx(read, rel=0.07, abs=40)


def test_the_request_to_go_on_is_as_long_as_it_is() -> None:
    writer = Writer(Random(0))
    loop_text = " ".join(writer.sentence() for _ in range(100))
    spec = JobSpec("a", "m", ({"role": "user", "content": "Write."},), max_tokens=100)
    spec = replace(spec, continuation=ContinuationSpec(strategy=Strategy.TURN))
    loop = ContinuationLoop(spec, ModelTraits(False, 1_000, 100_000))
    step = loop.next_step()
    assert isinstance(step, Send)
    loop.begin(step)
    loop.feed(loop_text)
    loop.end(CallOutcome("max_tokens", usage=Usage(1, output_tokens=100)))
    step = loop.next_step()
    assert isinstance(step, Send)
    ask = loop.request(step)["messages"][-1]["content"][0]["text"]
    assert len(ask) == pytest.approx(ASKING_CHARACTERS, rel=0.05)
    words = ask.split("<last_words>")[1].split("</last_words>")[0]
    assert len(words) == pytest.approx(LAST_WORDS_CHARACTERS, rel=0.2)
