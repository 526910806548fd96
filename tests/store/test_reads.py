"""Reading: lists, one job, text as it grows, and whether the file is well."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import anyio
import pytest

from runner.errors import NotFound
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.spec import BatchSpec
from runner.jobs.states import Finish, State
from runner.store import reads
from runner.store.records import Settlement
from runner.store.store import Store
from tests.store.hands import make_spec, sqlite_only
from tests.strangers import a_stranger

pytestmark = pytest.mark.anyio


async def ids(store: Store, **filters) -> list[str]:
    return [job.id async for job in store.jobs(**filters)]


async def test_jobs_come_in_pages_in_the_order_of_submission(
    hands, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "PAGE", 3)
    names = [f"j{n}" for n in range(10)]
    await hands.submit(*map(make_spec, names))
    assert await ids(store) == names
    for limit in (0, 1, 3, 4, 10, 11):
        assert await ids(store, limit=limit) == names[:limit]


async def test_jobs_are_filtered(hands, store: Store) -> None:
    await hands.submit(*(make_spec(n) for n in "abcd"), batch="one")
    for finish in (Finish.END_TURN, Finish.STALLED):
        await store.settle(await hands.claim(), Settlement(State.COMPLETED, finish))
    await hands.claim()
    await hands.submit(make_spec("e"), batch="two")
    assert await ids(store, batch="one") == ["a", "b", "c", "d"]
    assert await ids(store, batch="none") == []
    assert await ids(store, states=[State.AVAILABLE, State.EXECUTING]) == ["c", "d", "e"]
    assert await ids(store, states=[State.AVAILABLE], batch="two") == ["e"]
    assert await ids(store, finishes=[Finish.STALLED]) == ["b"]
    assert await ids(store, finishes=[Finish.STALLED], states=[State.AVAILABLE]) == []


async def test_batches_have_their_counts(hands, store: Store) -> None:
    await hands.submit(*(make_spec(n) for n in "abcd"), make_spec("e", model="n"), batch="one")
    for finish in (Finish.END_TURN, Finish.STALLED):
        await store.settle(await hands.claim(), Settlement(State.COMPLETED, finish))
    await hands.claim()
    await hands.submit(batch="two")
    one, two = await store.batches()
    assert one.counts == {
        (State.AVAILABLE, None): 2,
        (State.EXECUTING, None): 1,
        (State.COMPLETED, Finish.END_TURN): 1,
        (State.COMPLETED, Finish.STALLED): 1,
    }
    assert (one.jobs, one.complete, one.cut) == (5, 1, 1)
    assert two.counts == {(State.AVAILABLE, None): 1}
    assert [b.name for b in await store.batches(["two", "none"])] == ["two"]
    assert await store.unfinished() == 4
    assert await store.unfinished([two.key]) == 1
    assert await store.unfinished([]) == 0


async def test_a_job_is_found_by_its_id_alone_or_with_its_batch(hands, store: Store) -> None:
    await hands.submit(make_spec("chapter-1"), make_spec("both"), batch="x/y")
    await hands.submit(make_spec("both"), batch="z")
    assert (await store.find_job("chapter-1")).id == "chapter-1"
    assert (await store.find_job("x/y/both")).batch == "x/y"
    with pytest.raises(NotFound, match=r"several batches .* x/y/both, z/both"):
        await store.find_job("both")
    with pytest.raises(NotFound, match="Did you mean 'chapter-1'"):
        await store.find_job("chpater-1")
    with pytest.raises(NotFound, match="in a batch 'z'"):
        await store.find_job("z/chapter-1")
    with pytest.raises(NotFound, match="runner list"):
        await store.find_job("qqqqqqqqqq")
    with pytest.raises(NotFound, match="key 99"):
        await store.spec(99)


async def test_the_data_version_changes_when_somebody_commits(hands, store: Store) -> None:
    await hands.submit()
    before = await store.data_version()
    assert await store.data_version() == before
    await hands.register()
    assert await store.data_version() != before


async def test_reading_sees_each_save_while_another_writes(hands, store, open_store) -> None:
    """As `tail` does from another process."""
    reader = await open_store()
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    seen, after = "", -1
    for seq in range(20):
        await store.save(claim, call_key, seq, f"{seq} ")
        for piece in await reader.pieces(claim.job_key, after_seq=after):
            seen, after = seen + piece.text, piece.seq
        assert seen.endswith(f"{seq} ")
    assert (await reader.calls(claim.job_key))[0].text == seen


async def test_reading_does_not_wait_for_a_writer(hands, store: Store, database: str) -> None:
    await hands.submit()
    with a_stranger(database) as stranger:
        stranger.execute("BEGIN IMMEDIATE" if store.path else "BEGIN")
        stranger.execute("UPDATE job SET priority = 99")
        with anyio.fail_after(60):
            assert (await hands.job()).priority == 0
            assert await store.batches()
        stranger.execute("ROLLBACK")


async def test_a_cancelled_read_leaves_nothing_behind(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"j{n}") for n in range(50)))
    for spins in range(60):
        reading = asyncio.ensure_future(ids(store))
        for _ in range(spins):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
    # More at once than there are connections: none was lost.
    with anyio.fail_after(60):
        assert await asyncio.gather(*(ids(store) for _ in range(8))) == [await ids(store)] * 8


async def test_a_well_database_passes_the_check(hands, store: Store) -> None:
    await hands.submit()
    claim = await hands.claim()
    await store.end_call(
        claim, await hands.begin(claim), CallOutcome(None, usage=Usage(1, 1, 1, 1))
    )
    assert await store.check() == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE job_count SET jobs = jobs + 1 WHERE state = 'available'", "kept as 2 jobs"),
        ("DELETE FROM job_count", "counted as 1 jobs"),
        ("UPDATE batch SET output_tokens = 5", "kept token sums"),
    ],
)
async def test_the_check_finds_what_is_wrong(
    hands, store: Store, database: str, statement: str, problem: str
) -> None:
    await hands.submit()
    with a_stranger(database) as stranger:
        stranger.execute(statement)
    assert problem in "\n".join(await store.check())


@sqlite_only
async def test_the_check_finds_rows_that_hang_in_the_air(hands, store, database: str) -> None:
    await hands.submit()
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript("DELETE FROM batch")
    assert "row in batch is missing" in "\n".join(await store.check())


async def test_an_empty_database(store: Store) -> None:
    assert await store.batches() == []
    assert await ids(store) == []
    assert await store.open_lanes() == []
    assert await store.next_due_ms() is None
    assert await store.unfinished() == 0
    assert await store.workers() == []
    assert await store.promote_due() == 0
    await store.submit(BatchSpec("b"), [])
    assert (await store.batches())[0].jobs == 0


async def test_calls_of_several_jobs_are_those_of_each(hands, store: Store) -> None:
    await hands.submit(*(make_spec(n) for n in "abc"))
    for number in range(2):
        claim = await hands.claim()
        call_key = await hands.begin(claim)
        for seq in range(3):
            await store.save(claim, call_key, seq, f"{number}.{seq} ")
        await store.end_call(
            claim, call_key, CallOutcome("end_turn", usage=Usage(output_tokens=seq))
        )
        await store.settle(claim, Settlement(State.COMPLETED, Finish.END_TURN))
    jobs = [job async for job in store.jobs()]
    found = await store.calls_of([job.key for job in jobs])
    assert found == {job.key: await store.calls(job.key) for job in jobs}
    assert [call.text for call in found[jobs[0].key]] == ["0.0 0.1 0.2 "]
    assert await store.unchanged(jobs) == {job.key for job in jobs}
    await hands.claim()
    assert await store.unchanged(jobs) == {job.key for job in jobs[:2]}
