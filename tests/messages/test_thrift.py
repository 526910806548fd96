"""Whether marks pay: the bounds of what may be lost, and bills of batches played through."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bills import MODELS, Shape, bill, shape
from runner.jobs.call import Usage
from runner.messages.caching import Multiples, Ttl
from runner.messages.thrift import Bet, Outlook, Thrift

MINIMUM = 1_000
FIRST_STAKE = 1 / 11


def outlook(number: int, **changes: object) -> Outlook:
    look = Outlook(number, at_least=0, most=40, spent_tokens=1e9)
    return replace(look, **changes)


@given(
    st.integers(1, 30), st.integers(0, 20), st.floats(0, 4_000),
    st.lists(st.floats(0, 1e6), max_size=4), st.floats(0, 1e6),
)  # fmt: skip
def test_nothing_shorter_than_the_minimum_is_marked(number, sure, gap_s, boundaries, warm) -> None:
    thrift = Thrift(Multiples(), MINIMUM)
    bet = thrift.go_on(outlook(number, at_least=sure), gap_s, boundaries, warm)
    if bet is not None:
        assert boundaries[bet.at] >= MINIMUM
        assert boundaries[bet.at] > warm
        assert gap_s < bet.ttl.seconds


def test_what_is_sure_to_be_read_is_marked_and_what_is_not_is_not() -> None:
    thrift = Thrift(Multiples(), MINIMUM)
    assert thrift.go_on(outlook(1), 10, [5_000], 0) is None
    assert thrift.go_on(outlook(2), 10, [5_000], 0) is None
    sure = thrift.go_on(outlook(1, at_least=1), 10, [5_000], 0)
    assert sure is not None
    assert (sure.ttl, sure.stake) == (Ttl.MINUTES, 0)


def test_nobody_marks_for_a_time_he_knows_nothing_of() -> None:
    thrift = Thrift(Multiples(), MINIMUM)
    look = outlook(1, at_least=9)
    assert thrift.go_on(look, None, [5_000], 0) is None
    thrift.went_on(1_000)
    bet = thrift.go_on(look, None, [5_000], 0)
    assert bet is not None
    assert bet.ttl is Ttl.HOUR
    assert thrift.go_on(replace(look, at_least=1), None, [5_000], 0) is None  # 2.1 is not < 2
    assert thrift.go_on(look, 4_000, [5_000], 0) is None


def test_without_evidence_one_careful_bet_is_placed_from_the_third_call_on() -> None:
    thrift = Thrift(Multiples(), MINIMUM)
    look = outlook(3, spent_tokens=15_000, eager=True)
    bet = thrift.go_on(look, 10, [10_000, 5_000], 0)
    assert bet is not None
    assert (bet.at, bet.stake) == (1, 1_250)  # the longer one would put 2,500 at stake
    thrift.purse.staked += bet.stake
    assert thrift.go_on(look, 10, [10_000, 5_000], 0) is None
    # It is lost: no other is placed, until something sure has brought more than that.
    thrift.purse.staked = 0
    thrift.purse.billed(Usage(0, 5_000, 0), thrift.multiples)
    assert thrift.go_on(look, 10, [10_000, 5_000], 0) is None
    thrift.purse.billed(Usage(0, 0, 20_000), thrift.multiples)
    assert thrift.go_on(look, 10, [10_000, 5_000], 0) is not None


def test_who_is_not_eager_places_no_bet_that_nothing_covers() -> None:
    thrift = Thrift(Multiples(), MINIMUM)
    for number in range(1, 40):
        assert thrift.go_on(outlook(number), 10, [5_000], 0) is None
    # Eight such calls of the batch went on: that is as good as sure.
    thrift.ended(3, cut=True, stream_s=1, times=8)
    thrift.purse.spent = 1e6
    assert thrift.go_on(outlook(3), 10, [5_000], 0) is not None
    thrift.ended(3, cut=False, stream_s=1)
    assert thrift.go_on(outlook(3), 10, [5_000], 0) is None


def test_a_lost_bet_says_nothing_of_a_document_twice_as_long() -> None:
    thrift = Thrift(Multiples(), MINIMUM)
    assert thrift.go_on(outlook(3, eager=True), 10, [5_000], 0) is not None
    thrift.purse.billed(Usage(0, 5_000, 0), thrift.multiples)  # nobody read it
    for number in (3, 4, 5):
        assert thrift.go_on(outlook(number, eager=True), 10, [5_000], 0) is None
    assert thrift.go_on(outlook(6, eager=True), 10, [5_000], 0) is not None
    # And so on: the next is for one twice as long as that.
    assert thrift.go_on(outlook(11, eager=True), 10, [5_000], 0) is None
    assert thrift.go_on(outlook(12, eager=True), 10, [5_000], 0) is not None


def test_a_long_document_among_short_ones_is_marked() -> None:
    base = replace(shape(Random(1), known=False), eager=True)
    for slots in (1, 20):
        mixed = replace(
            base, model="claude-haiku-5-5", calls=(3, 3, 3, 3, 3, 10), shared_tokens=0,
            own_tokens=50, answer_tokens=1_500, concurrency=slots, call_s=20.0, pause_s=0.0,
            known=False, misjudged=1.0, uneven=0.0,
        )  # fmt: skip
        without, with_marks = bill(mixed)
        assert with_marks < 0.75 * without


def test_a_beginning_of_a_part_of_the_batch_is_marked_where_its_jobs_come_soon() -> None:
    def share(thrift: Thrift, *, jobs: int, others: int, call_s: float = 20.0):
        return thrift.share(
            tokens=20_000, jobs=jobs, others=others, company=0, slots=8, call_s=call_s
        )

    thrift = Thrift(Multiples(), MINIMUM)
    assert share(thrift, jobs=3, others=9) is None  # too few to be sure that one comes
    assert share(thrift, jobs=30, others=30_000) is None  # too far between
    assert share(thrift, jobs=30, others=90, call_s=600) is not None  # an hour's entry lasts
    bet = share(thrift, jobs=30, others=90)
    assert bet == Bet(0, Ttl.MINUTES, 5_000)
    thrift.purse.staked += bet.stake
    assert share(thrift, jobs=30, others=90) is None
    thrift.purse.staked = 0
    thrift.purse.billed(Usage(0, 20_000, 0), thrift.multiples)  # nobody read it
    assert share(thrift, jobs=30, others=90) is None


def test_what_the_batch_has_shown_forbids_a_bet() -> None:
    thrift = Thrift(Multiples(), MINIMUM)
    thrift.purse.saved = 1e9
    assert thrift.go_on(outlook(3), 10, [10_000], 0) is not None
    thrift.ended(3, cut=False, stream_s=1, times=20)
    assert thrift.go_on(outlook(3), 10, [10_000], 0) is None


def test_a_shared_beginning_is_written_for_those_that_will_read_it() -> None:
    thrift = Thrift(Multiples(), MINIMUM)
    facts = {"tokens": 5_000.0, "others": 9, "company": 0, "slots": 5, "call_s": 10.0}
    assert thrift.share(jobs=0, **facts) is None
    assert thrift.share(jobs=9, **facts | {"tokens": 999.0}) is None
    all_have_it = thrift.share(jobs=9, **facts)
    assert all_have_it is not None
    assert (all_have_it.ttl, all_have_it.stake) == (Ttl.MINUTES, 0)
    # One other job somewhere in the queue may come too late; one that waits does not.
    assert thrift.share(jobs=1, **facts) is None
    assert thrift.share(jobs=1, **facts | {"company": 1}) is not None
    # Calls of half an hour, one after the other: an hour, if enough of them are left.
    slow = facts | {"slots": 1, "call_s": 1_800.0}
    hour = thrift.share(jobs=9, **slow)
    assert hour is not None
    assert hour.ttl is Ttl.HOUR
    assert thrift.share(jobs=1, **slow | {"others": 1}) is None
    assert thrift.share(jobs=9, **slow | {"call_s": 4_000.0}) is None


@pytest.mark.parametrize("seed", range(120))
@pytest.mark.parametrize("known", [True, False])
def test_caching_is_never_dearer(seed, known) -> None:
    plain, cached = bill(shape(Random(seed), known=known))
    assert cached <= plain


@pytest.mark.parametrize("seed", range(120))
def test_who_is_eager_may_lose_one_bet(seed) -> None:
    some = replace(shape(Random(seed), known=False), eager=True)
    plain, cached = bill(some)
    whole = sum(
        some.shared_tokens + some.own_tokens + 130 + call * some.answer_tokens
        for call in range(max(some.calls))
    )
    assert cached <= plain + max(whole * FIRST_STAKE, plain / 20)


@pytest.mark.parametrize("model", MODELS)
def test_the_bills_that_are_promised(model) -> None:
    many = Shape(model, (1,) * 200, 20_000, 100, 500, 20, call_s=10)
    plain, cached = bill(many)
    assert cached <= 0.2 * plain
    answer = 5_000 if "4-5" in model else 1_500
    for known in (False, True):
        lone = Shape(model, (10,), 0, 100, answer, 1, call_s=60, known=known, eager=not known)
        plain, cached = bill(lone)
        assert cached <= 0.4 * plain
