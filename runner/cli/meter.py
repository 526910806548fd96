"""How fast documents are written, and how long the rest will take."""

from __future__ import annotations

from collections import deque

from runner.jobs.call import CHARACTERS_PER_TOKEN, estimate_tokens

_WINDOW_S = 10.0  # short enough to follow changes, long enough to be read
_ENOUGH_FINISHED = 3  # documents; fewer say nothing about the others


class Meter:
    """Measures output over the last seconds, and documents since the start.

    All times are seconds of one monotonic clock, given by the caller.

    Args:
        finished: documents that were final before.
        output_tokens: tokens that were written before.
    """

    def __init__(self, now_s: float, finished: int, output_tokens: int) -> None:
        self._tokens_before = output_tokens
        self._start_s = now_s
        self._finished_before = finished
        self._samples: deque[tuple[float, int]] = deque([(now_s, 0)])

    def sample(self, now_s: float, output_characters: int) -> None:
        """Take note of what was streamed in since the start."""
        self._samples.append((now_s, output_characters))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - _WINDOW_S:
            self._samples.popleft()

    def elapsed_s(self) -> float:
        return self._samples[-1][0] - self._start_s

    def output_tokens(self, output_characters: int) -> int:
        """All output tokens, those since the start estimated."""
        return self._tokens_before + estimate_tokens(output_characters)

    def tokens_per_second(self) -> float | None:
        """Output tokens a second, estimated from characters; None while nothing was measured."""
        (first_s, before), (last_s, after) = self._samples[0], self._samples[-1]
        if last_s - first_s < 1:
            return None
        return (after - before) / CHARACTERS_PER_TOKEN / (last_s - first_s)

    def seconds_left(self, finished: int, remaining: int) -> float | None:
        """Time for the remaining documents at the pace of those that this process finished; None
        while that pace is not known."""
        here = finished - self._finished_before
        if not remaining:
            return 0.0
        if here < _ENOUGH_FINISHED or self.elapsed_s() <= 0:
            return None
        return remaining / (here / self.elapsed_s())


def duration(seconds: float | None) -> str:
    """Seconds for people: 45 s, 12 min, 3 h 20 min; a dash when unknown."""
    if seconds is None:
        return "–"
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
