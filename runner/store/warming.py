"""The face of the store that keeps the prompt cache's shared beginnings."""

from __future__ import annotations

import asyncio
from functools import partial

from runner.store import prefixes
from runner.store.ordering import OrderingStore
from runner.store.writer import Operation


class WarmingStore(OrderingStore):
    """Says who writes a beginning that jobs share to the prompt cache, and until when it is there."""

    async def lead_beginning(self, batch_key: int, beginning: bytes, until_ms: int) -> bool:
        """Take it on to write a beginning to the cache; False where another process does, or it is
        there.

        Args:
            until_ms: others wait so long at most, should this process die.
        """
        return await self._writer.run(
            partial(
                prefixes.lead,
                batch_key=batch_key,
                beginning=beginning,
                until_ms=until_ms,
                now_ms=self._now_ms(),
            )
        )

    def beginning_warmed(self, batch_key: int, beginning: bytes, until_ms: int) -> None:
        """The cache holds a beginning until then. Nobody waits for it to be written down."""
        self._forget(
            partial(prefixes.warmed, batch_key=batch_key, beginning=beginning, until_ms=until_ms)
        )

    def beginning_given_up(self, batch_key: int, beginning: bytes, until_ms: int) -> None:
        """The lead that was taken until then came to nothing. Nobody waits for this either."""
        self._forget(
            partial(prefixes.give_up, batch_key=batch_key, beginning=beginning, until_ms=until_ms)
        )

    def _forget(self, operation: Operation[None]) -> None:
        self._writer.submit(operation).add_done_callback(_seen)


def _seen(future: asyncio.Future[None]) -> None:
    """What is lost here only costs money; a broken database shows elsewhere."""
    if not future.cancelled():
        future.exception()
