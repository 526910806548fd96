"""Slots and cool-downs, on a clock that the test moves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.messages.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_slots_overall_and_by_model() -> None:
    pace = Pace(3, {"a": 2})
    assert (pace.free("a"), pace.free("b"), pace.free_slots) == (2, 3, 3)
    pace.start("a")
    pace.start("a")
    assert (pace.free("a"), pace.free("b"), pace.free_slots) == (0, 1, 1)
    pace.start("b")
    assert (pace.free("b"), pace.free_slots) == (0, 0)
    pace.finish("a")
    assert (pace.free("a"), pace.free("b")) == (1, 1)


def test_finishing_what_never_started_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no call"):
        Pace(1, {}).finish("a")


def test_a_model_cools_down_for_all_and_others_go_on() -> None:
    clock = Clock()
    pace = Pace(3, {}, clock=clock)
    pace.cool_down("a", 10)
    assert (pace.free("a"), pace.free("b"), pace.free_slots) == (0, 3, 3)
    assert pace.cooled_until("a") == 1010
    clock.now = 1009.9
    assert pace.free("a") == 0
    clock.now = 1010
    assert pace.free("a") == 3
    assert pace.cooled_until("a") is None


def test_a_shorter_cool_down_does_not_shorten_a_longer_one() -> None:
    clock = Clock()
    pace = Pace(1, {}, clock=clock)
    pace.cool_down("a", 60)
    clock.now += 1
    pace.cool_down("a", 1)
    assert pace.cooled_until("a") == 1060
    pace.cool_down("a", 100)
    assert pace.cooled_until("a") == 1101


def test_nonsense_is_no_cool_down() -> None:
    pace = Pace(1, {})
    pace.cool_down("a", math.nan)
    pace.cool_down("a", -5)
    assert pace.free("a") == 1


@given(st.integers(1, 5), st.integers(0, 5), st.lists(st.sampled_from("ab"), max_size=30))
def test_never_more_open_than_allowed(all: int, a: int, wishes: list[str]) -> None:
    pace = Pace(all, {"a": a})
    calls: list[str] = []
    for model in wishes:
        if pace.free(model):
            pace.start(model)
            calls.append(model)
        elif calls:
            pace.finish(calls.pop(0))
        assert len(calls) <= all
        assert calls.count("a") <= a
        assert pace.free_slots == all - len(calls)
