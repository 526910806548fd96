"""The breaker in the store: one memory a batch, whoever settles its jobs."""

from __future__ import annotations

import pytest

from runner.jobs.spec import BatchLimits, BatchSpec
from runner.jobs.states import Finish, State
from runner.store.breaker import IN_A_ROW
from runner.store.records import BatchRow, Lane, PauseCause, Settlement
from runner.store.store import Store
from tests.store.hands import make_spec

pytestmark = pytest.mark.anyio

FAILED = Settlement(State.DISCARDED, error="the prompt of x is wrong", error_name="400 bad")
OTHER = Settlement(State.DISCARDED, error="boom", error_name="500 api_error")
DONE = Settlement(State.COMPLETED, Finish.END_TURN)
REFUSED = Settlement(State.DISCARDED, Finish.REFUSAL)


async def row(store: Store) -> BatchRow:
    (batch,) = await store.batches()
    return batch


async def end(hands, store: Store, settlement: Settlement, times: int, worker: str = "w1") -> None:
    for _ in range(times):
        await store.settle(await hands.claim(worker), settlement)


async def test_twenty_in_a_row_over_two_processes(hands, store: Store, open_store) -> None:
    other = await open_store()
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(40)))
    await hands.register("w1")
    await other.register_worker("w2", host="here", pid=2, lease_ms=60_000)
    for turn in range(IN_A_ROW):
        assert (await row(store)).paused is None
        # Both hold a job at the same time; they fail in turns.
        who, holder = (store, "w1") if turn % 2 else (other, "w2")
        (claim,) = await who.claim(holder, [Lane(hands.batch_key, "m", 1)], 1)
        await who.settle(claim, FAILED)
    batch = await row(store)
    assert batch.paused is PauseCause.BREAKER
    assert batch.pause_reason == (
        "20 jobs in a row failed with the same error, 400 bad; the last of them is a19"
    )
    assert await other.open_lanes() == []
    assert batch.count(State.DISCARDED) == IN_A_ROW
    assert batch.count(State.AVAILABLE) == 20


@pytest.mark.parametrize("between", [DONE, REFUSED, OTHER], ids=["done", "refused", "other"])
async def test_a_job_that_ended_otherwise_begins_the_row_anew(hands, store, between) -> None:
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(30)))
    await end(hands, store, FAILED, 19)
    await end(hands, store, between, 1)
    await end(hands, store, FAILED, 5)
    assert (await row(store)).paused is None
    await end(hands, store, FAILED, 1)  # the 25th of the last 26
    assert "25 of the last 26 jobs" in ((await row(store)).pause_reason or "")


async def test_what_is_no_end_is_not_counted(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(60)))
    for state in (State.RETRYABLE, State.SCHEDULED, State.AVAILABLE):
        await end(hands, store, Settlement(state, error="again", error_name="400 bad"), 20)
        await store.promote_due()
    await end(hands, store, REFUSED, 25)
    assert (await row(store)).paused is None


async def test_a_resume_is_a_fresh_look(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(60)))
    await end(hands, store, FAILED, IN_A_ROW)
    assert await store.resume(hands.batch_key)
    await end(hands, store, FAILED, IN_A_ROW - 1)
    assert (await row(store)).paused is None
    await end(hands, store, FAILED, 1)
    assert (await row(store)).paused is PauseCause.BREAKER


async def test_jobs_that_were_running_when_it_tripped_change_nothing(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(30)))
    await hands.register("w1")
    claims = await store.claim("w1", [Lane(hands.batch_key, "m", 30)], 30)
    for claim in claims:
        await store.settle(claim, FAILED)
    assert ((await row(store)).pause_reason or "").startswith("20 jobs in a row")


async def test_a_users_pause_stays_his(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(30)))
    await hands.register("w1")
    claims = await store.claim("w1", [Lane(hands.batch_key, "m", 30)], 30)
    await store.pause(hands.batch_key, PauseCause.USER, "lunch")
    for claim in claims:
        await store.settle(claim, FAILED)
    assert (await row(store)).pause_reason == "lunch"


async def test_it_can_be_off(hands, store: Store) -> None:
    specs = [make_spec(f"a{n:02}") for n in range(30)]
    receipt = await store.submit(BatchSpec("b", BatchLimits(breaker=False)), specs)
    hands.batch_key = receipt.batch_key
    await end(hands, store, FAILED, 30)
    assert (await row(store)).paused is None


async def test_switched_on_it_counts_from_nothing(hands, store: Store) -> None:
    specs = [make_spec(f"a{n:02}") for n in range(60)]
    receipt = await store.submit(BatchSpec("b", BatchLimits(breaker=False)), specs)
    hands.batch_key = receipt.batch_key
    await end(hands, store, FAILED, 30)
    assert (await store.set_limits(hands.batch_key, {"breaker": True})).breaker
    await end(hands, store, FAILED, IN_A_ROW - 1)
    assert (await row(store)).paused is None
    await end(hands, store, FAILED, 1)
    assert (await row(store)).paused is PauseCause.BREAKER


async def test_batches_remember_apart(hands, store: Store) -> None:
    for batch in ("one", "two"):
        await hands.submit(*(make_spec(f"a{n:02}") for n in range(15)), batch=batch)
        await end(hands, store, FAILED, 15)
    assert {batch.paused for batch in await store.batches()} == {None}


async def test_jobs_that_kill_their_process_count(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(25)))
    await hands.register("w1")
    await store.claim("w1", [Lane(hands.batch_key, "m", 20)], 20)
    await store.rescue("w1", max_rescues=0)
    batch = await row(store)
    assert batch.paused is PauseCause.BREAKER
    assert "its process died" in (batch.pause_reason or "")


async def test_names_are_strangers_words(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(20)))
    nasty = Settlement(State.DISCARDED, error="e", error_name='400 \ud800"]\x1b[2J' + "x" * 10_000)
    await end(hands, store, nasty, 20)
    batch = await row(store)
    assert batch.paused is PauseCause.BREAKER
    assert len(batch.pause_reason or "") < 250
    assert await store.check() == []


@pytest.mark.parametrize("cause", [PauseCause.SPEND_CAP, PauseCause.CREDENTIALS])
async def test_a_call_that_still_ran_does_not_take_the_breakers_pause_over(
    hands, store: Store, cause
) -> None:
    """A run that waits tries a spending limit again by itself: it must not lift the breaker so."""
    await hands.submit(*(make_spec(f"a{n:02}") for n in range(30)))
    await end(hands, store, FAILED, IN_A_ROW)
    await store.pause(hands.batch_key, cause, "the limit is reached")
    assert not await store.resume(hands.batch_key, causes=[cause])
    batch = await row(store)
    assert batch.paused is PauseCause.BREAKER
    assert "20 jobs in a row" in (batch.pause_reason or "")
    await store.pause(hands.batch_key, PauseCause.USER, "lunch")
    assert (await row(store)).paused is PauseCause.USER
