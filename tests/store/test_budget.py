"""Budgets: set aside before a call, settled when it ends, however it ends."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from runner.errors import BudgetReached, ClaimLost
from runner.jobs.call import CallOutcome, Charge, Usage
from runner.jobs.price import Rates
from runner.jobs.spec import BatchLimits, BatchSpec
from runner.jobs.states import Finish, State
from runner.store.records import (
    BatchRow,
    CallStart,
    Claim,
    Lane,
    OnConflict,
    PauseCause,
    Reservation,
    Selection,
    Settlement,
)
from runner.store.store import Store
from tests.store.hands import make_spec

pytestmark = pytest.mark.anyio

RATES = Rates(1_000_000_000, 5_000_000_000, 1_250_000_000, 2_000_000_000, 100_000_000)
CENT = 10_000_000
WAITS = Settlement(State.SCHEDULED, error="waits", delay_ms=2_000)
DONE = Settlement(State.COMPLETED, Finish.END_TURN)


def outcome(cost: int | None = CENT, tokens: int = 10) -> CallOutcome:
    return CallOutcome("end_turn", usage=Usage(5, output_tokens=tokens), charge=Charge(cost))


class Budgeted:
    """A batch with a budget, and a worker at it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.key = 0

    async def submit(self, count: int = 3, **limits: Any) -> None:
        batch = BatchSpec("b", BatchLimits(**limits))
        specs = [make_spec(f"j{number}") for number in range(count)]
        self.key = (await self.store.submit(batch, specs)).batch_key
        if not await self.store.workers():
            await self.store.register_worker("w", host="here", pid=1, lease_ms=60_000)

    async def claim(self, count: int = 1) -> list[Claim]:
        return await self.store.claim("w", [Lane(self.key, "m", count)], count)

    async def begin(self, claim: Claim, nano: int = CENT, tokens: int = 100, **changes: Any) -> int:
        start = CallStart(
            1, None, 0, tokens, "m", rates=RATES, reservation=Reservation(nano, tokens)
        )
        return await self.store.begin_call(claim, replace(start, **changes))

    async def row(self) -> BatchRow:
        (row,) = await self.store.batches()
        return row

    async def reserved(self) -> tuple[int, int]:
        row = await self.row()
        assert await self.store.check() == []
        return row.reserved_nano_usd, row.reserved_output_tokens


@pytest.fixture
def budgeted(store: Store) -> Budgeted:
    return Budgeted(store)


async def test_what_a_call_may_cost_is_set_aside_and_settled(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=5 * CENT)
    first, second, _ = await budgeted.claim(3)
    call_key = await budgeted.begin(first, 2 * CENT)
    await budgeted.begin(second, 3 * CENT, 50)
    assert await budgeted.reserved() == (5 * CENT, 150)
    await budgeted.store.end_call(first, call_key, outcome(CENT // 2, 40))
    assert await budgeted.reserved() == (3 * CENT, 50)
    row = await budgeted.row()
    assert (row.cost_nano_usd, row.spent_output_tokens) == (CENT // 2, 40)


async def test_the_last_nano_dollar_may_be_spent_and_no_more(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=3 * CENT)
    first, second, third = await budgeted.claim(3)
    await budgeted.begin(first, 2 * CENT)
    with pytest.raises(BudgetReached):
        await budgeted.begin(second, CENT + 1)
    await budgeted.begin(third, CENT)
    assert await budgeted.reserved() == (3 * CENT, 200)


async def test_a_refused_call_is_not_written_down(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=CENT)
    (claim,) = await budgeted.claim()
    with pytest.raises(BudgetReached):
        await budgeted.begin(claim, 2 * CENT)
    assert await budgeted.store.calls(claim.job_key) == []
    assert await budgeted.reserved() == (0, 0)


async def test_while_others_run_a_refused_call_waits(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=3 * CENT)
    first, second, _ = await budgeted.claim(3)
    await budgeted.begin(first, 2 * CENT)
    with pytest.raises(BudgetReached) as caught:
        await budgeted.begin(second, 2 * CENT)
    assert not caught.value.paused
    assert (await budgeted.row()).paused is None
    assert str(caught.value) == (
        "its budget `max_cost_usd` of $0.03 has no room for the next call: $0.00 are spent, "
        "$0.02 are set aside for calls that run, and the next call of job j1 may cost $0.02"
    )


async def test_when_nothing_runs_the_batch_pauses_and_says_why(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=3 * CENT)
    first, second = await budgeted.claim(2)
    call_key = await budgeted.begin(first, 2 * CENT)
    await budgeted.store.end_call_and_settle(first, call_key, outcome(2 * CENT - 1), DONE)
    with pytest.raises(BudgetReached) as caught:
        await budgeted.begin(second, 2 * CENT)
    assert caught.value.paused
    row = await budgeted.row()
    assert (row.paused, row.pause_reason) == (PauseCause.BUDGET, str(caught.value))
    assert row.pause_reason == (
        "its budget `max_cost_usd` of $0.03 has no room for the next call: $0.0200 are spent, "
        "and the next call of job j1 may cost $0.02"
    )
    assert await budgeted.claim() == []


async def test_a_user_s_own_pause_stays_his(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=CENT)
    (claim,) = await budgeted.claim()
    await budgeted.store.pause(budgeted.key, PauseCause.USER, "holiday")
    with pytest.raises(BudgetReached, match="holiday") as caught:
        await budgeted.begin(claim, 2 * CENT)
    assert caught.value.paused
    row = await budgeted.row()
    assert (row.paused, row.pause_reason) == (PauseCause.USER, "holiday")


async def test_between_two_calls_a_job_runs_too(budgeted: Budgeted) -> None:
    """It may yet make a smaller call: only when it is over, too, does the batch pause."""
    await budgeted.submit(max_cost_nano_usd=3 * CENT)
    first, second = await budgeted.claim(2)
    call_key = await budgeted.begin(first, 2 * CENT)
    await budgeted.store.end_call(first, call_key, outcome(2 * CENT))
    with pytest.raises(BudgetReached) as caught:
        await budgeted.begin(second, 2 * CENT)
    assert not caught.value.paused
    await budgeted.store.settle(second, WAITS)
    assert await lanes(budgeted) == []
    await budgeted.store.settle(first, DONE)
    assert await lanes(budgeted) == [1]
    (third,) = await budgeted.claim()
    with pytest.raises(BudgetReached) as caught:
        await budgeted.begin(third, 2 * CENT)
    assert caught.value.paused


async def test_a_budget_in_output_tokens(budgeted: Budgeted) -> None:
    await budgeted.submit(max_output_tokens=150)
    first, second = await budgeted.claim(2)
    call_key = await budgeted.begin(first, tokens=100, rates=None)
    with pytest.raises(BudgetReached, match="of 150 has no room"):
        await budgeted.begin(second, tokens=51, rates=None)
    await budgeted.store.end_call_and_settle(first, call_key, outcome(None, 99), DONE)
    with pytest.raises(BudgetReached) as caught:
        await budgeted.begin(second, tokens=52, rates=None)
    assert str(caught.value) == (
        "its budget `max_output_tokens` of 150 has no room for the next call: 99 are spent, "
        "and the next call of job j1 may write 52 tokens"
    )
    await budgeted.begin(second, tokens=51, rates=None)


async def test_a_budget_of_money_and_an_unknown_price(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=100 * CENT)
    first, second, _ = await budgeted.claim(3)
    await budgeted.begin(first)
    with pytest.raises(BudgetReached, match="price of m is not known") as caught:
        await budgeted.begin(second, 0, rates=None)
    assert caught.value.paused
    assert (await budgeted.row()).paused is PauseCause.BUDGET


async def test_a_job_s_own_budget_and_an_unknown_price(budgeted: Budgeted) -> None:
    await budgeted.submit()
    (claim,) = await budgeted.claim()
    with pytest.raises(BudgetReached, match="job j0's budget `max_cost_usd`") as caught:
        await budgeted.begin(claim, rates=None, reservation=Reservation(0, 5, needs_price=True))
    assert caught.value.paused
    assert await budgeted.reserved() == (0, 0)


async def test_without_a_budget_an_unknown_price_is_no_hindrance(budgeted: Budgeted) -> None:
    await budgeted.submit()
    (claim,) = await budgeted.claim()
    call_key = await budgeted.begin(claim, 7, rates=None)  # what is not known is not set aside
    assert await budgeted.reserved() == (0, 100)
    await budgeted.store.end_call(claim, call_key, outcome(None))
    row = await budgeted.row()
    assert (row.reserved_output_tokens, row.cost_nano_usd, row.unpriced_calls) == (0, 0, 1)


async def test_what_the_api_bills_beyond_the_worst_case_is_recorded_truly(
    budgeted: Budgeted,
) -> None:
    await budgeted.submit(max_cost_nano_usd=2 * CENT)
    (claim,) = await budgeted.claim()
    call_key = await budgeted.begin(claim, CENT)
    await budgeted.store.end_call_and_settle(claim, call_key, outcome(3 * CENT), DONE)
    row = await budgeted.row()
    assert (row.cost_nano_usd, row.reserved_nano_usd) == (3 * CENT, 0)


ENDS = {
    "settled": lambda b, c: b.store.settle(c, Settlement(State.AVAILABLE)),
    "rescued": lambda b, _: b.store.rescue("w", max_rescues=3),
    "retired": lambda b, _: b.store.retire_worker("w"),
    "cancelled": lambda b, _: b.store.cancel(Selection(batch="b")),
    "replaced": lambda b, _: b.store.submit(
        BatchSpec("b"), [make_spec("j0", system="new")], on_conflict=OnConflict.REPLACE
    ),
    "cancelled and pruned": lambda b, _: cancelled_and_pruned(b.store),
    "ended twice": lambda b, c: ended_twice(b.store, c),
}


async def cancelled_and_pruned(store: Store) -> None:
    await store.cancel(Selection(batch="b"))
    await store.submit(BatchSpec("b"), [make_spec("later")])
    await store.prune(Selection(batch="b"))


async def ended_twice(store: Store, claim: Claim) -> None:
    ((call_key,),) = [[call.key] for call in await store.calls(claim.job_key)]
    await store.end_call(claim, call_key, outcome())
    await store.end_call(claim, call_key, outcome())


@pytest.mark.parametrize("how", ENDS)
async def test_however_a_call_ends_what_was_set_aside_is_given_back(
    budgeted: Budgeted, how: str
) -> None:
    await budgeted.submit(1, max_cost_nano_usd=5 * CENT)
    (claim,) = await budgeted.claim()
    await budgeted.begin(claim)
    assert await budgeted.reserved() == (CENT, 100)
    await ENDS[how](budgeted, claim)
    assert await budgeted.reserved() == (0, 0)


async def test_a_zombie_reserves_nothing(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=5 * CENT)
    (claim,) = await budgeted.claim()
    await budgeted.store.rescue("w", max_rescues=3)
    with pytest.raises(ClaimLost):
        await budgeted.begin(claim)
    assert await budgeted.reserved() == (0, 0)


async def test_many_at_once_never_reserve_more_than_there_is(
    budgeted: Budgeted, open_store: Any
) -> None:
    await budgeted.submit(40, max_cost_nano_usd=7 * CENT)
    other = Budgeted(await open_store())
    claims = await budgeted.claim(40)
    homes = [budgeted, other] * 20
    answers = await asyncio.gather(
        *(home.begin(claim) for home, claim in zip(homes, claims, strict=True)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, int) for answer in answers) == 7
    assert sum(isinstance(answer, BudgetReached) for answer in answers) == 33
    assert await budgeted.reserved() == (7 * CENT, 700)


# who may be claimed while some wait


async def lanes(budgeted: Budgeted) -> list[int | None]:
    return [lane.most for lane in await budgeted.store.open_lanes()]


async def refused(budgeted: Budgeted, claim: Claim, nano: int, **changes: Any) -> None:
    with pytest.raises(BudgetReached):
        await budgeted.begin(claim, nano, **changes)
    await budgeted.store.settle(claim, WAITS)


async def test_while_none_waits_nobody_counts(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=5 * CENT)
    assert await lanes(budgeted) == [None]
    (claim,) = await budgeted.claim()
    await budgeted.begin(claim)
    assert await lanes(budgeted) == [None]


async def test_while_not_even_the_smallest_fits_nobody_is_claimed(budgeted: Budgeted) -> None:
    await budgeted.submit(9, max_cost_nano_usd=6 * CENT)
    first, second, third, fourth = await budgeted.claim(4)
    call_key = await budgeted.begin(first, 5 * CENT)
    await refused(budgeted, second, 3 * CENT)
    await refused(budgeted, third, 2 * CENT)
    await refused(budgeted, fourth, 4 * CENT)
    assert await lanes(budgeted) == []
    # It cost less than was set aside: there is room for two of the smallest that wait.
    await budgeted.store.end_call_and_settle(first, call_key, outcome(CENT), DONE)
    assert await lanes(budgeted) == [2]


async def test_where_nothing_runs_one_tries(budgeted: Budgeted) -> None:
    await budgeted.submit(9, max_cost_nano_usd=6 * CENT)
    first, second = await budgeted.claim(2)
    call_key = await budgeted.begin(first, 5 * CENT)
    await refused(budgeted, second, 3 * CENT)
    await budgeted.store.end_call_and_settle(first, call_key, outcome(5 * CENT), DONE)
    assert await lanes(budgeted) == [1]
    (third,) = await budgeted.claim(1)
    await budgeted.begin(third, CENT - 1)  # smaller than the one that was refused
    assert await lanes(budgeted) == []


async def test_calls_are_taken_to_be_like_the_smallest_that_is_known(budgeted: Budgeted) -> None:
    await budgeted.submit(9, max_cost_nano_usd=9 * CENT)
    first, second = await budgeted.claim(2)
    call_key = await budgeted.begin(first, 8 * CENT)
    await refused(budgeted, second, 2 * CENT)
    await budgeted.store.end_call_and_settle(first, call_key, outcome(CENT), DONE)
    assert await lanes(budgeted) == [4]
    third, fourth = await budgeted.claim(2)
    await budgeted.begin(third, 3 * CENT)
    assert await lanes(budgeted) == [2]
    await budgeted.begin(fourth, CENT // 2)
    assert await lanes(budgeted) == [9]


async def test_calls_that_cost_nothing_always_fit(budgeted: Budgeted) -> None:
    await budgeted.submit(9, max_cost_nano_usd=2 * CENT)
    first, second, third = await budgeted.claim(3)
    await budgeted.begin(first, 2 * CENT)
    await refused(budgeted, second, CENT)
    assert await lanes(budgeted) == []
    await budgeted.begin(third, 0)
    assert await lanes(budgeted) == [None]


async def test_what_waited_and_fits_is_forgotten_when_a_larger_one_is_refused(
    budgeted: Budgeted,
) -> None:
    """Else the larger one would be claimed again and again on the strength of the smaller."""
    await budgeted.submit(9, max_cost_nano_usd=6 * CENT)
    first, second, third, fourth = await budgeted.claim(4)
    await budgeted.begin(first, 2 * CENT)
    call_key = await budgeted.begin(second, 3 * CENT)
    await refused(budgeted, third, 2 * CENT)
    await budgeted.store.end_call_and_settle(second, call_key, outcome(CENT), DONE)
    assert await lanes(budgeted) == [1]
    await refused(budgeted, fourth, 5 * CENT)
    assert await lanes(budgeted) == []


async def test_one_budget_of_two_is_the_one_that_is_short(budgeted: Budgeted) -> None:
    await budgeted.submit(9, max_cost_nano_usd=100 * CENT, max_output_tokens=150)
    first, second = await budgeted.claim(2)
    call_key = await budgeted.begin(first, CENT, 100)
    await refused(budgeted, second, CENT, tokens=100)
    assert await lanes(budgeted) == []
    await budgeted.store.end_call_and_settle(first, call_key, outcome(CENT, 10), DONE)
    assert await lanes(budgeted) == [1]


# raising it


async def paused_by_budget(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=CENT)
    (claim,) = await budgeted.claim()
    await refused(budgeted, claim, 2 * CENT)
    assert (await budgeted.row()).paused is PauseCause.BUDGET


async def test_a_changed_budget_ends_the_pause(budgeted: Budgeted) -> None:
    await paused_by_budget(budgeted)
    await budgeted.submit(max_cost_nano_usd=2 * CENT)
    row = await budgeted.row()
    assert (row.paused, row.pause_reason) == (None, None)
    assert await lanes(budgeted) == [1]
    (claim,) = await budgeted.claim()
    await budgeted.begin(claim, 2 * CENT)


async def test_the_same_budget_again_does_not(budgeted: Budgeted) -> None:
    await paused_by_budget(budgeted)
    await budgeted.submit(max_cost_nano_usd=CENT)
    assert (await budgeted.row()).paused is PauseCause.BUDGET


async def test_a_changed_budget_does_not_end_another_pause(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=CENT)
    await budgeted.store.pause(budgeted.key, PauseCause.USER, "holiday")
    await budgeted.submit(max_cost_nano_usd=2 * CENT)
    assert (await budgeted.row()).paused is PauseCause.USER


async def test_what_is_pruned_stays_spent(budgeted: Budgeted) -> None:
    await budgeted.submit(max_cost_nano_usd=3 * CENT)
    (claim,) = await budgeted.claim()
    call_key = await budgeted.begin(claim)
    await budgeted.store.end_call_and_settle(claim, call_key, outcome(), DONE)
    await budgeted.store.prune(Selection(batch="b"))
    row = await budgeted.row()
    assert (row.cost_nano_usd, row.spent_output_tokens) == (CENT, 10)


async def test_a_leak_is_found_by_the_check(database: str, budgeted: Budgeted) -> None:
    await budgeted.submit()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE batch SET reserved_nano_usd = 5")
        connection.commit()
    assert await budgeted.store.check() == [
        "batch 'b': what is set aside of its budget is not what its open calls reserved"
    ]
