"""How a worker opens its database: one that cannot be used now is waited for, as while it works."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from runner.cli.common import message
from runner.cli.harmless import one_line
from runner.cli.signals import ending_by_signal
from runner.errors import StoreBlocked
from runner.library import open_store
from runner.store.store import Store

# Not all workers of a fleet come back in the same moment.
AGAIN_S = (1.0, 3.0)


@asynccontextmanager
async def open_patiently(database: str) -> AsyncIterator[Store]:
    """Open a database that is there, or wait until it can be used; a signal ends the process.

    Raises:
        StoreUnavailable: it is not there, or waiting mends nothing: no right to it, a wrong URL.
        SchemaTooNew: a newer version of this program wrote it.
        NotADatabase: it is something else, or damaged.
    """
    async with AsyncExitStack() as stack:
        # Nothing is held yet that would have to be put in order.
        with ending_by_signal():
            store = await _opened(stack, database)
        yield store


async def _opened(stack: AsyncExitStack, database: str) -> Store:
    waiting = False
    while True:
        try:
            store = await stack.enter_async_context(open_store(database, create=False))
        except StoreBlocked as error:
            if not waiting:
                words = f"{error.what}. {error.remedy}; the work begins by itself once it can"
                message(one_line(words))
            waiting = True
        else:
            if waiting:
                message("the database can be used again; the work begins")
            return store
        await anyio.sleep(random.uniform(*AGAIN_S))  # noqa: S311  jitter needs no secrecy
