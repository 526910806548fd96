"""The owner's face of the store: orders that change what is queued, and what is kept of models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from runner.errors import NotFound, StoreError
from runner.jobs.spec import BatchLimits
from runner.jobs.traits import PrefillAnswer
from runner.store import control, copy_marks, hints, limits, memory, orders, rescue
from runner.store.database import Database
from runner.store.reading import ReadingStore
from runner.store.records import PauseCause, PruneReceipt, Selection
from runner.store.writer import Operation, Writer

T = TypeVar("T")


class OrderingStore(ReadingStore):
    """A database to read and to give orders about."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        super().__init__(database)
        self._now_ms = now_ms
        self._one_clock = database.one_clock and now_ms == database.now_ms
        self._workers_here: set[str] = set()
        self._writer = Writer(database, self._patience, self._begin_afresh)

    def now_ms(self) -> int:
        """The time that decides in this database, in milliseconds since 1970."""
        return self._now_ms()

    def _begin_afresh(self, connection: Connection) -> None:
        """What our workers believe was saved may not be there: let go of all that they hold."""
        for worker_id in sorted(self._workers_here):
            rescue.retire(connection, worker_id, self._now_ms())

    async def apply(self, operation: Operation[T]) -> T:
        """Have something done by the writer, in a transaction; returns when it is committed."""
        return await self._writer.run(operation)

    async def pause(self, batch_key: int, cause: PauseCause, reason: str) -> None:
        """Let no job of the batch be claimed until `resume`; a user's own pause stays his."""
        await self._writer.run(
            partial(control.pause, batch_key=batch_key, cause=cause, reason=reason)
        )

    async def resume(self, batch_key: int, *, causes: Collection[PauseCause] | None = None) -> bool:
        """End a pause, if it has one of these causes; whether one was ended.

        A batch that is copied to another database stays paused: `bring_back`.
        """
        resumed = await self._writer.run(
            partial(control.resume, batch_key=batch_key, causes=causes)
        )
        await self._tell()
        return resumed

    async def _tell(self) -> None:
        """There may be work now."""
        if self._listener is not None:
            with suppress(StoreError):  # what it tells of is done, and will be found
                await self._writer.run(hints.tell)

    async def bring_back(self, batch: str) -> bool:
        """Let a batch that was copied to another database go on here as well, or be copied anew;
        whether it was. Both places then pay for its documents, unless the other is gone."""
        brought = await self._writer.run(partial(copy_marks.come_back, name=batch)) is not None
        await self._tell()
        return brought

    async def set_limits(self, batch_key: int, changes: Mapping[str, Any]) -> BatchLimits:
        """Change limits of a batch, until its job file is submitted again; what they are now.

        Who works on it goes by them within a second. A batch that its budget paused goes on where
        the budget has room again.

        Args:
            changes: values by the names of `BatchLimits`.

        Raises:
            NotFound: the batch is gone.
        """
        now = await self._writer.run(
            partial(limits.change, batch_key=batch_key, changes=dict(changes))
        )
        if now is None:
            raise NotFound("the batch was pruned away meanwhile; nothing was changed.")
        await self._tell()
        return now

    async def cancel(self, selection: Selection) -> int:
        """Cancel unfinished jobs; how many. Who works on one loses it, and its text stays."""
        now_ms = self._now_ms()
        jobs, _ = await self._in_portions(
            partial(orders.cancel, selection=selection, now_ms=now_ms)
        )
        return jobs

    async def retry(self, selection: Selection, *, afresh: bool = False) -> int:
        """Put final jobs back in the queue; how many.

        What was made of them before counts against no bound any more: a document that a bound
        cut goes on.

        Args:
            afresh: begin with an empty document. Else the text stays, and complete documents are
                left alone: they have nothing to go on with.
        """
        order = partial(orders.retry, selection=selection, now_ms=self._now_ms(), afresh=afresh)
        jobs, _ = await self._in_portions(order)
        await self._tell()
        return jobs

    async def prune(self, selection: Selection) -> PruneReceipt:
        """Delete final jobs with their calls, text and events, and make the file smaller.

        A batch that has no job left goes too. What was pruned leaves the batches' sums as well.
        """
        jobs, batch_keys = await self._in_portions(partial(orders.prune, selection=selection))
        if selection.batch is not None:
            batch_keys |= {row.key for row in await self.batches([selection.batch])}
        batches = await self._writer.run(partial(orders.remove_empty, batch_keys=batch_keys))
        freed_bytes, more = 0, True
        while more:
            some, more = await self._writer.run(orders.free_pages)
            freed_bytes += some
        return PruneReceipt(jobs, batches, freed_bytes)

    async def _in_portions(
        self, order: Callable[..., orders.Portion]
    ) -> tuple[int, frozenset[int]]:
        changed, batch_keys, after = 0, frozenset[int](), 0
        while True:
            portion = await self._writer.run(partial(order, after=after))
            changed += portion.changed
            batch_keys |= portion.batch_keys
            if portion.last_key is None:
                return changed, batch_keys
            after = portion.last_key

    async def remember(self, endpoint: str, model: str, prefill: PrefillAnswer) -> None:
        """Keep how a model answered a prefill, behind an endpoint."""
        await self._writer.run(
            partial(
                memory.remember,
                endpoint=endpoint,
                model=model,
                prefill=prefill,
                now_ms=self._now_ms(),
            )
        )
