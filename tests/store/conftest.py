"""One suite for every database: tests take `store` or `database`, and run on each.

What is the file's own takes `sqlite_only`, what is the server's own `postgres_only`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from runner.store import migrate
from runner.store.store import Store
from tests.places import Databases, Files, Place
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


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where databases with an empty queue can be had."""
    if request.param == "sqlite":
        empty = request.getfixturevalue("empty_database")
        return Files(empty, tmp_path_factory.mktemp("databases"))
    return Databases(request.getfixturevalue("postgres_server"))


@pytest.fixture
def database(place: Place) -> Iterator[str]:
    """The name of a database with an empty queue."""
    name = place.new()
    yield name
    place.drop(name)


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
