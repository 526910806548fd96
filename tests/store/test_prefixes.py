"""Beginnings that jobs share: counted at submission, led by one process at a time."""

from __future__ import annotations

import pytest

from runner.jobs.beginnings import beginnings
from runner.jobs.spec import Caching
from runner.store.prefixes import SharedPrefix
from runner.store.records import OnConflict, Selection
from tests.store.hands import Clock, Hands, make_spec

pytestmark = pytest.mark.anyio

LONG = "word " * 1_000
LEASE_MS = 20_000


def job(id: str, system: str | None = LONG, **changes):
    return make_spec(id, system=system, **changes)


SYSTEM, WHOLE = (one.hash for one in beginnings(job("a")))


async def shared(hands: Hands) -> dict[bytes, SharedPrefix]:
    return {row.hash: row for row in await hands.store.shared_prefixes(hands.batch_key)}


async def counts(hands: Hands) -> dict[bytes, int]:
    return {key: row.jobs for key, row in (await shared(hands)).items()}


async def test_what_jobs_share_is_counted_and_nothing_else(hands: Hands) -> None:
    await hands.submit(
        *(job(str(n)) for n in range(5)),
        job("short", "brief"),
        job("alone", LONG + "!"),
        job("off", caching=Caching.OFF),
    )
    assert await counts(hands) == {SYSTEM: 5}
    # One more of what is known counts; the same again does not.
    await hands.submit(job("later"))
    await hands.submit(job("later"))
    assert (await shared(hands))[SYSTEM].jobs == 6


async def test_the_same_prompt_many_times_is_shared_whole(hands: Hands) -> None:
    same = {"messages": job("a").messages}
    await hands.submit(*(job(str(n), **same) for n in range(3)))
    assert await counts(hands) == {SYSTEM: 3, WHOLE: 3}


async def test_a_replaced_prompt_counts_with_its_new_beginning(hands: Hands) -> None:
    await hands.submit(job("a"), job("b"))
    other = LONG + "another"
    await hands.submit(job("a", other), job("b", other), on_conflict=OnConflict.REPLACE)
    assert [row.jobs for row in (await shared(hands)).values()] == [2, 2]


async def test_a_first_call_leaves_one_job_less_to_come(hands: Hands) -> None:
    await hands.submit(job("a"), job("b"))
    for _ in range(2):
        await hands.begin(await hands.claim(), beginnings=(SYSTEM,))
    assert (await shared(hands))[SYSTEM].jobs == 0


async def test_one_leads_until_it_is_warm_or_given_up_or_late(
    hands: Hands, clock: Clock, open_store
) -> None:
    await hands.submit(job("a"), job("b"))
    other = await open_store()
    key, store = hands.batch_key, hands.store

    def until() -> int:
        return clock() + LEASE_MS

    mine = until()
    assert await store.lead_beginning(key, SYSTEM, mine)
    assert not await other.lead_beginning(key, SYSTEM, until())
    other.beginning_given_up(key, SYSTEM, mine + 1)  # not its own
    assert not await other.lead_beginning(key, SYSTEM, until())
    store.beginning_given_up(key, SYSTEM, mine)
    assert await store.lead_beginning(key, SYSTEM, until())
    clock.ms += LEASE_MS  # its process died
    assert await other.lead_beginning(key, SYSTEM, until())
    other.beginning_warmed(key, SYSTEM, clock() + 300_000)
    assert not await other.lead_beginning(key, SYSTEM, until())
    row = (await shared(hands))[SYSTEM]
    assert (row.warm_until_ms, row.warming_until_ms) == (clock() + 300_000, 0)
    clock.ms += 300_000
    assert await store.lead_beginning(key, SYSTEM, until())
    assert not await store.lead_beginning(key, b"unknown", until())


async def test_it_goes_with_its_batch(hands: Hands) -> None:
    await hands.submit(job("a"), job("b"))
    await hands.store.cancel(Selection(batch="b"))
    await hands.store.prune(Selection(batch="b"))
    assert await shared(hands) == {}
