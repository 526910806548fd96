"""One suite for every database: tests take `store`, and a second database is a second param."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from runner.store import migrate
from runner.store.store import Store
from tests.store.hands import Clock, Hands


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: making one from nothing takes Alembic."""
    path = tmp_path_factory.mktemp("empty") / "runner.db"
    migrate.upgrade(path)
    return path


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> str:
    path = tmp_path / "runner.db"
    shutil.copy(empty_database, path)
    return str(path)


Opener = Callable[[], Awaitable[Store]]


@pytest.fixture
async def open_store(database: str, clock: Clock) -> AsyncIterator[Opener]:
    """Opens the same database again, as another process would."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened() -> Store:
            return await stack.enter_async_context(await Store.open(database, now_ms=clock))

        yield opened


@pytest.fixture
async def store(open_store: Opener) -> Store:
    return await open_store()


@pytest.fixture
def hands(store: Store) -> Hands:
    return Hands(store)
