"""The breaker's memory, against a plain list of all ends."""

from __future__ import annotations

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.store.breaker import IN_A_ROW, OF_WINDOW, WINDOW, RecentEnds, Trip

# A few names, so that they meet often; long stretches of one, so that the breaker trips.
ENDS = st.lists(
    st.tuples(st.sampled_from([None, "400 a", "500 b", "x" * 200]), st.integers(1, 30)),
    max_size=12,
).map(lambda runs: [name for name, times in runs for _ in range(times)])


def remembered(ends: list[str | None]) -> RecentEnds:
    memory = RecentEnds()
    for end in ends:
        memory = memory.then(end)
    return memory


@given(ENDS)
def test_it_trips_exactly_when_the_plain_list_says_so(ends: list[str | None]) -> None:
    trip = remembered(ends).trip()
    window = ends[-WINDOW:]
    if not window or window[-1] is None:
        assert trip is None
        return
    last = window[-1]
    in_a_row = len(list(takewhile(lambda end: end == last, reversed(window))))
    times = window.count(last)
    assert (trip is not None) == (in_a_row >= IN_A_ROW or times >= OF_WINDOW)
    if trip is not None:
        in_row = Trip(last[:80], in_a_row, in_a_row)
        assert trip == (in_row if in_a_row >= IN_A_ROW else Trip(last[:80], times, len(window)))


@given(ENDS)
def test_it_is_small_and_comes_back_as_it_went(ends: list[str | None]) -> None:
    memory = remembered(ends)
    assert sum(count for _, count in memory.runs) == min(len(ends), WINDOW)
    assert len(memory.to_json()) <= WINDOW * 90
    assert RecentEnds.from_json(memory.to_json()) == memory


def test_where_all_goes_well_it_stays_as_it_is() -> None:
    memory = remembered([None] * WINDOW)
    assert memory.then(None) == memory
    assert RecentEnds.from_json(None) == RecentEnds()


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (["400 a"] * 19, None),
        (["400 a"] * 20, "20 jobs in a row failed with the same error, 400 a"),
        (["400 a", "500 b"] * 12, None),
        (["400 a", "500 b"] * 24 + ["400 a"], "25 of the last 49 jobs failed with the same error, 400 a"),
        (["400 a"] * 19 + [None] + ["400 a"] * 5, None),
        (["400 a", "400 a", None] * 17, "25 of the last 37"),
    ],
)  # fmt: skip
def test_the_bounds(ends: list[str | None], said: str | None) -> None:
    memory = RecentEnds()
    for end in ends:
        memory = memory.then(end)
        if trip := memory.trip():
            assert said is not None
            assert trip.reason.startswith(said)
            return
    assert said is None
