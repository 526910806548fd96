"""A full disk, a foreign lock: the work waits, loses nothing, and goes on by itself."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from runner.errors import StoreBlocked
from runner.jobs.states import State
from runner.library import follow
from runner.simulator import SimulatorOptions
from runner.store import engine, patience
from runner.store.store import Store
from runner.workers.progress import Progress
from runner.workers.worker import Worker
from tests.house import QUICK, House, Impatient, a_house, job
from tests.workers.process import Process

# tests/postgres has what a server can be in the way of.
pytestmark = [pytest.mark.anyio, pytest.mark.in_a_file]
SLOW = SimulatorOptions(tokens_per_second=400)


class Heard(Progress):
    """Notices, and a way to wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[str, anyio.Event]] = []

    def notice(self, text: str) -> None:
        super().notice(text)
        for words, event in self._waiting:
            if words in text:
                event.set()

    def hears(self, words: str) -> anyio.Event:
        event = anyio.Event()
        self._waiting.append((words, event))
        return event


def pragmas(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """What every connection that writes from now on begins with."""
    kept = [p for p in engine._WRITER_PRAGMAS if not p.startswith(("max_page", "busy"))]
    monkeypatch.setattr(engine, "_WRITER_PRAGMAS", (*kept, "busy_timeout = 50", *more))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_S", 0.02)
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    pragmas(monkeypatch)


async def works_through(
    house: House, path: Path, begin: Callable[[], None], words: str, end: Callable[[], None]
) -> Heard:
    """Let a worker meet a trouble that begins in mid-stream and ends after it was told."""
    heard = Heard()
    blocked, free = heard.hears(words), heard.hears("can be written again")
    async with await Store.open(path) as store:
        worker = Worker(store, house.client, settings=QUICK, random=Impatient(), progress=heard)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await house.simulator.books.wait_for(lambda books: books.tokens_generated > 20)
            begin()
            with anyio.fail_after(60):
                await blocked.wait()
            asked = house.simulator.books.requests
            await house.simulator.books.wait_for(lambda books: books.tokens_generated > 60)
            assert house.simulator.books.requests == asked  # nothing new is begun
            end()
            with anyio.fail_after(60):
                await free.wait()
    return heard


async def test_a_full_disk(tmp_path, monkeypatch, impatient) -> None:
    """`max_page_count` makes SQLite answer as on a full disk."""
    specs = [job(name, mark="tokens=900", max_tokens=800) for name in "abc"]
    path = tmp_path / "runner.db"
    async with a_house(tmp_path, SLOW) as house:
        await house.submit(*specs)
        with closing(sqlite3.connect(path)) as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
        pragmas(monkeypatch, f"max_page_count = {pages}")
        heard = await works_through(
            house, path, lambda: None, "is full", lambda: pragmas(monkeypatch)
        )
        await house.assert_whole(*specs)
        assert [notice for notice in heard.notices if "is full" in notice] == [
            (
                f"the disk that holds {path} is full: nothing more is asked for, and nothing is lost. "
                "Make room; the work then goes on by itself"
            )
        ]
        assert house.simulator.books.restarts == 0
        assert house.simulator.books.tokens_generated_twice <= house.simulator.books.requests


async def test_a_lock_of_another_program(tmp_path, impatient) -> None:
    """Held for many times as long as a write waits for a lock."""
    specs = [job(name, mark="tokens=200", max_tokens=150) for name in "abc"]
    path = tmp_path / "runner.db"
    async with a_house(tmp_path, SLOW) as house:
        await house.submit(*specs)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            await works_through(
                house,
                path,
                lambda: other.executescript("BEGIN IMMEDIATE") and None,
                "locked by another program",
                lambda: other.execute("ROLLBACK") and None,
            )
        await house.assert_whole(*specs)
        assert house.simulator.books.restarts == 0
        assert house.simulator.books.tokens_generated_twice <= house.simulator.books.requests


async def test_a_command_does_not_wait(tmp_path, monkeypatch, impatient) -> None:
    async with a_house(tmp_path) as house:
        await house.submit(job("a"))
        with closing(sqlite3.connect(tmp_path / "runner.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with await Store.open(tmp_path / "runner.db") as store:
                with pytest.raises(StoreBlocked, match=r"Close what holds it .* run the same"):
                    await store.resume(1)


async def test_a_stop_ends_the_waiting(tmp_path, impatient) -> None:
    """Whoever stops a run while the disk is full is not kept waiting for room."""
    path = tmp_path / "runner.db"
    async with a_house(tmp_path, SLOW) as house:
        await house.submit(job("a"))
        heard = Heard()
        blocked = heard.hears("locked by another program")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            async with await Store.open(path) as store:
                worker = Worker(store, house.client, settings=QUICK, progress=heard)

                async def work() -> None:
                    with pytest.raises(StoreBlocked):
                        await worker.run()

                with anyio.fail_after(60):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(work)
                        await house.simulator.books.wait_for(lambda b: b.tokens_generated > 5)
                        other.execute("BEGIN IMMEDIATE")
                        await blocked.wait()
                        worker.stop()


async def test_a_quota(tmp_path) -> None:
    """A limit on the size of files, set from outside while the process streams."""
    spec = job("a", mark="tokens=300", max_tokens=200)
    path = tmp_path / "runner.db"
    async with a_house(tmp_path, SLOW) as house:
        await house.submit(spec)
        async with Process(str(path), house.simulator.base_url, checkpoint_s=0.02) as process:
            async for _ in follow(house.store, "a"):
                break
            size = path.with_name("runner.db-wal").stat().st_size
            pid = process.child.pid
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            told = await process.tells("takes nothing more")
            assert "Make room, or check the disk and its quota" in told
            everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, everything)
            await process.tells("can be written again")
            await process.ends()
        await house.assert_whole(spec)
        assert (await house.row()).state is State.COMPLETED
        assert house.simulator.books.tokens_generated_twice <= house.simulator.books.requests
