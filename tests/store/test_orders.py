"""The owner's orders: cancel, retry, prune; and the log of what happened."""

from __future__ import annotations

from functools import partial

import pytest

from runner.errors import ClaimLost, UsageError
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.states import COMPLETE, FINAL, Finish, State
from runner.store import orders
from runner.store.records import Claim, OnConflict, Selection, Settlement
from runner.store.store import Store
from tests.store.hands import Hands, make_spec, sqlite_only

pytestmark = pytest.mark.anyio

ALL = Selection()
ENDS = [
    Settlement(State.COMPLETED, Finish.END_TURN),
    Settlement(State.COMPLETED, Finish.MAX_CALLS),
    Settlement(State.DISCARDED, error="broke"),
]


async def one_in_every_state(store: Store, hands: Hands) -> dict[str, State]:
    """Jobs of every state, by id."""
    waits = [Settlement(State.SCHEDULED, delay_ms=9), Settlement(State.RETRYABLE, delay_ms=9)]
    await hands.submit(*(make_spec(f"j{n}") for n in range(9)))
    for settlement in [*ENDS, *waits]:
        await written(store, hands, await hands.claim(), settlement)
    await hands.claim()  # j5 is executing
    await store.cancel(Selection(job_keys=(8,)))
    return {job.id: job.state async for job in store.jobs()}


async def written(store: Store, hands: Hands, claim: Claim, settlement: Settlement) -> None:
    call_key = await hands.begin(claim)
    await store.save(claim, call_key, 0, "text")
    outcome = CallOutcome("max_tokens", usage=Usage(1, 2, 3, 4))
    await store.end_call_and_settle(claim, call_key, outcome, settlement)


async def test_cancel_ends_what_is_unfinished_and_nothing_else(store: Store, hands) -> None:
    before = await one_in_every_state(store, hands)
    assert set(before.values()) == set(State)
    assert await store.cancel(ALL) == sum(not state.final for state in before.values())
    async for job in store.jobs():
        assert job.state is (before[job.id] if before[job.id].final else State.CANCELLED)
    assert await store.cancel(ALL) == 0
    assert await store.check() == []


async def test_a_cancelled_author_writes_nothing_more_and_the_text_stays(
    store: Store, hands
) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    await store.save(claim, call_key, 0, "kept")
    await store.cancel(Selection(job_keys=(claim.job_key,)))
    with pytest.raises(ClaimLost):
        await store.save(claim, call_key, 1, " lost")
    (call,) = await store.calls(claim.job_key)
    assert call.text == "kept"
    assert call.outcome is not None
    assert (call.outcome.error, call.outcome.usage.estimated) == (orders.CANCELLED, True)
    # Nor after a retry, though the job is in a state that could be claimed again.
    assert await store.retry(Selection(job_keys=(claim.job_key,))) == 1
    again = await hands.claim()
    assert again.number > claim.number
    with pytest.raises(ClaimLost):
        await store.save(claim, call_key, 1, " lost")


async def test_retry_takes_only_what_ended_and_is_not_complete(store: Store, hands) -> None:
    before = await one_in_every_state(store, hands)
    finishes = {job.id: job.finish async for job in store.jobs()}
    assert await store.retry(ALL) == 3  # cut, discarded, cancelled
    async for job in store.jobs():
        went_back = before[job.id] in FINAL and finishes[job.id] not in COMPLETE
        assert job.state is (State.AVAILABLE if went_back else before[job.id])
        if went_back:
            assert (job.attempt, job.rescues, job.finish, job.error) == (0, 0, None, None)
    assert await store.check() == []


async def test_what_was_made_before_a_retry_counts_no_more(store: Store, hands) -> None:
    await hands.submit()
    await written(store, hands, await hands.claim(), ENDS[1])
    await store.retry(ALL)
    claim = await hands.claim()
    loaded = await store.load(claim)
    assert (loaded.counted_from, [call.text for call in loaded.calls]) == (1, ["text"])
    assert loaded.next_seq == 1
    await store.settle(claim, ENDS[2])
    assert await store.retry(ALL, afresh=True) == 1
    claim = await hands.claim()
    loaded = await store.load(claim)
    assert (loaded.counted_from, loaded.calls) == (0, ())
    assert len(await store.calls(claim.job_key, superseded=True)) == 1
    await hands.begin(claim, 1)  # numbers begin again


async def test_afresh_takes_complete_documents_too(store: Store, hands) -> None:
    await hands.submit()
    await written(store, hands, await hands.claim(), ENDS[0])
    assert await store.retry(ALL) == 0
    assert await store.retry(ALL, afresh=True) == 1


async def test_prune_never_touches_what_is_unfinished(store: Store, hands) -> None:
    before = await one_in_every_state(store, hands)
    receipt = await store.prune(ALL)
    assert receipt.jobs == sum(state.final for state in before.values())
    assert {job.id: job.state async for job in store.jobs()} == {
        name: state for name, state in before.items() if not state.final
    }
    assert await store.check() == []
    assert receipt.batches == 0


async def test_prune_goes_by_age_and_portions(
    store: Store, hands, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "PORTION", 2)
    monkeypatch.setattr(orders, "PRUNED_CHUNKS", 1)
    await hands.submit(*(make_spec(f"j{n}") for n in range(5)))
    for _ in range(5):
        await written(store, hands, await hands.claim(), ENDS[0])
        clock.ms += 10
    assert (await store.prune(Selection(final_before_ms=clock.ms - 20))).jobs == 3
    assert [job.id async for job in store.jobs()] == ["j3", "j4"]
    assert await store.check() == []
    receipt = await store.prune(ALL)
    assert (receipt.jobs, receipt.batches) == (2, 1)
    assert await store.batches() == []
    assert await store.check() == []


async def test_what_one_transaction_may_prune(
    store: Store, hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the chunks that each job has; jobs without any go along, and one is always taken."""
    monkeypatch.setattr(orders, "PRUNED_CHUNKS", 5)
    await hands.submit(*(make_spec(f"j{n}") for n in range(5)))
    keys = []
    for chunks in (3, 2, 0, 1, 9):
        claim = await hands.claim()
        call_key = await hands.begin(claim)
        for seq in range(chunks):
            await store.save(claim, call_key, seq, "x")
        await store.settle(claim, ENDS[0])
        keys.append(claim.job_key)
    for some, most in ((keys, 3), (keys[2:], 2), (keys[4:], 1)):
        assert await store.apply(partial(orders._bearable, keys=some)) == most


@sqlite_only
async def test_prune_makes_the_file_smaller(store: Store, hands) -> None:
    await hands.submit(*(make_spec(f"j{n}") for n in range(40)))
    for _ in range(40):
        claim = await hands.claim()
        call_key = await hands.begin(claim)
        await store.save(claim, call_key, 0, "x" * 100_000)
        await store.settle(claim, ENDS[0])
    assert (await store.prune(ALL)).freed_bytes > 3_500_000


async def test_simulated_and_real_documents_never_mix(store: Store, hands) -> None:
    await hands.submit(batch="trial", simulated=True)
    await hands.submit(batch="real")
    with pytest.raises(UsageError, match=r"'trial' holds simulated documents.*--db or --batch"):
        await hands.submit(make_spec("b"), batch="trial")
    with pytest.raises(UsageError, match="'real' holds real documents"):
        await hands.submit(make_spec("b"), batch="real", simulated=True)
    assert [(row.simulated, row.jobs) for row in await store.batches()] == [(True, 1), (False, 1)]
    assert [job.simulated async for job in store.jobs()] == [True, False]


async def test_the_log_tells_a_jobs_story(store: Store, hands, clock) -> None:
    await hands.submit()
    for settlement in (
        Settlement(State.AVAILABLE),
        Settlement(State.AVAILABLE, error="its batch is paused: no money"),
        Settlement(State.SCHEDULED, error="429", delay_ms=1),
        Settlement(State.RETRYABLE, error="529", delay_ms=1),
    ):
        await store.settle(await hands.claim(), settlement)
        clock.ms += 5
        await store.promote_due()
    claim = await hands.claim()
    await hands.begin(claim)
    await store.rescue("w1", max_rescues=3)
    await store.cancel(ALL)
    await store.retry(ALL)
    await hands.submit(make_spec("a", max_tokens=7), on_conflict=OnConflict.REPLACE)
    await store.settle(await hands.claim("w2"), ENDS[1])
    events = await store.events(claim.job_key)
    told = [(event.kind, event.worker_id) for event in events if event.kind != "claimed"]
    assert told == [
        (None, None),
        ("handed_back", None),
        ("paused", None),
        ("waits", None),
        ("retry_scheduled", None),
        ("call_broken", None),
        ("rescued", "w1"),
        ("cancelled", None),
        ("retried", None),
        ("replaced", None),
        ("completed", None),
    ]
    assert [event.worker_id for event in events if event.kind == "claimed"] == ["w1"] * 5 + ["w2"]
    assert events[-1].detail == "max_calls"
    assert any(
        event.detail == "call 1: the process that made this call is gone" for event in events
    )
    assert [event.at_ms for event in events] == sorted(event.at_ms for event in events)
    await store.prune(ALL)
    assert await store.events(claim.job_key) == []
