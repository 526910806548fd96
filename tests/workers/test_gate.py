"""The gate where calls wait: who goes first, and that nobody is passed over for ever."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from runner.messages.headers import NO_LIMITS
from runner.messages.pace import Flight, Limit, PerMinute
from runner.workers.gate import Cap, Gate, Waiter

pytestmark = pytest.mark.anyio


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def a_gate(clock: Clock) -> Gate:
    limit = Limit("a model", 0.0, Random(1))
    for _ in range(50):  # its level is not what is waited for
        gone = limit.start(1, 1, 0.0)
        limit.answered(gone, NO_LIMITS, 0.0)
        limit.cancel(gone, 0.0)
        limit.level.open = 1_000.0
    return Gate("k", limit, clock, room=lambda: None, answers_again=lambda _gate, _lasted_s: None)


def a_waiter(input_tokens: int, cap: Cap, *, begun: bool = False) -> Waiter:
    return Waiter(input_tokens, 1, begun, lambda: False, cap)


async def test_short_new_calls_never_overtake_a_long_one_under_their_batchs_limit() -> None:
    clock = Clock()
    gate = a_gate(clock)
    cap = Cap("c", "batch b", 0.0)
    cap.change(PerMinute(input_tokens=6_000), 0.0)  # holds half a second's worth: some 50 tokens
    gate.wait(a_waiter(50, cap))
    document = a_waiter(20_000, cap, begun=True)
    granted = gate.wait(document)
    later: list[asyncio.Future[Flight | float]] = []
    for _ in range(12):
        later.append(gate.wait(a_waiter(5, cap)))
        clock.now_s += 0.1
        gate.pump()
        if granted.done():
            break
    assert granted.done()
    assert not any(future.done() for future in later)
    for waiter in (*gate._begun, *gate._new):
        gate.leave(waiter)
    gate.pump()


async def test_a_batch_at_its_own_limit_holds_up_no_other() -> None:
    clock = Clock()
    gate = a_gate(clock)
    tight, wide = Cap("c", "batch b", 0.0), Cap("d", "batch d", 0.0)
    tight.change(PerMinute(requests=60), 0.0)
    first, second = gate.wait(a_waiter(5, tight)), gate.wait(a_waiter(5, tight))
    third = gate.wait(a_waiter(5, tight))
    other = gate.wait(a_waiter(5, wide))
    assert (first.done(), second.done(), third.done(), other.done()) == (True, False, False, True)
    for waiter in (*gate._begun, *gate._new):
        gate.leave(waiter)
    gate.pump()


def test_as_many_jobs_are_looked_for_as_ended_lately() -> None:
    clock = Clock()
    gate = a_gate(clock)
    gate.limit.level.open = 20.0
    for _ in range(20):
        gate.limit.start(1, 1, 0.0)
    assert gate.soon(1.0, None) == 0  # long documents: those that wait are left to others
    for clock.now_s in (1.0, 1.5, 1.9):
        gate.job_ended()
    assert gate.soon(1.0, None) == 3
    clock.now_s = 2.6
    assert gate.soon(1.0, None) == 1
    clock.now_s = 9.0
    assert gate.soon(1.0, None) == 0
