"""What is set aside is never less than what a call is billed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.jobs.call import CallOutcome, Charge, Usage
from runner.jobs.price import Price, Rates
from runner.jobs.spec import BatchLimits, Budget, ContinuationSpec, JobSpec
from runner.jobs.states import Finish
from runner.jobs.traits import ModelTraits
from runner.simulator.tokens import count_tokens
from runner.simulator.validate import read_request
from runner.store.records import CallStart, Claim, Reservation
from runner.workers.caching import Marked
from runner.workers.money import Money
from runner.workers.needs import Need
from runner.workers.reservation import (
    dearest_input,
    expected_nano_usd,
    most_input,
    own_budget_reached,
    reservation,
    worst_nano_usd,
)

DOLLAR = 1_000_000_000
RATES = Rates(1 * DOLLAR, 5 * DOLLAR, 5 * DOLLAR // 4, 2 * DOLLAR, DOLLAR // 10)
DEARER = Rates(5 * DOLLAR, 25 * DOLLAR, 6 * DOLLAR, 10 * DOLLAR, DOLLAR // 2)
PRICE = Price(RATES, ((100, DEARER),))
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
MARK = {"cache_control": {"type": "ephemeral"}}


def loop_of(*, prefill: bool = True, one_block: bool = False, **changes: Any) -> ContinuationLoop:
    values = {"content": "Write a long story.", "max_tokens": 50} | changes
    spec = JobSpec(
        id="a",
        model="claude-haiku-4-5" if prefill else "claude-opus-5-5",
        messages=({"role": "user", "content": values.pop("content")},),
        **values,
    )
    return ContinuationLoop(spec, ModelTraits(prefill, 64_000, 200_000, one_block))


def tokens_of(body: dict[str, Any]) -> int:
    """The whole input as the simulated API counts it."""
    request = read_request(body, "2026-10-21")
    return request.extra_tokens + sum(
        count_tokens(block.text or "") + block.weight_tokens for block in request.blocks
    )


def go_on(loop: ContinuationLoop, text: str, *, counted: int) -> None:
    step = loop.next_step()
    assert isinstance(step, Send)
    loop.begin(step)
    loop.feed(text)
    usage = Usage(input_tokens=counted, output_tokens=count_tokens(text))
    loop.end(CallOutcome("max_tokens", usage=usage))


@settings(deadline=None, max_examples=150)
@given(
    prefill=st.booleans(),
    prompt=TEXTS,
    texts=st.lists(TEXTS.map(lambda t: f"Word {t * 20} word. "), max_size=4),
    broken=st.sets(st.integers(0, 3)),
)
def test_no_request_has_more_tokens_than_the_bound(
    prefill: bool, prompt: str, texts: list[str], broken: set[int]
) -> None:
    loop = loop_of(prefill=prefill, content=f"Write {prompt}")
    for number, text in enumerate([*texts, ""]):
        step = loop.next_step()
        if not isinstance(step, Send):
            return
        body = loop.request(step)
        tokens = tokens_of(body)
        assert tokens <= most_input(loop, step, body)
        go_on(loop, text, counted=0 if number in broken else tokens)


def test_what_was_counted_is_taken_from_there() -> None:
    loop = loop_of(content="word " * 10_000)
    step = loop.next_step()
    assert isinstance(step, Send)
    first = most_input(loop, step, loop.request(step))
    assert first > 50_000
    go_on(loop, "Once upon a time there was", counted=10_009)
    step = loop.next_step()
    assert isinstance(step, Send)
    assert 10_009 < most_input(loop, step, loop.request(step)) < 10_700


def test_the_counts_of_a_server_with_ways_of_its_own_bound_nothing() -> None:
    loop = loop_of(content="word " * 10_000, one_block=True)
    go_on(loop, "Once upon a time there was", counted=5)
    step = loop.next_step()
    assert isinstance(step, Send)
    assert most_input(loop, step, loop.request(step)) > 50_000


def test_a_paper_may_fill_the_window() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    loop = loop_of(content=[{"type": "document", "source": source}])
    step = loop.next_step()
    assert isinstance(step, Send)
    assert most_input(loop, step, loop.request(step)) == 200_000
    go_on(loop, "Once upon a time there was", counted=3_000)
    step = loop.next_step()
    assert isinstance(step, Send)
    assert most_input(loop, step, loop.request(step)) < 3_500


def test_the_dearest_rate_of_input() -> None:
    def body(*marks: Any) -> dict[str, Any]:
        return {"messages": [{"content": [{"type": "text", "text": "x"} | m for m in marks]}]}

    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert dearest_input(RATES, body({})) == RATES.input
    assert dearest_input(RATES, body({}, MARK)) == RATES.cache_write_5m
    assert dearest_input(RATES, body(MARK, hour)) == RATES.cache_write_1h
    assert dearest_input(RATES, body({}) | hour) == RATES.cache_write_1h


@given(
    tokens=st.integers(0, 150),
    output=st.integers(0, 50),
    parts=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_no_call_is_billed_more_than_the_worst_case(
    tokens: int, output: int, parts: tuple[float, float, float]
) -> None:
    """However its input is split among what is new, written to the cache and read from it."""
    loop = loop_of(content=[{"type": "text", "text": "x" * 150, **MARK}])
    step = loop.next_step()
    assert isinstance(step, Send)
    body = loop.request(step)
    written, read = round(tokens * parts[0]), round(tokens * (1 - parts[0]) * parts[1])
    usage = Usage(
        input_tokens=tokens - written - read,
        cache_creation_input_tokens=written,
        cache_read_input_tokens=read,
        output_tokens=output,
    )
    worst = worst_nano_usd(loop, step, Marked(body), PRICE)
    assert PRICE.rates(tokens).cost(usage) <= worst


def test_what_is_expected_is_set_aside_where_that_is_asked_for() -> None:
    loop = loop_of()
    step = loop.next_step()
    assert isinstance(step, Send)
    body = loop.request(step)
    need = Need(20, 90, 80, output_tokens=10, most_output_tokens=50)
    marked = Marked(body, cached_tokens=40, written_tokens=20, for_an_hour=True)
    price = Price(Rates(*(rate * 1_000_000 for rate in (1, 5, 2, 3, 1))))
    assert expected_nano_usd(need, marked, price) == 40 + 20 * 3 + 30 + 50
    most = worst_nano_usd(loop, step, marked, price)
    expected = reservation(loop, step, need, marked, price, most, Budget.EXPECTED)
    assert (expected.nano_usd, expected.output_tokens) == (180, 10)
    worst = reservation(loop, step, need, marked, price, most, Budget.WORST)
    assert (worst.nano_usd, worst.output_tokens) == (most, 50)
    assert reservation(loop, step, need, marked, None, None, Budget.WORST).nano_usd == 0


@pytest.mark.parametrize(("spent", "ends"), [(500, False), (501, True)])
def test_a_document_s_own_budget(spent: int, ends: bool) -> None:
    loop = loop_of(continuation=ContinuationSpec(max_cost_nano_usd=10_000_000))
    end = own_budget_reached(loop, 10_000_000 - 500, spent)
    assert (end is not None) is ends
    if end is not None:
        assert end.finish is Finish.MAX_COST
        assert end.detail == (
            "max_cost_usd 0.01 reached: $0.000000501 are spent, and the next call may cost $0.0099995"
        )
    assert own_budget_reached(loop_of(), 10**12, 10**12) is None


@pytest.mark.parametrize(
    ("cost", "budget", "told"),
    [
        (100, Budget.WORST, False),
        (101, Budget.WORST, True),
        (101, Budget.EXPECTED, False),
        (None, Budget.WORST, False),
    ],
)
def test_a_bill_beyond_the_most_is_told(cost: int | None, budget: Budget, told: bool) -> None:
    money = Money("https://api.anthropic.com", lambda _: BatchLimits(budget=budget))
    claim = Claim(1, 1, "w", 1, "a", "m", 0)
    start = CallStart(1, None, 0, 50, "m", rates=RATES, reservation=Reservation(100, 50))
    outcome = CallOutcome("end_turn", charge=Charge(cost))
    words = money.beyond(claim, start, outcome)
    assert (words is not None) is told
    if words is not None:
        assert "more than the $0.0000001 that it could cost" in words
