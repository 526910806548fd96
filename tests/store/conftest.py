"""What the tests of the store share; the databases themselves come from `tests/conftest.py`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from runner.store.store import Store
from tests.store.hands import Clock, Hands


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
