"""Hints: who waits for work is told at once that there is some.

Only hints: one that is lost costs no more than the time until the next look at the queue. So none
is told for what happens often, a claim or a chunk: on the server, all that tell wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final

import anyio
from sqlalchemy import Connection, text

if TYPE_CHECKING:
    # Who works on a file needs none of it, nor the 6 MB and 50 modules that it brings.
    from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger(__name__)

CHANNEL: Final = "runner"
TELL: Final = text(f"SELECT pg_notify('{CHANNEL}', '')")
# Not all processes come back in the same moment.
AGAIN_S: Final = (0.5, 3.0)
# A connection that a broken network holds open tells nothing, and nobody would know.
ALIVE_EVERY_S: Final = 60.0
ALIVE_WITHIN_S: Final = 10.0


def tell(connection: Connection) -> None:
    """Told when the transaction is committed, once however often it is asked for."""
    connection.execute(TELL)


class Listener:
    """Hears what is told, on a connection that does nothing else.

    Args:
        engine: one without a pool: a connection that listens must never serve anybody else.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._random = Random()  # noqa: S311  jitter needs no secrecy

    async def listen(self, heard: Callable[[], None]) -> None:
        """Listen until cancelled.

        Args:
            heard: called for each hint, and whenever some may have been missed.
        """
        while True:
            try:
                await self._listen(heard)
            except Exception as error:  # whatever it is: the queue is looked at all the same
                log.info("no hints from the database now: %s", type(error).__name__)
            await anyio.sleep(self._random.uniform(*AGAIN_S))

    async def _listen(self, heard: Callable[[], None]) -> None:
        gone = asyncio.Event()
        async with self._engine.connect() as connection:
            try:
                bare: Any = (await connection.get_raw_connection()).driver_connection
                bare.add_termination_listener(lambda _: gone.set())
                await bare.add_listener(CHANNEL, lambda *_: heard())
                while not gone.is_set():
                    heard()  # what was told while nobody listened
                    with suppress(TimeoutError):
                        await asyncio.wait_for(gone.wait(), ALIVE_EVERY_S)
                    if not gone.is_set():
                        await bare.execute("SELECT 1", timeout=ALIVE_WITHIN_S)
            finally:
                with anyio.CancelScope(shield=True):
                    await connection.invalidate()
