"""A batch that is copied to another database is the same there, and goes on at one place only."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from runner.errors import NotFound, StoreError, StoreUnavailable, UsageError
from runner.jobs.call import CallOutcome, Charge, Usage, Verdict
from runner.jobs.price import Rates
from runner.jobs.spec import BatchLimits, BatchSpec, ContinuationSpec
from runner.jobs.states import Finish, State
from runner.jobs.traits import PrefillAnswer
from runner.store import copy_rows, copying
from runner.store.bare import Driver
from runner.store.copy_marks import leave
from runner.store.copying import CopyReceipt, copy_batch
from runner.store.database import the_database
from runner.store.records import (
    CallStart,
    Claim,
    Lane,
    PauseCause,
    Reservation,
    Selection,
    Settlement,
)
from runner.store.schema import metadata
from runner.store.store import Store
from tests.places import Databases, Files, Place
from tests.postgres import Server
from tests.proxy import a_proxy
from tests.store.hands import Hands, make_spec

pytestmark = pytest.mark.anyio

ROUTES = (("sqlite", "postgres"), ("postgres", "sqlite"))
ALL_ROUTES = (*ROUTES, ("sqlite", "sqlite"), ("postgres", "postgres"))
CHILD_TABLES = ("job_spec", "call", "chunk", "job_event")
ENDS = (
    Settlement(State.COMPLETED, Finish.END_TURN),
    Settlement(State.COMPLETED, Finish.MAX_CALLS),
    Settlement(State.DISCARDED, error="cannot work"),
    Settlement(State.RETRYABLE, error="529 überlastet", delay_ms=900_000),
    Settlement(State.SCHEDULED, error="429", delay_ms=900_000),
    Settlement(State.AVAILABLE),
)
TEXTS = (
    "",
    "a",
    "Es war einmal ",
    "\n\n",
    "漢字 🦊",
    "\ud83e",
    "'; DROP TABLE job;--",
    "x" * 9_000,
)


@pytest.fixture
def places(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Place]:
    return {
        "sqlite": Files(
            request.getfixturevalue("empty_database"), tmp_path_factory.mktemp("databases")
        ),
        "postgres": Databases(request.getfixturevalue("postgres_server")),
    }


class Queues:
    """New databases that are gone with the test."""

    def __init__(self, places: dict[str, Place]) -> None:
        self._places = places
        self._made: list[tuple[Place, str]] = []

    def new(self, kind: str) -> str:
        place = self._places[kind]
        self._made.append((place, place.new()))
        return self._made[-1][1]

    def drop(self) -> None:
        for place, name in self._made:
            place.drop(name)


@pytest.fixture
def queues(places: dict[str, Place]) -> Iterator[Queues]:
    made = Queues(places)
    yield made
    made.drop()


def everything(database: str, batch: str) -> dict[str, Any]:
    """All rows of a batch by their columns, with places in an order instead of keys."""
    # In a thread, because the test that asks may be in an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_everything, database, batch).result()


def _everything(database: str, batch: str) -> dict[str, Any]:

    def read(sql: Driver) -> dict[str, Any]:
        def rows(table: str, where: str, order: str, *values: Any) -> list[dict[str, Any]]:
            names = [column.name for column in metadata.tables[table].columns]
            found = sql.execute(
                f"SELECT {', '.join(names)} FROM {table} WHERE {where} ORDER BY {order}",  # noqa: S608
                values,
            )
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

        (head,) = rows("batch", "name = ?", "key", batch)
        key = head.pop("key")
        jobs = rows("job", "batch_key = ?", "key", key)
        tables = {
            table: {
                job["id"]: rows(
                    table,
                    "job_key = ?",
                    {"chunk": "seq", "job_spec": "job_key"}.get(table, "key"),
                    job["key"],
                )
                for job in jobs
            }
            for table in CHILD_TABLES
        }
        calls = {
            row["key"]: number
            for found in tables["call"].values()
            for number, row in enumerate(found)
        }
        for found in tables["chunk"].values():
            for row in found:
                row["call_key"] = calls[row["call_key"]]
        for name in ("copied_to", "copied_from"):
            head.pop(name)
        kept = {
            "learned": rows("learned", "batch_key = ?", "model, number", key),
            "shared_prefix": rows("shared_prefix", "batch_key = ?", "hash", key),
            "job_count": rows("job_count", "batch_key = ? AND jobs > 0", "1, 2, 3, 4", key),
            "model_memory": rows("model_memory", "1 = 1", "endpoint, model"),
        }
        for some in (jobs, *kept.values(), *(r for t in tables.values() for r in t.values())):
            for row in some:
                for name in ("key", "job_key", "batch_key"):
                    row.pop(name, None)
        for some in (*kept.values(), jobs):
            for row in some:
                row |= {name: bytes(v) for name, v in row.items() if name == "hash"}
        return {"batch": head, "job": jobs, **tables, **kept}

    return the_database(database).look(read)


async def some_queue(
    store: Store, random: Random, texts: tuple[str, ...] = TEXTS, jobs: int | None = None
) -> None:
    """Jobs in all states there are, some with long stories."""
    shared = "Read this first. " * 400
    specs = [
        make_spec(
            f"job-{n}",
            system=shared if n % 2 else None,
            metadata={"of": random.choice(TEXTS), "n": n},
            priority=n % 3,
            continuation=ContinuationSpec(max_calls=9),
        )
        for n in range(jobs or random.randrange(1, 7))
    ]
    await store.submit(BatchSpec("other"), [make_spec("elsewhere")])
    limits = BatchLimits(max_cost_nano_usd=10**12, concurrency=7)
    receipt = await store.submit(BatchSpec("b", limits), specs)
    await store.submit(BatchSpec("other"), [make_spec("again")])
    await store.remember("https://x", "m", PrefillAnswer.REFUSED)
    await store.register_worker("w", host=socket.gethostname(), pid=1, lease_ms=60_000)
    for _ in range(2 * jobs if jobs else random.randrange(8)):
        claims = await store.claim("w", [Lane(receipt.batch_key, "m", 9)], 1)
        for claim in claims:
            await _worked_on(store, claim, random, texts)
        if random.random() < 0.3:
            await store.retry(Selection(batch="b"), afresh=random.random() < 0.5)
        if random.random() < 0.2:
            await store.cancel(Selection(job_keys=tuple(c.job_key for c in claims)))
    if random.random() < 0.5:
        cause = random.choice([cause for cause in PauseCause if cause is not PauseCause.COPY])
        await store.pause(receipt.batch_key, cause, "because")
    await store.retire_worker("w")


async def _worked_on(store: Store, claim: Claim, random: Random, texts: tuple[str, ...]) -> None:
    loaded = await store.load(claim)
    seq, number = loaded.next_seq, len(loaded.calls)
    for _ in range(random.randrange(4)):
        number += 1
        start = CallStart(
            number,
            None,
            random.randrange(3),
            100,
            "m",
            reservation=Reservation(random.randrange(10**6), 100),
            rates=random.choice([Rates(1, 5, 1, 2, 0), Rates(1, 1, 1, 1, 1)]),
        )
        call = await store.begin_call(claim, start)
        for _ in range(random.randrange(3)):
            await store.save(claim, call, seq, random.choice(texts))
            seq += 1
        if random.random() < 0.5:
            await store.judge(claim, call, Verdict.EXACT)
        outcome = CallOutcome(
            random.choice(["max_tokens", "end_turn", None]),
            usage=Usage(input_tokens=random.randrange(99), output_tokens=7),
            stop_details={"why": "not"} if random.random() < 0.2 else None,
            rejected=random.choice([None, "I cannot go on."]),
            charge=random.choice([Charge(), Charge(1234, 5, 6)]),
            request_id="req_1",
            text_characters=9,
        )
        await store.end_call(claim, call, outcome)
    await store.settle(claim, random.choice(ENDS))


async def copied(source: str, target: str, batch: str = "b", **options: Any) -> CopyReceipt:
    async with await Store.open(source) as here, await Store.open(target) as there:
        return await copy_batch(here, there, batch, max_rescues=3, **options)


@pytest.mark.parametrize("route", ROUTES, ids="-to-".join)
@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=4,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # the seed says it all, and nothing is gained by a smaller one
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_there_and_back_it_is_the_same(
    places: dict[str, Place], route: tuple[str, str], seed: int
) -> None:
    """With slices so small that a story of several jobs takes several of them."""
    made = Queues(places)
    first, second, third = (made.new(kind) for kind in (*route, route[0]))

    async def there_and_back() -> None:
        async with await Store.open(first) as store:
            await some_queue(store, Random(seed))
        before = everything(first, "b")
        await copied(first, second)
        assert everything(second, "b") == before
        await copied(second, third)
        assert everything(third, "b") == before
        async with await Store.open(third) as store:
            assert await store.check() == []
            assert [row.name for row in await store.batches()] == ["b"]
        async with await Store.open(first) as store:
            assert await store.check() == []

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(copy_rows, "LOOKED_AT_ONCE", 3)
            patch.setattr(copy_rows, "SLICE_ROWS", 4)
            patch.setattr(copy_rows, "PREFIXES_AT_ONCE", 1)
            asyncio.run(there_and_back())
    finally:
        made.drop()


@pytest.mark.parametrize("route", ALL_ROUTES, ids="-to-".join)
async def test_it_goes_on_at_one_place_only(queues: Queues, route: tuple[str, str]) -> None:
    first, second = (queues.new(kind) for kind in route)
    async with await Store.open(first) as here, await Store.open(second) as there:
        (key, other) = [
            (await here.submit(BatchSpec(name), [make_spec(name)])).batch_key for name in "bo"
        ]
        receipt = await copy_batch(here, there, "b", max_rescues=3)
        assert receipt == CopyReceipt("b", 1, 0, 0)
        # Where it was: nothing is claimed, queued or lifted but on purpose.
        await here.register_worker("w", host="here", pid=1, lease_ms=60_000)
        assert await here.claim("w", [Lane(key, "m", 9)], 9) == []
        assert [lane.batch_key for lane in await here.open_lanes()] == [other]
        with pytest.raises(
            UsageError, match=r"it was copied to .*goes on there.*resume b --copied"
        ):
            await here.submit(BatchSpec("b"), [make_spec("new")])
        assert not await here.resume(key)
        await here.pause(key, PauseCause.USER, "mine")
        assert not await here.resume(key)
        # Where it is now: it goes on.
        await there.register_worker("w", host="here", pid=1, lease_ms=60_000)
        (row,) = await there.batches()
        assert [c.job_id for c in await there.claim("w", [Lane(row.key, "m", 9)], 9)] == ["b"]
        # The same again changes nothing, and it goes nowhere else.
        assert await copy_batch(here, there, "b", max_rescues=3) == CopyReceipt("b", 1, 1, 0)
        async with await Store.open(queues.new(route[0])) as elsewhere:
            with pytest.raises(UsageError, match="is not here any more"):
                await copy_batch(here, elsewhere, "b", max_rescues=3)
            assert await elsewhere.batches() == []
            assert await here.bring_back("b")
            assert not await here.bring_back("b")
            await copy_batch(here, elsewhere, "b", max_rescues=3)
        with pytest.raises(NotFound):
            await copy_batch(here, there, "nobody", max_rescues=3)


@pytest.mark.parametrize("route", ROUTES, ids="-to-".join)
async def test_nothing_is_overwritten(queues: Queues, route: tuple[str, str]) -> None:
    first, second = (queues.new(kind) for kind in route)
    async with await Store.open(first) as here, await Store.open(second) as there:
        await here.submit(BatchSpec("b"), [make_spec("mine")])
        await there.submit(BatchSpec("b"), [make_spec("theirs")])
        with pytest.raises(UsageError, match=r"of its own, and nothing is ever overwritten.*prune"):
            await copy_batch(here, there, "b", max_rescues=3, afresh=True)
        (row,) = await here.batches()
        assert row.paused is None
        assert (await there.find_job("b/theirs")).state is State.AVAILABLE
        # As it tells: removed there, it can be copied; and then it does not come back over itself.
        await there.cancel(Selection(batch="b"))
        await there.prune(Selection(batch="b"))
        await copy_batch(here, there, "b", max_rescues=3)
        with pytest.raises(UsageError, match="still has the batch 'b' that was copied away"):
            await copy_batch(there, here, "b", max_rescues=3)


@contextmanager
def another_schema(database: str, server: Server) -> Iterator[str]:
    """A URL of the same database, whose user works in a schema of his own."""
    name = f"other_{uuid4().hex}"
    url = make_url(database)
    server.run(
        f"CREATE ROLE {name} LOGIN SUPERUSER",
        f"CREATE SCHEMA {name}",
        f"ALTER ROLE {name} SET search_path = {name}",
        database=str(url.database),
    )
    yield url.set(username=name).render_as_string(hide_password=False)
    server.run(f"DROP SCHEMA {name} CASCADE", f"DROP ROLE {name}", database=str(url.database))


async def test_a_copy_that_was_begun_is_finished_at_its_own_place_alone(
    queues: Queues, postgres_server: Server
) -> None:
    """By whatever name that is reached; and another schema of it is another place."""
    first, second = queues.new("sqlite"), queues.new("postgres")
    with another_schema(second, postgres_server) as other, a_proxy(second) as (_, through):
        async with AsyncExitStack() as stores:
            here, there, elsewhere, again = [
                await stores.enter_async_context(await Store.open(name))
                for name in (first, second, other, through)
            ]
            assert there.database.shown == elsewhere.database.shown
            await here.submit(BatchSpec("b"), [make_spec("a")])
            place, shown = await asyncio.to_thread(there.database.identity), there.database.shown
            await here.apply(  # and then it was killed
                partial(leave, name="b", copy_id="1", to=shown, place=place, wait=False)
            )
            with pytest.raises(UsageError, match="has the same name, but is another one"):
                await copy_batch(here, elsewhere, "b", max_rescues=3)
            assert await elsewhere.batches() == []
            assert (await copy_batch(here, again, "b", max_rescues=3)).jobs == 1
            assert len(await there.open_lanes()) == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_what_is_worked_on_is_waited_for(queues: Queues, kind: str) -> None:
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(await Store.open(queues.new(kind)))
        there = await stack.enter_async_context(await Store.open(queues.new("sqlite")))
        key = (await here.submit(BatchSpec("b"), [make_spec("a"), make_spec("z")])).batch_key
        await here.register_worker("wwww", host="far", pid=4711, lease_ms=60_000)
        (claim,) = await here.claim("wwww", [Lane(key, "m", 1)], 1)
        with pytest.raises(StoreUnavailable, match=r"process 4711 on far \(worker wwww\).*--wait"):
            await copy_batch(here, there, "b", max_rescues=3)
        (row,) = await here.batches()
        assert (row.paused, await there.batches()) == (None, [])
        waiting = asyncio.ensure_future(copy_batch(here, there, "b", max_rescues=3, wait=True))
        while (await here.batches())[0].paused is None:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0)
        assert await here.claim("wwww", [Lane(key, "m", 1)], 1) == []
        call = await here.begin_call(claim, CallStart(1, None, 0, 100, "m"))
        await here.save(claim, call, 0, "the last words")
        await here.end_call_and_settle(
            claim, call, CallOutcome("max_tokens"), Settlement(State.AVAILABLE)
        )
        assert (await waiting).jobs == 2
        (saved,) = await there.calls((await there.find_job("a")).key)
        assert saved.text == "the last words"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_jobs_of_the_dead_are_freed_first(queues: Queues, kind: str) -> None:
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(await Store.open(queues.new(kind)))
        there = await stack.enter_async_context(await Store.open(queues.new(kind)))
        key = (await here.submit(BatchSpec("b"), [make_spec("a")])).batch_key
        await here.register_worker("w", host=socket.gethostname(), pid=1, lease_ms=-1)
        (claim,) = await here.claim("w", [Lane(key, "m", 1)], 1)
        if kind == "sqlite":  # the kernel drops the lock of one that died
            os.close(here._locks._held.pop("w"))
        call = await here.begin_call(claim, CallStart(1, None, 0, 100, "m"))
        await here.save(claim, call, 0, "saved")
        await copy_batch(here, there, "b", max_rescues=3)
        job = await there.find_job("a")
        assert (job.state, job.rescues, job.claim) == (State.AVAILABLE, 1, 1)
        (saved,) = await there.calls(job.key)
        assert (saved.text, saved.ended_ms is not None) == ("saved", True)
        assert await there.check() == []


async def test_a_server_holds_no_nul_and_says_so(queues: Queues) -> None:
    first, second = queues.new("sqlite"), queues.new("postgres")
    async with await Store.open(first) as store:
        hands = Hands(store)
        await hands.submit(make_spec("a", metadata={"nul": "\0"}))
        claim = await hands.claim()
        call = await hands.begin(claim)
        for seq, text in enumerate(("a\0b", "\0\0", "end")):
            await store.save(claim, call, seq, text)
        await store.end_call_and_settle(
            claim, call, CallOutcome("max_tokens"), Settlement(State.AVAILABLE)
        )
    assert (await copied(first, second)).lost_nuls == 3
    async with await Store.open(second) as store:
        job = await store.find_job("a")
        (saved,) = await store.calls(job.key)
        assert (saved.text, job.metadata) == ("a\ufffdb\ufffd\ufffdend", {"nul": "\0"})


class InTheMiddle:
    """As a copy's progress: once two jobs have arrived, the owner gives an order at the old place,
    while the copy stands still."""

    def __init__(self, database: str, order: Callable[[Store], Awaitable[Any]]) -> None:
        self._database = database
        self._order = order
        self.given: list[Any] = []

    def __call__(self, jobs: int, _of: int) -> None:
        if jobs == 2 and not self.given:
            with ThreadPoolExecutor(1) as thread:
                self.given.append(thread.submit(asyncio.run, self._give()).result())

    async def _give(self) -> Any:
        async with await Store.open(self._database) as owner:
            return await self._order(owner)


@pytest.mark.parametrize("route", ROUTES, ids="-to-".join)
async def test_an_order_in_the_middle_is_noticed(
    queues: Queues, route: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what has arrived can be thrown away, but never what is whole."""
    monkeypatch.setattr(copy_rows, "SLICE_ROWS", 0)
    monkeypatch.setattr(copy_rows, "SLICE_CHARACTERS", 1)
    first, second = (queues.new(kind) for kind in route)
    async with await Store.open(first) as here, await Store.open(second) as there:
        await here.submit(BatchSpec("b"), [make_spec(f"j{n}") for n in range(4)])
        progress = InTheMiddle(first, lambda owner: owner.cancel(Selection(batch="b")))
        with pytest.raises(StoreError, match=r"changed by an order.*--afresh"):
            await copy_batch(here, there, "b", max_rescues=3, progress=progress)
        assert progress.given == [4]
        (half,) = await there.batches()
        assert half.paused is PauseCause.COPY
        assert "not whole yet" in (half.pause_reason or "")
        with pytest.raises(UsageError, match="being copied here"):
            await there.submit(BatchSpec("b"), [make_spec("new")])
        assert not await there.bring_back("b")
        with pytest.raises(StoreError, match="cannot be copied: it is being copied here"):
            async with await Store.open(queues.new("sqlite")) as elsewhere:
                await copy_batch(there, elsewhere, "b", max_rescues=3)
        assert (await copy_batch(here, there, "b", max_rescues=3, afresh=True)).jobs == 4
        (whole,) = await there.batches()
        assert (whole.count(State.CANCELLED), whole.paused) == (4, None)
        assert (await copy_batch(here, there, "b", max_rescues=3, afresh=True)).again == 4


async def retry_one_and_cancel_another(owner: Store) -> None:
    first, second = [row.key async for row in owner.jobs()][:2]
    await owner.retry(Selection(job_keys=(first,)))
    await owner.cancel(Selection(job_keys=(second,)))


async def cancel_and_retry_afresh(owner: Store) -> None:
    (second,) = [row.key async for row in owner.jobs() if row.id == "j1"]
    await owner.cancel(Selection(job_keys=(second,)))
    await owner.retry(Selection(job_keys=(second,)), afresh=True)


@pytest.mark.parametrize("route", ROUTES, ids="-to-".join)
@pytest.mark.parametrize("order", [retry_one_and_cancel_another, cancel_and_retry_afresh])
async def test_orders_that_leave_the_counts_equal_are_noticed(
    queues: Queues,
    route: tuple[str, str],
    order: Callable[[Store], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copy_rows, "SLICE_CHARACTERS", 1)
    monkeypatch.setattr(copy_rows, "COUNTED_AT_ONCE", 3)
    first, second = (queues.new(kind) for kind in route)
    async with await Store.open(first) as here, await Store.open(second) as there:
        await here.submit(BatchSpec("b"), [make_spec(f"j{n}") for n in range(4)])
        await here.cancel(Selection(job_keys=((await here.find_job("j0")).key,)))
        progress = InTheMiddle(first, order)
        before = (await here.batches())[0].counts
        with pytest.raises(StoreError, match=r"changed by an order.*--afresh"):
            await copy_batch(here, there, "b", max_rescues=3, progress=progress)
        assert (await here.batches())[0].counts == before
        assert (await copy_batch(here, there, "b", max_rescues=3, afresh=True)).jobs == 4
    assert everything(second, "b")["job_event"] == everything(first, "b")["job_event"]


async def test_limits_that_change_in_the_middle_go_along(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_rows, "SLICE_CHARACTERS", 1)
    first, second = queues.new("sqlite"), queues.new("sqlite")
    async with await Store.open(first) as here, await Store.open(second) as there:
        await here.submit(BatchSpec("b"), [make_spec(f"j{n}") for n in range(4)])
        key = (await here.batches())[0].key
        progress = InTheMiddle(first, lambda owner: owner.set_limits(key, {"concurrency": 7}))
        await copy_batch(here, there, "b", max_rescues=3, progress=progress)
        assert len(progress.given) == 1
        assert (await there.batches())[0].limits.concurrency == 7


async def test_an_owner_who_lets_it_go_on_in_the_middle_is_heard(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go on at both places, and both would pay."""
    monkeypatch.setattr(copy_rows, "SLICE_CHARACTERS", 1)
    first, second = queues.new("sqlite"), queues.new("sqlite")
    async with await Store.open(first) as here, await Store.open(second) as there:
        await here.submit(BatchSpec("b"), [make_spec(f"j{n}") for n in range(3)])
        progress = InTheMiddle(first, lambda owner: owner.bring_back("b"))
        with pytest.raises(StoreError, match=r"let go on by its owner.*--afresh"):
            await copy_batch(here, there, "b", max_rescues=3, progress=progress)
        assert progress.given == [True]
        assert len(await here.open_lanes()) == 1
        assert await there.open_lanes() == []
        assert (await copy_batch(here, there, "b", max_rescues=3, afresh=True)).jobs == 3
        assert (await here.open_lanes(), len(await there.open_lanes())) == ([], 1)


async def test_long_documents_are_copied_in_slices_that_fit(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no text is read to make them: a server would not live to see the end of it."""
    assert "text" not in copy_rows.SIZES
    found: list[copy_rows.Slice] = []
    first = queues.new("sqlite")
    async with await Store.open(first) as store:
        hands = Hands(store)
        await hands.submit(*(make_spec(f"j{n}") for n in range(4)))
        for number in range(4):
            claim = await hands.claim()
            call = await hands.begin(claim)
            for seq in range(3):
                await store.save(claim, call, seq, "x" * 40)
            usage = Usage(output_tokens=1_000 if number == 3 else 30)
            await store.end_call(claim, call, CallOutcome("end_turn", usage=usage))
            await store.settle(claim, Settlement(State.COMPLETED, Finish.END_TURN))
        for rows, characters, jobs in ((6, 10**9, [2, 2]), (10**9, 2_000, [3, 1])):
            monkeypatch.setattr(copy_rows, "SLICE_ROWS", rows)
            monkeypatch.setattr(copy_rows, "SLICE_CHARACTERS", characters)
            found = list(copy_rows.slices(store.database, hands.batch_key, 0))
            assert [len(one.jobs) for one in found] == jobs
            assert sum(len(one.chunks) for one in found) == 12


async def test_of_two_copies_at_once_one_goes_on(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_rows, "SLICE_CHARACTERS", 1)
    first, second = queues.new("sqlite"), queues.new("postgres")
    async with await Store.open(first) as here:
        await here.submit(BatchSpec("b"), [make_spec(f"j{n}") for n in range(6)])
        before = everything(first, "b")
    ends = await asyncio.gather(*(copied(first, second) for _ in range(3)), return_exceptions=True)
    assert [end for end in ends if isinstance(end, CopyReceipt)]
    assert all(isinstance(end, (CopyReceipt, StoreError, UsageError)) for end in ends)
    assert everything(second, "b") == before


# Deaths in the middle

COPY = """
import sys
from runner.store import copy_rows, copying
copy_rows.SLICE_CHARACTERS = 1
from runner.cli.main import main
main(["db", "copy", *sys.argv[1:]])
"""


def dying_copy(source: str, target: str, fault: str) -> int:
    child = subprocess.run(
        [sys.executable, "-c", COPY, source, target, "--batch", "b"],
        env=os.environ | {"RUNNER_FAULT": fault},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in child.stderr, child.stderr.decode()
    return child.returncode


@pytest.mark.parametrize("route", ROUTES, ids="-to-".join)
async def test_a_copy_that_is_killed_is_finished_by_the_same_command(
    queues: Queues, route: tuple[str, str]
) -> None:
    """And until it is, nobody works on it at either place."""
    first, second = (queues.new(kind) for kind in route)
    async with await Store.open(first) as here, await Store.open(second) as there:
        await some_queue(here, Random(3), jobs=5)
        before = everything(first, "b")
        # Its commits: the mark, what is shared, the batch, and a slice a job; later the mark again
        # (nothing changes) and the slices that are missing.
        for fault, arrived in (
            ("commit.before:4", 0),
            ("commit.after:2", 1),
            ("commit.before:4", 3),
        ):
            assert dying_copy(first, second, fault) == -signal.SIGKILL
            assert len(everything(second, "b")["job"]) == arrived
            assert await here.open_lanes([row.key for row in await here.batches(["b"])]) == []
            assert await there.open_lanes() == []
        assert dying_copy(first, second, "") == 0
        assert everything(second, "b") == before
        assert await there.check() == []
        (here_row,) = await here.batches(["b"])
        assert (here_row.paused, "goes on there" in (here_row.pause_reason or "")) == (
            PauseCause.COPY,
            True,
        )


async def test_it_dies_before_its_last_word(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it has arrived and goes on there; only the mark where it left does not say so yet."""
    first, second = queues.new("sqlite"), queues.new("sqlite")

    def dies(*_: Any, **__: Any) -> None:
        raise StoreError("died")

    async with await Store.open(first) as here, await Store.open(second) as there:
        await here.submit(BatchSpec("b"), [make_spec("a")])
        with monkeypatch.context() as patch:
            patch.setattr(copying, "left", dies)
            with pytest.raises(StoreError, match="died"):
                await copy_batch(here, there, "b", max_rescues=3)
        assert await here.open_lanes() == []
        (before,) = await here.batches()
        assert "is being copied" in (before.pause_reason or "")
        assert len(await there.open_lanes()) == 1
        await copy_batch(here, there, "b", max_rescues=3)
        (after,) = await here.batches()
        assert "goes on there" in (after.pause_reason or "")


def test_a_password_stands_in_no_mark(tmp_path: Path) -> None:
    assert "secret" not in the_database("postgresql://me:secret@h/d").shown
