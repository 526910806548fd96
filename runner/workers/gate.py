"""Where calls wait for their leave to start: one gate for each limit."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from runner.messages.headers import RateLimits
from runner.messages.pace import Flight, Limit, PerMinute, Rates
from runner.messages.pace.rates import Taken

# A longer rest is not waited for: the job goes back to the queue, and the slot is free.
LONGEST_WAIT_S: Final = 3.0
_LEAST_WAIT_S: Final = 0.002
_MOST_WAIT_S: Final = 0.5  # after which the gate looks again, whatever it foresaw
_MEAN_KEPT: Final = 0.9  # of the means of what calls need, with each call


class Cap:
    """What a job file allows its batch, beside the API's own limits."""

    def __init__(self, key: str, name: str, now_s: float) -> None:
        self.key = key
        self.name = name
        self.rates = Rates(now_s)
        self.in_flight = 0
        self.per_minute = PerMinute()

    def change(self, per_minute: PerMinute, now_s: float) -> None:
        """Cap at other limits from now on."""
        self.per_minute = per_minute
        self.rates.drop_limits()
        self.rates.set_limits(per_minute, now_s)


@dataclass(slots=True, eq=False)
class Waiter:
    """A call that waits for its leave, and then has it.

    Args:
        input_tokens: those that count against the limit.
        output_tokens: those it will probably write.
        begun: its document was begun, so it goes before others.
        let_go: whether it need not wait any more.
        cap: its batch's own limits.
    """

    input_tokens: int
    output_tokens: int
    begun: bool
    let_go: Callable[[], bool]
    cap: Cap | None = None
    granted: asyncio.Future[Flight | float] | None = None
    flight: Flight | None = None
    capped: Taken | None = None


class AnswersAgain(Protocol):
    """Is told that an outage is over."""

    def __call__(self, gate: Gate, lasted_s: float | None) -> None: ...


@dataclass(eq=False)
class Gate:
    """Lets calls start in their order: those of begun documents first, then whoever came first.

    Args:
        now_s: monotonic seconds.
        room: called when more calls may start than before.
        answers_again: told how long an outage lasted, in seconds; None where none was on.
    """

    key: str
    limit: Limit
    now_s: Callable[[], float]
    room: Callable[[], None]
    answers_again: AnswersAgain
    _begun: dict[Waiter, None] = field(default_factory=dict)
    _new: dict[Waiter, None] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _ends_s: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))  # of jobs
    _input_mean: float = 0.0
    _output_mean: float = 0.0

    @property
    def waiting(self) -> int:
        return len(self._begun) + len(self._new)

    def job_ended(self) -> None:
        """A job makes no more calls: its room is another job's."""
        self._ends_s.append(self.now_s())

    def soon(self, seconds: float, cap: Cap | None) -> int:
        """How many more calls may start within so many seconds, about: as many jobs will end in
        them as did in the last.

        Args:
            cap: of their batch.
        """
        now_s = self.now_s()
        while self._ends_s and self._ends_s[0] < now_s - seconds:
            self._ends_s.popleft()
        amounts = (self._input_mean, self._output_mean, seconds, now_s)
        soon = min(self.limit.soon(*amounts, ending=len(self._ends_s)), 1e6)
        if cap is not None:
            soon = min(soon, cap.rates.soon(*amounts))
        return math.ceil(soon)

    def wait(self, waiter: Waiter) -> asyncio.Future[Flight | float]:
        """Let a call wait; the future gives its leave, or seconds for which none will be given."""
        kept = _MEAN_KEPT if self._output_mean else 0.0
        self._input_mean = kept * self._input_mean + (1 - kept) * waiter.input_tokens
        self._output_mean = kept * self._output_mean + (1 - kept) * waiter.output_tokens
        waiter.granted = asyncio.get_running_loop().create_future()
        (self._begun if waiter.begun else self._new)[waiter] = None
        self.pump()
        return waiter.granted

    def leave(self, waiter: Waiter) -> None:
        """It waits no more."""
        self._begun.pop(waiter, None)
        self._new.pop(waiter, None)

    def pump(self) -> None:
        """Give leave to all that may start now, and look again when the next may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.waiting:
            return
        now_s = self.now_s()
        rest_s = self.limit.rest_s(now_s)
        next_s = _MOST_WAIT_S
        held: set[Cap] = set()
        for waiter in (*self._begun, *self._new):
            if waiter.let_go():
                self._answer(waiter, 0.0)
            elif rest_s > LONGEST_WAIT_S:
                self._answer(waiter, rest_s)
            elif waiter.cap not in held:
                wait_s = self._wait_s(waiter, now_s)
                if wait_s <= 0:
                    self._start(waiter, now_s)
                    continue
                next_s = min(next_s, wait_s)
                if self.limit.wait_s(waiter.input_tokens, waiter.output_tokens, now_s) > 0:
                    break  # whoever comes behind would overtake
                if waiter.cap is not None:
                    held.add(waiter.cap)  # the same goes for its batch's others
        if self.waiting:
            delay_s = max(_LEAST_WAIT_S, next_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.pump)

    def answered(self, flight: Flight, limits: RateLimits) -> None:
        """A call's answer begins."""
        self.limit.answered(flight, limits, self.now_s(), datetime.now(UTC))
        self.pump()
        self.room()

    def read(self, waiter: Waiter, input_tokens: int) -> None:
        """A call's input was counted by the API."""
        now_s = self.now_s()
        if waiter.flight is not None:
            self.limit.rates.read(waiter.flight.taken, input_tokens, now_s)
        if waiter.cap is not None and waiter.capped is not None:
            waiter.cap.rates.read(waiter.capped, input_tokens, now_s)

    def wrote(self, waiter: Waiter, characters: int) -> None:
        """Text of a call came in."""
        now_s = self.now_s()
        if waiter.cap is not None and waiter.capped is not None:
            waiter.cap.rates.wrote(waiter.capped, characters, now_s)
        if waiter.flight is not None:
            lasted_s = self.limit.wrote(waiter.flight, characters, now_s)
            if lasted_s is not None:
                self._go_on(lasted_s)

    def answers(self) -> None:
        """The server refused a request for its own sake: so it is there."""
        lasted_s = self.limit.end_outage(self.now_s())
        if lasted_s is not None:
            self._go_on(lasted_s)

    def end(self, waiter: Waiter, output_tokens: int, *, exact: bool) -> None:
        """A call is over."""
        flight, now_s = waiter.flight, self.now_s()
        if flight is None or flight.closed:
            return
        lasted_s = self.limit.end(
            flight, output_tokens, now_s, exact=exact, success=exact and flight.answered
        )
        if waiter.cap is not None and waiter.capped is not None:
            waiter.cap.in_flight -= 1
            waiter.cap.rates.end(waiter.capped, output_tokens, now_s, exact=exact)
        if lasted_s is not None:
            self._go_on(lasted_s)
        self.pump()

    def cancel(self, waiter: Waiter) -> None:
        """A call was never sent."""
        flight, now_s = waiter.flight, self.now_s()
        if flight is None or flight.closed:
            return
        self.limit.cancel(flight, now_s)
        if waiter.cap is not None and waiter.capped is not None:
            waiter.cap.in_flight -= 1
            waiter.cap.rates.cancel(waiter.capped, now_s)
        self.pump()

    def _go_on(self, lasted_s: float) -> None:
        self.answers_again(self, lasted_s)
        self.pump()

    def _wait_s(self, waiter: Waiter, now_s: float) -> float:
        amounts = (waiter.input_tokens, waiter.output_tokens, now_s)
        wait_s = self.limit.wait_s(*amounts)
        if waiter.cap is not None:
            wait_s = max(wait_s, waiter.cap.rates.wait_s(*amounts))
        return wait_s

    def _start(self, waiter: Waiter, now_s: float) -> None:
        amounts = (waiter.input_tokens, waiter.output_tokens, now_s)
        if waiter.granted is None or waiter.granted.done():
            return
        waiter.flight = self.limit.start(*amounts)
        if waiter.cap is not None:
            waiter.cap.in_flight += 1
            waiter.capped = waiter.cap.rates.start(*amounts)
        self._answer(waiter, waiter.flight)

    def _answer(self, waiter: Waiter, answer: Flight | float) -> None:
        self.leave(waiter)
        if waiter.granted is not None and not waiter.granted.done():
            waiter.granted.set_result(answer)
