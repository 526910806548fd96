"""Copies a batch from one database to another, finished or half-way, so that it goes on there.

1. Where it leaves it is paused and marked: nobody begins anything of it any more.
2. Where it arrives it is made, paused and marked in the same way.
3. Its jobs follow in slices, each in one transaction together with how far the copy is.
4. Once all of it is there, it goes on there, with the pause it had before if it had one.
5. Where it left, the mark stays, and says where it is now.

A copy that is stopped at any moment is finished by the same call again: what has arrived is known
by the mark. docs/decisions.md tells why it is a move and not a twin.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from runner.errors import NotFound, StoreError, UsageError
from runner.store import copy_rows, copy_writes
from runner.store.bare import Driver
from runner.store.copy_marks import (
    Arriving,
    Found,
    Holder,
    Leaving,
    find,
    holders,
    leave,
    left,
    still_leaving,
    told,
    worked_on,
)
from runner.store.copy_rows import HEADER, Header, Slice
from runner.store.engine import driver, storable
from runner.store.records import PauseCause
from runner.store.store import Store

T = TypeVar("T")

WAIT_S: Final = 0.5

MAKE: Final = f"""\
INSERT INTO batch ({", ".join(HEADER)}, copied_from)
VALUES ({", ".join("?" * (len(HEADER) + 1))}) RETURNING key
"""  # noqa: S608  our own names
GO_ON: Final = f"""\
UPDATE batch SET {", ".join(f"{name} = ?" for name in HEADER)}, copied_from = ? WHERE key = ?
"""  # noqa: S608

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CopyReceipt:
    """What came of a copy.

    Args:
        jobs: of the batch.
        again: those of them that an earlier call had brought there already.
        lost_nuls: NUL characters that became U+FFFD, for the new place holds none.
    """

    batch: str
    jobs: int
    again: int
    lost_nuls: int


async def copy_batch(
    source: Store,
    target: Store,
    name: str,
    *,
    max_rescues: int,
    wait: bool = False,
    afresh: bool = False,
    progress: Told | None = None,
) -> CopyReceipt:
    """Copy a batch, so that it goes on at the other place and no more where it was.

    Args:
        max_rescues: as of `Store.rescue`: jobs of processes that are known to be dead are freed.
        wait: where it is worked on, let its open calls come to their end first.
        afresh: throw away what a copy that never became whole has left at the new place.
        progress: told how many jobs have arrived, of how many.

    Raises:
        NotFound: there is no such batch.
        UsageError: the new place has another batch of that name, or it was copied elsewhere.
        StoreUnavailable: it is worked on, or a database cannot be used now.
        StoreError: it was changed meanwhile.
    """
    copy = _Copy(source, target, name, progress or _untold)
    mark = await copy.agreed(afresh)
    if mark is not None and mark.done:
        return await copy.whole_already(mark)
    await copy.free_dead(max_rescues)
    copy_id, to, place = uuid.uuid4().hex, target.database.shown, await copy.place()
    mark = await source.apply(
        partial(leave, name=name, copy_id=copy_id, to=to, place=place, wait=wait)
    )
    if mark.place != place:  # another process was first
        raise copy.elsewhere(mark)
    await copy.quiet(wait, max_rescues)
    return await copy.carry(mark)


def _untold(_jobs: int, _of: int) -> None:
    """Nobody wants to know."""


class _Copy:
    def __init__(self, source: Store, target: Store, name: str, progress: Told) -> None:
        self._source, self._target, self._name, self._progress = source, target, name, progress
        self._lost = 0

    async def agreed(self, afresh: bool) -> Leaving | None:
        """The mark of this copy where it was begun before; whole ones say so.

        Raises:
            UsageError: the batch has nothing to do there.
        """
        here = await self._find(self._source)
        if here is None:
            raise NotFound(f"there is no batch '{self._name}' in {self._source.database.shown}.")
        there = await self._find(self._target)
        if there is not None and there.half_here and afresh:
            while await self._target.apply(partial(copy_writes.throw_away, batch_key=there.key)):
                pass
            there = None
        mark = here.leaving if here.paused is PauseCause.COPY else None
        if there is None:
            if mark is not None and (mark.done or mark.place != await self.place()):
                raise self.elsewhere(mark)
            return mark
        if mark is None or there.arriving is None or there.arriving.id != mark.id:
            raise self._taken(there)
        return replace(mark, done=there.arriving.done)

    async def _find(self, store: Store) -> Found | None:
        return await asyncio.to_thread(store.database.look, partial(find, name=self._name))

    async def place(self) -> str:
        """Where it goes to."""
        return await asyncio.to_thread(self._target.database.identity)

    def elsewhere(self, mark: Leaving) -> UsageError:
        alike = ""
        if not mark.done and mark.to == self._target.database.shown:
            alike = (
                ". The database that you name has the same name, but is another one (look at port, "
                "user and schema)"
            )
        return UsageError(
            f"batch '{self._name}' is not here any more: {mark.words()}{alike}. If that copy is lost, "
            f"`runner resume {self._name} --copied --db …` lets the batch go on here, and it can "
            "be copied again. Nothing was copied."
        )

    def _taken(self, there: Found) -> UsageError:
        place = self._target.database.shown
        if there.half_here:
            what = (
                f"{place} holds a part of batch '{self._name}' from another copy that never became "
                "whole. --afresh throws that part away first."
            )
        elif there.leaving is not None and there.paused is PauseCause.COPY:
            what = (
                f"{place} still has the batch '{self._name}' that was copied away from there. Copy "
                f"to another database; or, if that is the one, remove what is left there with "
                f"`runner cancel --batch {self._name}` and `runner prune --batch {self._name}`."
            )
        else:
            what = (
                f"{place} has a batch '{self._name}' of its own, and nothing is ever overwritten. "
                "Copy to another database; or, if it is not needed, remove it there with "
                f"`runner cancel --batch {self._name}` and `runner prune --batch {self._name}`."
            )
        return UsageError(f"{what} Nothing was copied.")

    async def whole_already(self, mark: Leaving) -> CopyReceipt:
        """It was finished before, at most without a last word where it left."""
        await self._source.apply(partial(left, name=self._name, mark=mark))
        (row,) = await self._target.batches([self._name])
        return CopyReceipt(self._name, row.jobs, row.jobs, 0)

    async def quiet(self, wait: bool, max_rescues: int) -> None:
        """Wait until nobody holds a job of the batch; no new one is claimed any more."""
        while busy := await self._holders():
            if not wait:
                raise worked_on(self._name, busy)
            await asyncio.sleep(WAIT_S)
            await self.free_dead(max_rescues)

    async def free_dead(self, max_rescues: int) -> None:
        """Free its jobs that processes hold which are known to be dead."""
        holding = {one.worker_id for one in await self._holders()}
        rows = await self._source.workers() if holding else []
        for row in rows:
            if row.id in holding and (row.alive is False or row.expired):
                lease = None if row.alive is False else row.lease_until_ms
                await self._source.rescue(row.id, max_rescues=max_rescues, lease_until_ms=lease)
        if holding - {row.id for row in rows}:
            await self._source.rescue_orphans(max_rescues=max_rescues)

    async def _holders(self) -> list[Holder]:
        key = await self._here()
        return await asyncio.to_thread(self._source.database.look, partial(holders, batch_key=key))

    async def _here(self) -> int:
        """The key of the batch where it leaves."""
        here = await self._find(self._source)
        if here is None:
            raise StoreError(f"batch '{self._name}' was pruned away while it was copied.")
        return here.key

    async def carry(self, mark: Leaving) -> CopyReceipt:
        """Bring all of it over that is not there yet, and let it go on there."""
        here, target = await self._here(), self._target
        head = await self._read(copy_rows.header, here)
        there = await self._find(target)
        if there is None or there.arriving is None:
            shared = await asyncio.to_thread(self._source.database.look, copy_rows.shared)
            await target.apply(partial(copy_writes.put_shared, found=shared))
            arriving = Arriving(mark.id, self._source.database.shown)
            key = await target.apply(partial(_make, head=head, arriving=arriving))
        else:
            key, arriving = there.key, there.arriving
        again = arriving.jobs
        arriving = await self._jobs(here, key, arriving, sum(head.kinds.values()))
        source = self._source.database
        portions = copy_rows.prefixes(source, here)
        while some := await asyncio.to_thread(next, portions, None):
            await target.apply(partial(copy_writes.put_prefixes, batch_key=key, rows=some))
        # Once more: its owner may have changed its limits meanwhile, or let it go on here.
        name = self._name
        await self._source.apply(partial(still_leaving, name=name, mark=mark))
        head = await self._read(copy_rows.header, here)
        if await asyncio.to_thread(copy_rows.events, source, here) != arriving.events:
            raise _changed(name)
        await target.apply(
            partial(_go_on, batch_key=key, head=head, mark=mark, arriving=arriving, name=name)
        )
        await self._source.apply(partial(left, name=name, mark=mark))
        return CopyReceipt(name, arriving.jobs, again, self._lost)

    async def _read(self, what: Callable[[Driver, int], T], batch_key: int) -> T:
        look = self._source.database.look
        return await asyncio.to_thread(look, lambda sql: what(sql, batch_key))

    async def _jobs(self, here: int, there: int, arriving: Arriving, of: int) -> Arriving:
        """The slices: one is read while the one before it is written."""
        self._progress(arriving.jobs, of)
        portions = copy_rows.slices(self._source.database, here, arriving.after)
        writing: asyncio.Task[int] | None = None
        try:
            while True:
                portion: Slice | None = await asyncio.to_thread(next, portions, None)
                if writing is not None:
                    self._lost += await asyncio.shield(writing)
                    self._progress(arriving.jobs, of)
                if portion is None:
                    return arriving
                before = arriving
                arriving = before.moved_on(portion.last_key, len(portion.jobs), len(portion.events))
                put = partial(
                    copy_writes.put_slice,
                    batch_key=there,
                    portion=portion,
                    before=before,
                    after=arriving,
                )
                writing = asyncio.ensure_future(self._target.apply(put))
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait([writing])  # it is committed or not; nobody asks any more


def _make(connection: Connection, head: Header, arriving: Arriving) -> int:
    """The batch where it arrives, without any job."""
    values = head.columns | {"paused": PauseCause.COPY, "pause_reason": storable(arriving.words())}
    sql = driver(connection)
    ((key,),) = sql.execute(MAKE, [*(values[name] for name in HEADER), told(arriving)]).fetchall()
    return int(key)


def _go_on(
    connection: Connection,
    batch_key: int,
    head: Header,
    mark: Leaving,
    arriving: Arriving,
    name: str,
) -> None:
    """All of it is here: its books become those it left with, and it may go on.

    Raises:
        StoreError: it is not what it left.
    """
    sql = driver(connection)
    if copy_rows.kinds(sql, batch_key) != head.kinds:
        raise _changed(name)
    values = head.columns | {"paused": mark.paused, "pause_reason": mark.pause_reason}
    done = told(replace(arriving, done=True))
    sql.execute(GO_ON, [*(values[name] for name in HEADER), done, batch_key])
    copy_writes.put_learned(connection, batch_key, head.learned)


def _changed(name: str) -> StoreError:
    return StoreError(
        f"batch '{name}' was changed by an order (such as cancel, retry or prune) while it was "
        "copied, so that what has arrived is not what is left. Give the same command with --afresh."
    )
