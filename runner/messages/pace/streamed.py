"""The pace of what streams: a limit that is used up while answers are written, not when they begin.

The server counts real output as it is written and refuses new requests while its bucket is empty;
running streams go on. So what can be decided is only when another call begins, and its output
comes later, at a speed and in an amount that nobody knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runner.messages.pace.bucket import Bucket

# Until a stream has shown its speed, in tokens a second. Too fast a guess only starts slowly.
_FIRST_GUESS = 100.0
_MIRROR_S = 1.0  # what we suppose the server's bucket to hold, in seconds: the least in use
_DEBT_S = 10.0  # the longest that our own reckoning alone holds calls back
_KEEP = 0.2  # of the mirror that must be there for a call to begin
_AIM = 0.6  # of the mirror that we aim at: neither empty (refused) nor full (wasted)
_UNSURE_PER_S = 0.05  # how much more must be there for each second since the server told it
_UNSURE_MOST = 0.9
_GAIN = 0.15  # how far the rate gives way, at most, when the mirror is full or empty
_SAVE = 0.01  # how much is left unused so that a minute's bucket fills up again
_GAIN_UNKNOWN = 0.05  # the same while nobody knows how long calls take
_POLL_S = 0.02  # what cannot be foretold is looked at again so soon
_MEMORY_S = 3.0  # how long measured speeds count
_ENDED_FOR_MEAN = 5  # ended calls from which on their mean tells what a call uses
_ENDED_KEPT = 0.97
_CHARACTERS_PER_TOKEN = 4.0
_STREAMS_SEEN_S = 0.5  # of streams, from which on their speed is known
_TOLD_EXACTLY_FROM = 10_000  # a smaller limit's `remaining`, rounded to 1,000, says too little
_ROUNDED_BY = 1_000


@dataclass(slots=True)
class Written:
    """What one open call was counted with."""

    started_s: float
    at_once: float  # tokens it used by beginning
    admitted: float  # tokens taken from the admission bucket so far
    characters: int = 0
    flowing_s: float | None = None  # since when its text comes in


class Streamed:
    """Decides when a call may begin under a limit of tokens that are written.

    Three reckonings stand side by side. A *mirror* of the server's bucket loses what really
    streams, and while it is nearly empty nothing begins. An *admission bucket* loses what a call is
    expected to write when it begins, and what it really wrote when it ends: on average exactly the
    limit is begun. And as many calls as the limit feeds at the speed that calls have shown may
    begin at once, so that long documents need not be waited for. A call may begin when the mirror
    allows it and one of the other two.
    """

    def __init__(self, per_s: float, now_s: float) -> None:
        self._mirror = Bucket(per_s, _MIRROR_S, now_s)
        self._admission = Bucket(per_s, _MIRROR_S, now_s)
        self._in_flight = 0
        self._flowing = 0
        self._seen_s = now_s
        self._recent_tokens = 0.0
        self._recent_stream_s = 0.0
        self._ended = 0.0
        self._ended_tokens = 0.0
        self._ended_s = 0.0
        self._ended_stream_s = 0.0
        self._told_s = now_s
        self._left = _AIM  # of the server's bucket, as it was last told
        self._known_characters = 0.0
        self._known_tokens = 0.0

    @property
    def per_s(self) -> float:
        return self._mirror.per_s

    @property
    def level(self) -> float:
        """How full the server's bucket is by our reckoning; 1 is full, a debt is below 0."""
        return self._mirror.level / self._mirror.capacity

    def set_rate(self, per_s: float, now_s: float) -> None:
        """Another limit, or another share of it, in tokens a second."""
        self._mirror.set_rate(per_s, now_s)
        self._admission.set_rate(per_s, now_s)

    def wait_s(self, expected: float, now_s: float) -> float:
        """Seconds until a call may begin; where only time will tell, a short while to ask again."""
        self._pass(now_s)
        mirror = self._mirror
        keep = min(_UNSURE_MOST, _KEEP + _UNSURE_PER_S * (now_s - self._told_s))
        missing = keep * mirror.capacity - mirror.level
        if missing > 0:
            return max(_POLL_S, missing / mirror.per_s) if mirror.per_s > 0 else math.inf
        if self._in_flight + 1 <= self._calls_fed():
            return 0.0
        return min(_POLL_S, self._admission.wait_s(expected, now_s))

    def soon(self, expected: float, seconds: float, now_s: float) -> float:
        """About as many calls as may begin within so many seconds.

        Args:
            expected: tokens of one of them.
        """
        self._pass(now_s)
        if self._mirror.level + self._mirror.per_s * seconds < _KEEP * self._mirror.capacity:
            return 0.0
        flows = self._admission.level + self._admission.per_s * seconds
        return max(0.0, self._calls_fed() - self._in_flight, flows / max(1.0, expected))

    def start(self, expected: float, now_s: float, *, at_once: float = 0.0) -> Written:
        """A call begins.

        Args:
            expected: tokens that it will probably use in all.
            at_once: those of them that it uses by beginning, such as input.
        """
        self._pass(now_s)
        self._in_flight += 1
        self._admission.take(expected, now_s)
        self._take(at_once, now_s)
        return Written(now_s, at_once, admitted=expected)

    def wrote(self, call: Written, characters: int, now_s: float) -> None:
        """Text of the call came in."""
        self._pass(now_s)
        if call.flowing_s is None:
            call.flowing_s = now_s
            self._flowing += 1
        call.characters += characters
        tokens = characters / self._characters_per_token()
        self._recent_tokens += tokens
        self._take(tokens, now_s)
        counted = self._counted(call)
        if counted > call.admitted:
            self._admission.take(counted - call.admitted, now_s)
            call.admitted = counted

    def end(self, call: Written, tokens: float, now_s: float, *, exact: bool) -> None:
        """The call is over.

        Args:
            tokens: what it used in all.
            exact: the API counted them, so they teach what calls come to.
        """
        self._pass(now_s)
        self._in_flight -= 1
        # By what characters come to as we know it now: what was counted wrongly for all calls
        # together, the server has set right long since.
        self._take(tokens - self._counted(call), now_s)
        self._admission.take(tokens - call.admitted, now_s)
        stream_s = 0.0
        if call.flowing_s is not None:
            self._flowing -= 1
            stream_s = now_s - call.flowing_s
        if exact and tokens > 0:
            self._ended = self._ended * _ENDED_KEPT + 1
            self._ended_tokens = self._ended_tokens * _ENDED_KEPT + tokens
            self._ended_s = self._ended_s * _ENDED_KEPT + max(1e-3, now_s - call.started_s)
            self._ended_stream_s = self._ended_stream_s * _ENDED_KEPT + stream_s
            if call.characters:
                self._known_characters = self._known_characters * _ENDED_KEPT + call.characters
                self._known_tokens = self._known_tokens * _ENDED_KEPT + tokens - call.at_once

    def cancel(self, call: Written, now_s: float) -> None:
        """The call was never sent."""
        self._pass(now_s)
        self._in_flight -= 1
        self._take(-call.at_once, now_s)
        self._admission.take(-call.admitted, now_s)

    def told(self, limit: int, left: float, left_s: float, now_s: float) -> None:
        """The server said how much of its limit is left: it knows better than we do.

        Args:
            left: the part of its bucket that is left.
            left_s: the same as seconds' worth of the limit.
        """
        self._mirror.fill(now_s)
        self._told_s = now_s
        if left == 0 or limit >= _TOLD_EXACTLY_FROM:
            self._left = left
            half_step_s = 60 * _ROUNDED_BY / 2 / limit
            told = min(self._mirror.capacity, (left_s + half_step_s) * self._mirror.per_s)
            # A debt is told as 0.
            self._mirror.level = told if left else min(self._mirror.level, 0.0)

    def _take(self, tokens: float, now_s: float) -> None:
        self._mirror.take(tokens, now_s)
        self._mirror.level = max(self._mirror.level, -_DEBT_S * self._mirror.per_s)

    def _pass(self, now_s: float) -> None:
        passed_s = now_s - self._seen_s
        if passed_s <= 0:
            return
        self._seen_s = now_s
        self._mirror.fill(now_s)
        # The rate gives way a little: a full mirror wastes, an empty one is refused.
        gain = self._gain()
        self._admission.fill(now_s)
        extra = (gain - 1.0) * self._mirror.per_s * passed_s
        self._admission.level = min(self._admission.capacity, self._admission.level + extra)
        fade = math.exp(-passed_s / _MEMORY_S)
        self._recent_tokens *= fade
        self._recent_stream_s = self._recent_stream_s * fade + self._flowing * passed_s

    def _gain(self) -> float:
        most = _GAIN_UNKNOWN
        if self._ended >= _ENDED_FOR_MEAN:
            # What is begun too much streams as long as a call lasts, and the mirror holds little.
            most = min(_GAIN, _MIRROR_S * self._ended / self._ended_s)
        if self.level < _AIM:
            return 1.0 - most * min(1.0, (_AIM - self.level) / (1.0 - _AIM))
        # A bucket of a minute is not used up for being used to the full.
        left = min(self.level, self._left) if self._left < 1 else self.level
        if left < _AIM:
            return 1.0 - min(most, _SAVE)
        return 1.0 + most * (left - _AIM) / (1.0 - _AIM)

    def _calls_fed(self) -> float:
        """As many calls as the limit feeds, at the speed that calls have shown."""
        known = self._ended >= _ENDED_FOR_MEAN
        if self._recent_stream_s >= _STREAMS_SEEN_S:
            # A call also waits for its first word.
            share = self._ended_stream_s / self._ended_s if known else 1.0
            speed = share * self._recent_tokens / self._recent_stream_s
        elif known:
            speed = self._ended_tokens / self._ended_s
        else:
            speed = _FIRST_GUESS
        return max(1.0, self._gain() * self._mirror.per_s / max(speed, 1e-6))

    def _counted(self, call: Written) -> float:
        return call.at_once + call.characters / self._characters_per_token()

    def _characters_per_token(self) -> float:
        if self._known_tokens <= 0:
            return _CHARACTERS_PER_TOKEN
        return self._known_characters / self._known_tokens
