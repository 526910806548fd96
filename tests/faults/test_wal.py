"""The write-ahead log: our own readers do not pin it, and it shrinks when others let go of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runner.library import documents
from runner.store.store import Store
from tests.store.hands import Hands, make_spec

pytestmark = pytest.mark.anyio
CEILING = 24 << 20  # 4,000 pages of 4 kB, and the last transaction
PIECE = "x" * 20_000


async def written(store: Store, hands: Hands, megabytes: int) -> None:
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    for seq in range(megabytes * 50):
        await store.save(claim, call_key, seq, PIECE)


async def test_our_readers_do_not_hold_the_log(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    async with await Store.open(path) as store, await Store.open(path) as reader:
        hands = Hands(store)
        await hands.submit(*(make_spec(f"j{n}") for n in range(600)))
        # Each is left in the middle: a list between two pages, documents, the watcher.
        listing, reading = reader.jobs(), documents(reader)
        await anext(listing)
        await anext(reading)
        await reader.data_version()
        await written(store, hands, 60)
        assert path.with_name("runner.db-wal").stat().st_size < CEILING
        with closing(sqlite3.connect(path)) as other:
            busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0
        assert len([row async for row in listing]) == 599
        await reading.aclose()  # type: ignore[attr-defined]


async def test_the_log_shrinks_when_a_foreign_reader_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    log = path.with_name("runner.db-wal")
    async with await Store.open(path) as store:
        hands = Hands(store)
        await hands.submit(make_spec("a"), make_spec("b"))
        with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
            foreign.execute("BEGIN")
            foreign.execute("SELECT count(*) FROM job").fetchone()
            await written(store, hands, 80)
            grown = log.stat().st_size
            assert grown > 80 << 20  # nobody can fold back what he may still want to read
            foreign.execute("ROLLBACK")
        await hands.submit(make_spec("c"))
        await hands.submit(make_spec("d"))
        assert log.stat().st_size <= 64 << 20 < grown  # journal_size_limit
        assert await store.check() == []
