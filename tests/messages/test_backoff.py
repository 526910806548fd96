"""Waiting: within its bounds, and never shorter than asked."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.messages.backoff import (
    BASE_S,
    CAP_S,
    RATE_LIMIT_CAP_S,
    RATE_LIMIT_LEAST_S,
    RETRY_AFTER_CAP_S,
    delay_s,
)
from runner.messages.errors import CallError, ErrorKind


def error(kind: ErrorKind = ErrorKind.RETRY, retry_after_s: float | None = None) -> CallError:
    return CallError(kind, "m", type="t", retry_after_s=retry_after_s)


def dice() -> Random:
    return Random(1)


@given(st.integers(-1, 10_000), st.randoms(use_true_random=False))
def test_full_jitter_between_nothing_and_the_doubled_bound(attempt: int, random: Random) -> None:
    delay = delay_s(attempt, error(), random)
    assert 0 <= delay <= min(CAP_S, BASE_S * 2.0 ** min(max(attempt, 0), 20))


def test_the_jitter_is_full() -> None:
    random = dice()
    delays = [delay_s(20, error(), random) for _ in range(2000)]
    assert min(delays) < CAP_S * 0.02
    assert max(delays) > CAP_S * 0.98
    assert 0.45 < sum(delays) / len(delays) / CAP_S < 0.55


@given(
    st.integers(0, 30),
    st.floats(0, 1e9),
    st.sampled_from([ErrorKind.RETRY, ErrorKind.RATE_LIMIT]),
    st.randoms(use_true_random=False),
)
def test_never_before_the_time_asked_for(
    attempt: int, asked: float, kind: ErrorKind, random: Random
) -> None:
    cap = RATE_LIMIT_CAP_S if kind is ErrorKind.RATE_LIMIT else RETRY_AFTER_CAP_S
    delay = delay_s(attempt, error(kind, asked), random)
    assert min(asked, cap) <= delay <= max(CAP_S, min(asked, cap) * 1.1)


@pytest.mark.parametrize("attempt", [0, 3])
def test_a_rate_limit_that_names_no_time_is_still_respected(attempt: int) -> None:
    random = dice()
    delays = [delay_s(attempt, error(ErrorKind.RATE_LIMIT), random) for _ in range(500)]
    assert min(delays) >= RATE_LIMIT_LEAST_S


def test_those_who_were_told_the_same_time_do_not_come_together() -> None:
    random = dice()
    delays = {delay_s(0, error(ErrorKind.RATE_LIMIT, 60), random) for _ in range(50)}
    assert len(delays) == 50
