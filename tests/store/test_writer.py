"""The writer: group commits, and what one operation's trouble does to its neighbours."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection

from runner.errors import ClaimLost, StoreError, StoreUnavailable
from runner.store import engine, writer
from runner.store.sqlite import SqliteFile
from runner.store.writer import Writer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def scratch(tmp_path: Path):
    path = tmp_path / "scratch.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)")
    scratch = Writer(SqliteFile(path))
    yield scratch
    await scratch.close()


def add(number: int):
    def operation(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO note VALUES (?, '')", (number,))
        return number

    return operation


def notes(scratch: Writer) -> list[int]:
    """What is committed, as anybody else sees it."""
    with closing(sqlite3.connect(scratch._database.path)) as connection:
        return [n for (n,) in connection.execute("SELECT id FROM note ORDER BY id")]


class Gate:
    """An operation that holds the writer until it is let go, so that others wait behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()

    def __call__(self, _connection: Connection) -> None:
        self.entered.set()
        assert self.released.wait(200)

    async def shut(self, scratch: Writer) -> asyncio.Future[None]:
        future = scratch.submit(self)
        await asyncio.to_thread(self.entered.wait, 10)
        return future


async def test_all_that_waits_is_one_transaction(scratch: Writer) -> None:
    gate = Gate()
    await gate.shut(scratch)
    begun = []
    engine.event.listen(scratch._session._engine, "begin", lambda _: begun.append(1))
    futures = [scratch.submit(add(n)) for n in range(writer.BATCH_SIZE + 1)]
    gate.released.set()
    assert await asyncio.gather(*futures) == list(range(writer.BATCH_SIZE + 1))
    assert len(begun) == 2


async def test_an_answer_means_that_it_is_committed(scratch: Writer) -> None:
    for number in range(50):
        await scratch.run(add(number))
        assert number in notes(scratch)


async def test_a_lost_claim_does_not_spoil_its_neighbours(scratch: Writer) -> None:
    def refused(connection: Connection) -> None:
        raise ClaimLost("gone")

    gate = Gate()
    await gate.shut(scratch)
    begun = []
    engine.event.listen(scratch._session._engine, "begin", lambda _: begun.append(1))
    futures = [scratch.submit(op) for op in (add(1), refused, add(2))]
    gate.released.set()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert [str(a) for a in answers] == ["1", "gone", "2"]
    assert len(begun) == 1
    assert notes(scratch) == [1, 2]


async def test_of_many_handed_over_as_one_only_the_guilty_fail(scratch: Writer) -> None:
    def refused(connection: Connection) -> None:
        raise ClaimLost("gone")

    answers = await scratch.submit_all([add(1), refused, add(2)])
    assert [(value, str(error)) for value, error in answers] == [
        (1, "None"), (None, "gone"), (2, "None"),
    ]  # fmt: skip
    gate = Gate()
    await gate.shut(scratch)
    before, many, behind = (
        scratch.submit(add(3)),
        scratch.submit_all([add(4), add(1), refused, add(5)]),
        scratch.submit(add(6)),
    )
    gate.released.set()
    assert (await before, await behind) == (3, 6)
    (four, twice, gone, five) = await many
    assert (four, five) == ((4, None), (5, None))
    assert isinstance(twice[1], StoreError)
    assert isinstance(gone[1], ClaimLost)
    assert notes(scratch) == [1, 2, 3, 4, 5, 6]


async def test_only_the_guilty_operation_fails(scratch: Writer) -> None:
    def half_done(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO note VALUES (99, '')")
        raise KeyError("oops")

    gate = Gate()
    await gate.shut(scratch)
    futures = [scratch.submit(op) for op in (add(1), half_done, add(1), add(2))]
    gate.released.set()
    one, oops, twice, two = await asyncio.gather(*futures, return_exceptions=True)
    assert (one, two) == (1, 2)
    assert isinstance(oops, KeyError)
    assert isinstance(twice, StoreError)
    assert "UNIQUE" in str(twice)
    assert notes(scratch) == [1, 2]


async def test_a_cancelled_task_interrupts_no_transaction(scratch: Writer) -> None:
    gate = Gate()
    holding = await gate.shut(scratch)
    with anyio.move_on_after(0.01) as scope:
        await scratch.run(add(1))
    assert scope.cancelled_caught
    other = scratch.submit(add(2))
    other.cancel()
    gate.released.set()
    await holding
    # The lock is free at once, and the transaction came whole.
    with closing(sqlite3.connect(scratch._database.path, timeout=0)) as stranger:
        await scratch.run(add(3))
        stranger.execute("BEGIN IMMEDIATE")
        stranger.rollback()
    assert notes(scratch) == [1, 2, 3]


async def test_close_does_what_waits_first(scratch: Writer) -> None:
    gate = Gate()
    await gate.shut(scratch)
    futures = [scratch.submit(add(n)) for n in range(1000)]
    closing_down = asyncio.ensure_future(scratch.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="closed"):
        await scratch.submit(add(5000))
    gate.released.set()
    await closing_down
    assert await asyncio.gather(*futures) == list(range(1000))
    assert len(notes(scratch)) == 1000
    assert [file.name for file in scratch._database.path.parent.iterdir()] == ["scratch.db"]
    await scratch.close()


async def test_when_the_thread_dies_everybody_hears_of_it(scratch: Writer) -> None:
    class Die(BaseException):
        pass

    def die(connection: Connection) -> None:
        raise Die

    gate = Gate()
    await gate.shut(scratch)
    futures = [scratch.submit(op) for op in (add(1), die, *map(add, range(2, 600)))]
    gate.released.set()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(a, StoreError) for a in answers)
    with pytest.raises(StoreError, match="stopped"):
        await scratch.run(add(1000))
    assert notes(scratch) == []


async def test_a_lock_held_by_another_program_is_told_and_gets_over(
    scratch: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_WRITER_PRAGMAS", ("busy_timeout = 1",))
    with closing(sqlite3.connect(scratch._database.path, isolation_level=None)) as stranger:
        await scratch.run(add(1))
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another program"):
            await scratch.run(add(2))
        stranger.execute("ROLLBACK")
    assert await scratch.run(add(3)) == 3
    assert notes(scratch) == [1, 3]


async def test_a_full_disk_is_told_and_loses_nothing(scratch: Writer) -> None:
    """`max_page_count` makes SQLite answer as on a full disk."""

    def limit(pages: int):
        return lambda connection: connection.exec_driver_sql(
            f"PRAGMA max_page_count = {pages}"
        ).all()

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO note (text) VALUES (printf('%200000c', 'x'))")

    await scratch.run(add(1))
    full = await asyncio.gather(
        scratch.submit(limit(10)), scratch.submit(fill), scratch.submit(add(2)),
        return_exceptions=True,
    )  # fmt: skip
    assert any(isinstance(a, StoreUnavailable) and "is full" in str(a) for a in full)
    await scratch.run(limit(10_000))
    await scratch.run(fill)
    assert notes(scratch)[0] == 1


async def test_a_file_that_became_read_only_is_told(scratch: Writer) -> None:
    await scratch.run(add(1))
    await scratch.run(lambda connection: connection.exec_driver_sql("PRAGMA query_only = ON"))
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        await scratch.run(add(2))
    assert await scratch.run(add(3)) == 3


async def test_a_queue_that_grows_without_end_is_refused(
    scratch: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 3)
    gate = Gate()
    await gate.shut(scratch)
    futures = [scratch.submit(add(n)) for n in range(3)]
    with pytest.raises(StoreUnavailable, match="too slow"):
        await scratch.submit(add(3))
    gate.released.set()
    assert await asyncio.gather(*futures) == [0, 1, 2]
    gate = Gate()
    await gate.shut(scratch)
    many = scratch.submit_all([add(3), add(4), add(5)])
    with pytest.raises(StoreUnavailable, match="too slow"):
        await scratch.submit_all([add(6)])
    gate.released.set()
    assert await many == [(3, None), (4, None), (5, None)]
