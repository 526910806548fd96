"""Pace, in a world whose time is an event queue: limits used to the full, hardly ever met."""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.messages.headers import RateLimit, RateLimits
from runner.messages.pace import (
    Flight,
    Limit,
    Member,
    PerMinute,
    Rates,
    limit_key,
    rate_class,
    share,
)
from runner.messages.pace.bucket import Bucket
from runner.messages.pace.level import Level
from runner.messages.pace.outage import DOUBTFUL_FAILURES, FAILURES, MOST_S, Outage
from tests.messages.pace_world import Setting, World

TIER = Setting(requests=1_200, input_tokens=2_000_000, output_tokens=400_000)
BINDS = {
    "requests": replace(TIER, call_input=(200, 800), call_output=(50, 150)),
    "input_tokens": replace(TIER, call_input=(1_000, 6_000), call_output=(50, 150)),
    "output_tokens": replace(
        TIER, call_output=(300, 900), tokens_per_s=(500, 1_000), first_token_s=0.1
    ),
}


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize(
    ("burst_s", "used_up"),
    [(60.0, False), (60.0, True), (1.0, False)],
    ids=["minute", "used-up minute", "second"],
)
@pytest.mark.parametrize("binds", BINDS)
def test_the_limit_that_binds_is_used_and_not_met(binds, burst_s, used_up, processes):
    setting = replace(BINDS[binds], burst_s=burst_s, used_up=used_up, processes=processes)
    world = World(setting)
    world.run(50)
    seen = world.seen
    used = seen.per_minute(getattr(seen, binds), 10, 50) / getattr(TIER, binds)
    assert used >= 0.95
    assert sum(seen.refused.values()) <= 0.01 * sum(seen.requests.values())
    assert seen.too_early == 0


def test_long_documents_are_not_begun_faster_than_they_can_be_written():
    long = replace(TIER, call_output=(2_000, 4_000), tokens_per_s=(60, 100), burst_s=1.0)
    world = World(long)
    world.run(110)
    used = world.seen.per_minute(world.seen.output_tokens, 60, 110) / TIER.output_tokens
    assert used >= 0.95
    assert not any(world.seen.refused.values())


@pytest.mark.parametrize("guess", [0.5, 2.0])
def test_a_wrong_guess_of_what_calls_need_costs_little(guess):
    world = World(replace(BINDS["input_tokens"], burst_s=1.0, guess=guess))
    world.run(40)
    assert world.seen.per_minute(world.seen.input_tokens, 10, 40) >= 0.95 * TIER.input_tokens
    assert not any(world.seen.refused.values())


def test_limits_nobody_tells_are_found_and_a_429_is_obeyed():
    world = World(Setting(told=False, most_in_flight=20, requests=10**6, call_output=(100, 300)))
    world.run(90)
    refused, asked = sum(world.seen.refused.values()), sum(world.seen.requests.values())
    assert 0 < refused < 0.1 * asked, "it was found by doubling"
    at_first = sum(n for second, n in world.seen.refused.items() if second < 20)
    asked_at_first = sum(n for second, n in world.seen.requests.items() if second < 20)
    assert 0 < refused - at_first < 0.05 * (asked - asked_at_first)
    assert world.seen.too_early == 0
    assert 14 <= world.processes[0].limit.in_flight <= 20


def test_a_process_that_comes_or_goes_changes_the_shares_within_two_seconds():
    world = World(replace(BINDS["requests"], burst_s=1.0, processes=4))
    world.run(10)
    shares = [process.limit.rates._share for process in world.processes]
    assert shares == pytest.approx([0.25] * 4, abs=0.02)
    for process in world.processes[1:3]:
        process.alive = False
    world.run(12)
    alive = [world.processes[0], world.processes[3]]
    assert [process.limit.rates._share for process in alive] == pytest.approx([0.5] * 2, abs=0.02)
    world.run(30)
    assert world.seen.per_minute(world.seen.requests, 14, 30) >= 0.95 * TIER.requests
    assert not any(world.seen.refused.values())


def test_what_one_process_does_not_need_goes_to_the_others():
    world = World(replace(BINDS["requests"], processes=2))
    world.processes[1].jobs = 0
    world.run(30)
    assert world.seen.per_minute(world.seen.requests, 10, 30) >= 0.95 * TIER.requests


def test_an_hour_without_answers_is_tried_at_growing_distances_and_then_over():
    world = World(replace(BINDS["output_tokens"], processes=1))
    world.run(20)
    world.down = True
    before = sum(world.seen.requests.values())
    world.run(20 + 3_600)
    probes = sum(world.seen.requests.values()) - before
    (process,) = world.processes
    assert process.limit.outage.on
    # Those in the air when it began, then one at a time, about one a minute.
    assert 60 <= probes <= 120
    late = [s for s in world.seen.requests if s >= 1_000]
    assert all(30 <= b - a <= MOST_S + 1 for a, b in pairwise(late))
    world.down = False
    world.run(20 + 3_600 + 90)
    assert not process.limit.outage.on
    used = world.seen.per_minute(world.seen.output_tokens, 3_690, 3_710)
    assert used >= 0.95 * TIER.output_tokens


# its parts


def limit(now_s: float = 0.0) -> Limit:
    return Limit("a", now_s, Random(1))


def test_one_429_holds_all_and_those_refused_together_count_once():
    one = limit()
    one.level.open = one.level._unanswered = 10.0
    flights = [one.start(10, 10, 0.0) for _ in range(10)]
    assert one.limited(flights[0], RateLimits(), 5.0, 1.0)
    assert one.level.open == 7.0
    assert not one.limited(flights[1], RateLimits(), 3.0, 1.1)
    assert one.level.open == 7.0
    assert one.wait_s(1, 1, 1.1) == pytest.approx(4.9)
    for flight in flights:
        one.end(flight, 0, 1.2, exact=False, success=False)
    assert one.wait_s(1, 1, 5.99) > 0
    assert one.wait_s(1, 1, 6.0) == 0.0
    one.start(1, 1, 6.0)
    assert one.wait_s(1, 1, 6.0) == float("inf"), "the first goes alone"


def test_nothing_grows_while_much_fails():
    one = limit()
    one.level.open = one.level._unanswered = 100.0

    def call(*, fails: bool) -> None:
        flight = one.start(1, 1, 0.0)
        if fails:
            one.failed(flight, "500", 0.0, servers_own=True)
        else:
            one.answered(flight, RateLimits(), 0.0)
        one.end(flight, 1, 0.0, exact=not fails, success=not fails)

    for n in range(20):
        call(fails=n % 4 == 0)
    grown = one.level._unanswered
    call(fails=False)
    assert one.level._unanswered == grown
    for _ in range(20):
        call(fails=False)
    assert one.level._unanswered > grown


def test_a_shorter_cool_down_shortens_nothing():
    one = limit()
    one.cool_down(10, 0.0)
    one.cool_down(5, 1.0)
    one.cool_down(float("nan"), 1.0)
    assert one.rest_s(2.0) == pytest.approx(8.0)


def test_what_is_read_from_the_cache_is_free_and_max_tokens_does_not_count():
    rates = Rates(0.0, PerMinute(input_tokens=6_000))
    taken = rates.start(30, 10**6, 0.0)
    assert rates.wait_s(15, 10**6, 0.0) == 0.0
    rates.read(taken, 0, 0.0)  # the whole of it was read from the cache
    assert rates.wait_s(45, 0, 0.0) == 0.0
    rates.read(taken, 5_000, 0.0)  # more was billed than was foreseen
    assert rates.wait_s(1, 0, 0.0) == pytest.approx((5_000 - 49 + 1) / 98.5, rel=0.02)


def test_headers_teach_the_limits_and_their_absence_nothing():
    rates = Rates(0.0)
    assert rates.wait_s(10**9, 10**9, 0.0) == 0.0
    rates.told(RateLimits(), 0.0)
    assert not rates.per_minute
    rates.told(RateLimits(requests=RateLimit(60, 59), output_tokens=RateLimit(8_000, 8_000)), 0.0)
    assert rates.per_minute == PerMinute(requests=60, output_tokens=8_000)
    rates.start(1, 1, 0.0)
    assert rates.wait_s(1, 1, 0.0) == pytest.approx(1 / 1.02, rel=0.01)
    rates.told(RateLimits(requests=RateLimit(120, 72)), 0.0)
    assert rates.wait_s(1, 1, 0.0) == pytest.approx(0.5 / 0.985)


def test_a_combined_limit_counts_input_at_once_and_output_as_it_comes():
    rates = Rates(0.0, PerMinute(tokens=60_000))
    taken = rates.start(900, 100, 0.0)
    assert rates.wait_s(1, 1, 0.0) > 0
    assert rates.wait_s(1, 1, 2.0) == 0.0
    rates.wrote(taken, 40_000, 2.0)  # 10,000 tokens
    assert rates.wait_s(1, 1, 2.0) > 1
    rates.end(taken, 0, 2.0, exact=False)


def test_nothing_counts_of_a_call_that_was_never_sent():
    one = limit()
    one.rates.set_limits(PerMinute(60, 6_000, 6_000), 0.0)
    flight = one.start(49, 10, 0.0)
    assert one.wait_s(1, 1, 0.0) > 0
    one.cancel(flight, 0.0)
    one.cancel(flight, 0.0)
    assert (one.in_flight, one.unanswered, one.wait_s(1, 1, 0.0)) == (0, 0, 0.0)


@given(
    st.floats(1, 1e6),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 1e5)), max_size=40),
)
def test_a_bucket_gives_no_more_than_flows_in(per_minute, steps):
    bucket = Bucket(per_minute / 60, 0.5, 0.0)
    now_s, taken, largest = 0.0, 0.0, 0.0
    for passed_s, amount in steps:
        now_s += passed_s
        if bucket.wait_s(amount, now_s) == 0:
            bucket.take(amount, now_s)
            taken, largest = taken + amount, max(largest, amount)
        flowed = bucket.capacity + now_s * per_minute / 60
        assert taken <= (flowed + largest) * (1 + 1e-6) + 1e-6


def test_a_level_doubles_then_creeps_and_is_cut():
    level = Level(0.0)
    in_flight, round_trips, waiting = 1, 0, 1
    while level.open < 500:  # all of them go on streaming
        round_trips += 1
        began = 0
        for answered in range(waiting):
            level.answered(in_flight, 0.0)
            while level.free(in_flight, waiting - answered - 1 + began):
                in_flight, began = in_flight + 1, began + 1
        waiting = began
    assert round_trips <= 10
    level.open = 33.0
    level.limited(33, 1.0)
    assert level.open == pytest.approx(23.1)
    assert level.free(20, 0)
    assert not level.free(20, 1), "after a 429 the first goes alone"
    for _ in range(40):
        level.answered(int(level.open), 2.0)
    assert 29 < level.open < 32, "quick up to where it was met, then slow"


def test_an_acceleration_429_lowers_the_ramp_and_a_quiet_minute_raises_it():
    level = Level(0.0)
    for _ in range(3):
        level.limited(1, 0.0, acceleration=True)
    assert level.ramp == 1 / 8
    level.answered(1, 1.0)
    assert level.open == pytest.approx(1 + 1 / 8)
    level.answered(1, 61.0)
    assert level.ramp == 1 / 4


def test_an_outage_needs_more_where_the_errors_may_be_the_jobs_own():
    sure, doubtful = Outage(Random(1)), Outage(Random(1))
    assert [sure.failed("x", 0.0, servers_own=True) for _ in range(FAILURES)][-1]
    doubts = [doubtful.failed("x", 0.0, servers_own=False) for _ in range(DOUBTFUL_FAILURES)]
    assert doubts == [False] * (DOUBTFUL_FAILURES - 1) + [True]
    assert sure.rest_s(0.0) > 0
    assert sure.succeeded(7.0) == 7.0
    assert sure.succeeded(8.0) is None
    assert sure.rest_s(8.0) == 0


def test_mostly_failures_are_a_storm_even_with_a_success_now_and_then():
    outage = Outage(Random(1))
    for n in range(20):
        if n % 3:
            outage.failed("x", 0.0, servers_own=True)
        else:
            outage.succeeded(0.0)
    assert outage.stormy
    assert not outage.on


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.builds(Member, st.integers(0, 50), st.integers(1, 200)),
        min_size=1,
    )
)
def test_shares_make_one_at_most_and_nobody_gets_nothing(members):
    shares = {name: share(members, name) for name in members}
    assert sum(shares.values()) <= 1 + 1e-9
    assert all(part > 0 for part in shares.values())
    # Whoever wishes more gets no less.
    ordered = sorted(members, key=lambda name: (members[name].wished, name))
    parts = [shares[name] for name in ordered]
    assert parts == pytest.approx(sorted(parts))


def test_equal_wishes_are_equal_shares_and_what_is_left_is_given_on():
    hungry = Member(20, 100)
    assert share(dict.fromkeys("abcd", hungry), "a") == 0.25
    members = {"a": Member(2, 2), "b": hungry, "c": hungry}
    assert share(members, "a") == pytest.approx(2.2 / 42)
    assert share(members, "b") == pytest.approx((1 - 2.2 / 42) / 2)
    assert share({}, "new") == 1.0


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-opus-4-1-20250805", "claude-opus-4.x"),
        ("claude-opus-4-8", "claude-opus-4.x"),
        ("claude-sonnet-4-6", "claude-sonnet-4.x"),
        ("claude-sonnet-5", "claude-sonnet-5"),
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5", "claude-haiku-4-5"),
        ("local-model", "local-model"),
    ],
)
def test_which_models_share_their_limits(model, name):
    assert rate_class(model) == name


def test_a_limit_is_known_by_all_three_and_gives_no_key_away():
    keys = {limit_key(c, e, m) for c in ("x", "y") for e in ("u", "v") for m in ("m", "n")}
    assert len(keys) == 8
    assert all(len(key) == 16 for key in keys)


def test_calls_that_outlast_a_change_of_limits_leave_the_new_ones_whole():
    """What began under the old limit ends under it; the new one never knew of it."""
    rates = Rates(0.0, PerMinute(output_tokens=60_000))
    old = [rates.start(0, 500, 0.0) for _ in range(50)]
    for taken in old:
        rates.wrote(taken, 400, 1.0)
    rates.drop_limits()
    rates.set_limits(PerMinute(output_tokens=120_000), 2.0)
    fresh = Rates(2.0, PerMinute(output_tokens=120_000))
    for taken in old:
        rates.wrote(taken, 400, 3.0)
        rates.end(taken, 500, 3.0, exact=True)
    assert rates.soon(10, 500, 1.0, 4.0) == fresh.soon(10, 500, 1.0, 4.0)


def test_time_alone_lets_a_level_grow_where_long_answers_teach_nothing():
    limit = Limit("a model", 0.0, Random(1))
    limit.start(10, 10, 0.0)
    assert limit.wait_s(10, 10, 9.9) == float("inf")
    assert limit.soon(10, 10, 1.0, 9.9) == 0
    assert limit.soon(10, 10, 1.0, 10.0) == 1
    limit.level.limited(30, 10.0)
    limit.in_flight = 30
    assert limit.soon(10, 10, 1.0, 60.0) == 0
    assert limit.level.open == 1.4, "what was cut grows no more before it is used"


def test_a_few_quick_errors_among_many_that_began_together_are_no_outage():
    limit = Limit("a model", 0.0, Random(1))
    flights = [limit.start(10, 10, 0.0) for _ in range(40)]
    begins = []
    for flight in flights:
        begins.append(limit.failed(flight, "529", 0.1, servers_own=True))
        limit.end(flight, 0, 0.1, exact=True, success=False)
    # The others might yet be answered; that none is tells it.
    assert begins.index(True) == 19


@pytest.mark.parametrize(("fails", "most_s"), [(0.0, 10), (0.05, 60), (0.2, 400)])
def test_five_hundred_long_streams_are_soon_open_though_some_fail(fails, most_s):
    """An answer begins after 0.8 s and streams for ten minutes; an error comes after 0.3 s."""
    random = Random(1)
    limit = Limit("a model", 0.0, random)
    events: list[tuple[float, int, bool, Flight]] = []
    now_s, count = 0.0, 0
    while limit.in_flight < 500:
        while limit.in_flight < 500 and limit.wait_s(10, 10, now_s) == 0:
            failing = random.random() < fails
            flight = limit.start(10, 10, now_s)
            count += 1
            heappush(events, (now_s + (0.3 if failing else 0.8), count, failing, flight))
        if not events or events[0][0] > now_s + 0.5:
            now_s += 0.5
            assert now_s <= most_s
            continue
        now_s, _, failing, flight = heappop(events)
        if failing:
            limit.failed(flight, "529", now_s, servers_own=True)
            limit.end(flight, 0, now_s, exact=True, success=False)
        else:
            limit.answered(flight, RateLimits(), now_s)
            limit.wrote(flight, 10, now_s)
    assert now_s <= most_s


def test_jobs_are_looked_for_ahead_of_those_that_end():
    limit = Limit("m", 0.0, Random(1))
    limit.level.open = 20.0
    for _ in range(20):
        limit.start(10, 10, 0.0)
    assert limit.soon(0, 0, 1.0, 0.0) == 0
    assert limit.soon(0, 0, 1.0, 0.0, ending=7) == 7
    assert limit.soon(0, 0, 1.0, 0.0, ending=70) == 20  # the level holds all the same
    limit.cool_down(30, 0.0)
    assert limit.soon(0, 0, 1.0, 0.0, ending=7) == 0
