"""Opening: migrations, and files that are not ours, not well or not there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from runner.errors import NotADatabase, SchemaTooNew, StoreError, StoreUnavailable
from runner.store import migrate
from runner.store.schema import metadata
from runner.store.store import Store
from tests.store.hands import make_spec

pytestmark = pytest.mark.anyio


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def statements(path: Path) -> dict[str, str]:
    """What a database is made of, white space aside."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL "
            "AND name NOT IN ('alembic_version', 'sqlite_sequence')"
        ).fetchall()
    return {name: re.sub(r"\s+", " ", sql) for name, sql in rows}


def test_the_migrations_build_what_the_schema_says(empty_database: Path, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'schema.db'}")
    metadata.create_all(engine)
    engine.dispose()
    assert statements(empty_database) == statements(tmp_path / "schema.db")
    assert any(name.startswith("trigger") for name in statements(empty_database))


def test_the_schema_version_is_that_of_the_newest_migration(empty_database: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.scripts()))
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.head()
    assert migrate.current(empty_database) == migrate.head()


def test_upgrading_twice_is_no_change(empty_database: Path) -> None:
    before = empty_database.read_bytes()
    migrate.upgrade(empty_database)
    assert empty_database.read_bytes() == before


CHILD = """
import asyncio, sys
from runner.store.store import Store
async def main():
    store = await Store.open(sys.argv[1])
    print("alembic" in sys.modules)
    await store.close()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


def children(path: Path, count: int) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(count)
    ]  # fmt: skip


def test_four_processes_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    started = children(path, 4)
    for child in started:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in started:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in started:
        _, errors = child.communicate(timeout=200)
        assert (child.returncode, errors) == (0, "")
    assert migrate.current(path) == migrate.head()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_a_current_database_opens_without_alembic(empty_database: Path) -> None:
    (child,) = children(empty_database, 1)
    output, errors = child.communicate("go\n", timeout=200)
    assert (output, errors) == ("ready\nFalse\n", "")


async def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"no database at .*x\.db; run `runner run FILE`"):
        await Store.open(tmp_path / "x.db", create=False)
    assert names(tmp_path) == []


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    with pytest.raises(StoreUnavailable, match="no database"):
        await Store.open(path, create=False)
    await (await Store.open(path)).close()
    assert migrate.current(path) == migrate.head()


async def test_names_with_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / "a b?c#d%20é.db"
    async with await Store.open(path) as store:
        assert await store.batches() == []
        assert await store.data_version()
        await store.retire_worker("nobody")  # the last connection to close is one that may write
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite+aiosqlite:///{}"])
async def test_urls(tmp_path: Path, url: str) -> None:
    async with await Store.open(url.format(tmp_path / "x.db")) as store:
        assert store.path == tmp_path / "x.db"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mysql://h/x", "kind 'mysql' are not supported"),
        ("postgresql+asyncpg://user:secret@127.0.0.1:1/x", "'x' on 127.0.0.1 does not answer"),
        ("postgresql+asyncpg://user:secret@h:port/x", "not a database URL"),
        ("sqlite://", "in memory"),
        (":memory:", "in memory"),
        ("://", "not a database URL"),
    ],
)
async def test_names_that_cannot_be_opened(name: str, message: str) -> None:
    with pytest.raises(StoreUnavailable, match=message) as caught:
        await Store.open(name)
    assert "secret" not in str(caught.value)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def foreign_with_alembic(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('0001')"
        )


def torn(path: Path) -> None:
    asyncio.run(fill(path))
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)


async def fill(path: Path) -> None:
    from runner.jobs.spec import BatchSpec

    async with await Store.open(path) as store:
        await store.submit(BatchSpec("b"), [make_spec(f"j{n}") for n in range(100)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("hello\n" * 999), "some other file"),
        (
            lambda path: path.write_bytes(b"SQLite format 3\0" + b"\0" * 500),
            "damaged|not a database",
        ),
        (foreign, "another program"),
        (foreign_with_alembic, "another program"),
        (torn, "damaged"),
    ],
    ids=["text", "header", "foreign", "foreign with alembic", "torn"],
)
def test_a_file_that_is_not_ours_is_left_as_it_is(tmp_path: Path, make, message: str) -> None:
    path = tmp_path / "x.db"
    make(path)
    before = path.read_bytes()

    async def use() -> None:
        async with await Store.open(path) as store:
            [job async for job in store.jobs()]

    with pytest.raises(NotADatabase, match=message):
        asyncio.run(use())
    assert path.read_bytes() == before


async def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="is a folder"):
        await Store.open(tmp_path)


async def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await Store.open(tmp_path / "none" / "x.db")


async def test_a_newer_database_is_refused(tmp_path: Path, empty_database: Path) -> None:
    path = tmp_path / "x.db"
    shutil.copy(empty_database, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(SchemaTooNew, match=rf"version 9999[\s\S]*up to {migrate.head()}"):
        await Store.open(path)


PERMITTED = """
import asyncio, ctypes, sys
from runner.errors import StoreError
from runner.jobs.spec import BatchSpec
from runner.store.store import Store
def obey_modes():
    # Root passes over the modes of files by two capabilities (Linux: CAP_DAC_OVERRIDE, 1, and
    # CAP_DAC_READ_SEARCH, 2); without them it is held to them like everybody.
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    assert libc.capget(header, sets) == 0
    for index in range(3):
        sets[index] &= ~0b110
    assert libc.capset(header, sets) == 0
async def main():
    if sys.platform == "linux":
        obey_modes()
    async with await Store.open(sys.argv[1]) as store:
        print(len(await store.batches()))
        await store.submit(BatchSpec("b"), [])
try:
    asyncio.run(main())
except StoreError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "message"),
    [
        (0o555, None, "StoreUnavailable .*cannot be opened"),
        (0o000, None, "StoreUnavailable .*(cannot be read|cannot be opened)"),
        (0o777, 0o000, "StoreUnavailable .*cannot be read: Permission denied"),
        (0o777, 0o444, "0\nStoreUnavailable .*cannot be written"),
    ],
)
def test_without_permission(
    tmp_path: Path, empty_database: Path, folder_mode: int, file_mode: int | None, message: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if file_mode is not None:
        shutil.copy(empty_database, folder / "x.db")
        (folder / "x.db").chmod(file_mode)
    folder.chmod(folder_mode)
    try:
        child = subprocess.run(
            [sys.executable, "-c", PERMITTED, str(folder / "x.db")],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    finally:
        folder.chmod(0o755)
    assert re.match(message, child.stdout), child.stdout + child.stderr


async def test_a_closed_store_refuses_writes(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.promote_due() or await store.retire_worker("w")
