"""A server takes over from one that failed, and has not heard of the last commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy.engine import make_url

from runner.errors import ClaimLost, StoreBlocked
from runner.jobs.call import Verdict
from runner.jobs.spec import BatchSpec, JobSpec
from runner.jobs.states import Finish, State
from runner.store.reading import ReadingStore
from runner.store.records import OnConflict, Settlement
from runner.store.store import Store
from tests.postgres import Server
from tests.proxy import Proxy, Trouble, a_proxy
from tests.store.hands import Hands, make_spec

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def a_worker(server: Server) -> AsyncIterator[tuple[Store, Hands, Proxy]]:
    """A worker's store behind a proxy, so that it can be led to another server."""
    database = server.empty()
    with a_proxy(database) as (proxy, through):
        async with await Store.open(through) as store:
            store.wait_when_blocked(lambda _: None)
            yield store, Hands(store), proxy
    server.drop(database)


async def texts(store: Store, job_key: int) -> list[str]:
    return [piece.text for piece in await store.pieces(job_key)]


async def test_nothing_is_built_on_text_that_the_new_server_never_had(
    postgres_server: Server,
) -> None:
    async with a_worker(postgres_server) as (store, hands, proxy):
        await hands.submit(*(make_spec(name) for name in "abcd"))
        claim, settled, ended = [await hands.claim() for _ in "abc"]
        key, settled_key, ended_key = [await hands.begin(c) for c in (claim, settled, ended)]
        await store.save(claim, key, 0, "one")
        with postgres_server.standby() as standby:
            await store.save(claim, key, 1, "two")
            await store.save(settled, settled_key, 0, "the whole of it")
            last = await hands.claim()  # its number is 1
            proxy.lead_to(standby)
            with pytest.raises(ClaimLost):
                await store.save(claim, key, 2, "three")
            with pytest.raises(ClaimLost):
                await store.settle(settled, Settlement(State.COMPLETED, finish=Finish.END_TURN))
            with pytest.raises(ClaimLost):
                await store.judge(ended, ended_key, Verdict.EXACT)
            # Nothing is held any more, and the process notices by its lease.
            assert await store.workers() == []
            assert not await store.renew_lease("w1", lease_ms=60_000)
            states = {row.id: row.state async for row in store.jobs()}
            assert states == dict.fromkeys("abcd", State.AVAILABLE)
            assert await texts(store, claim.job_key) == ["one"]
            # The next who claims the last job gets the very number that was given out before.
            heirs = [await hands.claim("w2") for _ in "abcd"]
            assert replace(heirs[3], worker_id="w1") == last
            with pytest.raises(ClaimLost):
                await hands.begin(last)
            with pytest.raises(ClaimLost):
                await store.save(last, await hands.begin(heirs[3]), 0, "mine")
            await store.save(heirs[0], await hands.begin(heirs[0], 2), 1, "two, again")
            assert await texts(store, claim.job_key) == ["one", "two, again"]
            assert await store.check() == []


async def test_a_commit_in_doubt_is_not_asked_of_the_new_server(postgres_server: Server) -> None:
    """There another transaction may have had its number."""
    async with a_worker(postgres_server) as (store, hands, proxy):
        await hands.submit()
        claim = await hands.claim()
        key = await hands.begin(claim)
        with postgres_server.standby() as standby:
            proxy.then = standby
            proxy.trouble = Trouble.LOSE_ANSWER
            with pytest.raises(ClaimLost):
                await store.save(claim, key, 0, "text")
            assert proxy.cuts == 1
            assert await texts(store, claim.job_key) == []


async def test_a_submission_that_was_half_way_is_whole(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.store.submit.SLICE_JOBS", 10)
    async with a_worker(postgres_server) as (store, hands, proxy):
        await hands.submit(make_spec("j0"))
        with postgres_server.standby() as standby:

            def jobs() -> Iterator[JobSpec]:
                for number in range(60):
                    if number == 35 and not proxy.then:
                        proxy.then = standby
                        proxy.lead_to(standby)
                    yield make_spec(f"j{number}")

            # KEEP: so that they are read to be put in the queue alone, and not to be compared first.
            await store.submit(BatchSpec("b"), jobs, on_conflict=OnConflict.KEEP)
            assert await store.unfinished() == 60
            assert await store.check() == []


async def test_one_that_stands_by_is_not_worked_on(postgres_server: Server) -> None:
    """It lags behind: a worker would not find there what it has just written."""
    database = make_url(postgres_server.empty())
    with postgres_server.standby(promoted=False) as standby:
        there = database.set(query=standby.query).render_as_string(hide_password=False)
        for opening in (Store.open(there), ReadingStore.open_to_read(there)):
            with pytest.raises(StoreBlocked, match="stands by for another"):
                await opening
    postgres_server.drop(database.render_as_string(hide_password=False))
