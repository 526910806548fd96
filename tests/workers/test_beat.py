"""When text that streams in is saved: with that of all other streams, and never late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.workers.checkpoint import _next_beat

TIMES = st.integers(0, 10**10).map(lambda ms: ms / 1_000)
EVERY = st.sampled_from([0.02, 0.05, 0.25, 1.0])


@given(TIMES, EVERY)
def test_no_text_waits_longer_than_a_beat(now_s: float, every_s: float) -> None:
    assert now_s <= _next_beat(now_s, every_s) <= now_s + every_s * 1.001


@given(TIMES, EVERY, st.floats(0, 0.9))
def test_what_comes_before_a_beat_is_saved_at_it(now_s: float, every_s: float, part: float) -> None:
    beat = _next_beat(now_s, every_s)
    later = now_s + (beat - now_s) * part
    assert beat - now_s < 1e-6 or abs(_next_beat(later, every_s) - beat) < every_s / 100


def test_where_nothing_may_wait_nothing_does() -> None:
    assert _next_beat(12.3, 0) == 12.3
