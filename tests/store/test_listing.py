"""Lists show what is meant, by whichever index they are read."""

from __future__ import annotations

from itertools import combinations

import pytest

from runner.jobs.states import Finish, State
from runner.store import listing, reads
from runner.store.records import Selection, Settlement
from runner.store.store import Store
from tests.store.hands import make_spec

pytestmark = pytest.mark.anyio


async def some_of_each(hands, store: Store) -> None:
    """Two batches with jobs in all states, the states mixed in the order of submission."""
    ends = (
        Settlement(State.COMPLETED, Finish.END_TURN),
        Settlement(State.RETRYABLE, delay_ms=10**6, error="later"),
        Settlement(State.COMPLETED, Finish.MAX_CALLS),
        Settlement(State.DISCARDED, error="bad"),
        Settlement(State.SCHEDULED, delay_ms=10**6, error="much later"),
        Settlement(State.DISCARDED, Finish.STALLED),
        Settlement(State.COMPLETED, Finish.UNTIL_MET),
        None,
    )
    for batch in ("one", "two"):
        await hands.submit(*(make_spec(f"{batch}-{n}") for n in range(11)), batch=batch)
        for end in ends:
            claim = await hands.claim()
            if end is not None:
                await store.settle(claim, end)
        last = [row.key async for row in store.jobs(batch=batch)][-1]
        await store.cancel(Selection(job_keys=frozenset({last})))


@pytest.mark.parametrize("few", [0, 5_000])
@pytest.mark.parametrize("page", [1, 4, 500])
async def test_every_filter_means_the_same_however_it_is_read(
    hands, store: Store, monkeypatch: pytest.MonkeyPatch, few: int, page: int
) -> None:
    await some_of_each(hands, store)
    everything = [row async for row in store.jobs()]
    assert len(everything) == 22
    assert {row.state for row in everything} == set(State)
    monkeypatch.setattr(reads, "FEW", few)
    monkeypatch.setattr(reads, "PAGE", page)
    state_sets = [(), *combinations(State, 1), (State.AVAILABLE, State.RETRYABLE)]
    state_sets += [tuple(set(State) - {State.COMPLETED}), (State.COMPLETED, State.DISCARDED)]
    finish_sets = [(), (Finish.MAX_CALLS,), (Finish.STALLED, Finish.END_TURN), (Finish.REFUSAL,)]
    for batch in (None, "one", "none"):
        for states in state_sets:
            for finishes in finish_sets:
                found = store.jobs(batch=batch, states=states, finishes=finishes)
                assert [row.key async for row in found] == [
                    row.key
                    for row in everything
                    if batch in (None, row.batch)
                    and (not states or row.state in states)
                    and (not finishes or row.finish in finishes)
                ], (batch, states, finishes)


def test_few_is_more_than_a_page() -> None:
    assert listing.FEW >= reads.PAGE
