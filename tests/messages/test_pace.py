"""Cool-downs: shared by all who call a model, never shortened, over by themselves."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from runner.messages.pace import Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_model_rests_for_as_long_as_it_was_told_and_no_other_does():
    clock = Clock()
    pace = Pace(clock=clock)
    pace.cool_down("a", 5)
    assert (pace.cooling("a"), pace.cooling("b")) == (True, False)
    clock.now += 4.9
    assert pace.cooling("a")
    clock.now += 0.1
    assert not pace.cooling("a")


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(allow_infinity=False)), max_size=20))
def test_a_later_shorter_cool_down_shortens_nothing(steps):
    clock = Clock()
    pace = Pace(clock=clock)
    until = -math.inf
    for passed, seconds in steps:
        clock.now += passed
        pace.cool_down("a", seconds)
        if not math.isnan(seconds):
            until = max(until, clock.now + max(0.0, seconds))
        assert pace.cooling("a") is (clock.now < until)
