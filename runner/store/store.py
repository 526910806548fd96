"""The store: the queue of jobs and everything that was ever saved of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from runner import faults
from runner.errors import BudgetReached, StoreError, StoreUnavailable
from runner.jobs.call import CallOutcome, Verdict
from runner.jobs.spec import BatchSpec, JobSpec
from runner.jobs.states import State
from runner.store import claims, pace, rescue, settle, submit
from runner.store.bare import Driver
from runner.store.database import Database, the_database
from runner.store.operations import Begin, Count, End, Judge, Save, Settle
from runner.store.patience import Told
from runner.store.records import (
    CallStart,
    Claim,
    Counted,
    Lane,
    LimitSeen,
    LimitUse,
    OnConflict,
    Refusal,
    Settlement,
    SubmitReceipt,
)
from runner.store.submit import Jobs
from runner.store.warming import WarmingStore
from runner.store.writer import Answer


class Store(WarmingStore):
    """One database. Writes go through one thread and are answered when they are on the disk;
    reads never wait for them. Made by `Store.open`."""

    @classmethod
    async def open(
        cls,
        database: str | Path = "runner.db",
        *,
        create: bool = True,
        now_ms: Callable[[], int] | None = None,
    ) -> Store:
        """Open a database, and bring it to the schema of this program first.

        Args:
            database: a path, or an SQLAlchemy URL of SQLite or PostgreSQL.
            create: make the file when it does not exist.
            now_ms: the clock, in milliseconds since 1970; None: the database's own, which is
                this machine's for a file and the server's for PostgreSQL.

        Raises:
            StoreUnavailable: it does not exist, or cannot be made, read or locked.
            SchemaTooNew: a newer version of this program wrote it.
            NotADatabase: the file is something else, or damaged.
        """
        named = the_database(database)
        await asyncio.to_thread(_ready, named, create)
        return cls(named, now_ms or named.now_ms)

    async def close(self) -> None:
        """Commit what waits, give back the worker locks, and close every connection."""
        self._patience.end()
        try:
            await self._reader.close()
        finally:
            await self._writer.close()
            self._locks.release_all()

    # a database that cannot be used for a while

    def wait_when_blocked(self, told: Told) -> None:
        """From now on wait while the disk is full or another program locks the database.

        Without it, whatever is asked for then fails with StoreBlocked.

        Args:
            told: called with the error when the waiting begins, and with None when it is over.
        """
        self._patience.begin(told)

    def stop_waiting(self) -> None:
        """End what `wait_when_blocked` began; what waits now fails with StoreBlocked."""
        self._patience.end()

    # submitting

    async def submit(
        self,
        batch: BatchSpec,
        jobs: Jobs,
        *,
        on_conflict: OnConflict = OnConflict.ERROR,
        simulated: bool = False,
    ) -> SubmitReceipt:
        """Put jobs in the queue; what is there already stays as it is.

        Jobs known under the same hash keep their text; while they are unfinished, their bounds,
        metadata and priority are brought up to date. The batch's limits always are.

        Args:
            jobs: a collection, or a function that gives a new iterator each time; an iterator
                that can be read only once is held in memory. It is read in a thread.
            on_conflict: what to do where an id is known under another hash.
            simulated: the documents will come from the simulator; such a batch never mixes with
                real ones.

        Raises:
            UsageError: the batch is there and of the other kind, simulated or real; or it is
                copied to another database.
            SubmitConflict: with ERROR, an id is known under another hash; nothing was queued.
        """
        again = _again(jobs)
        compared = again if on_conflict is OnConflict.ERROR else None
        present = await self._compared(batch.name, simulated, compared)
        while True:
            replaced = self._writer.replaced
            try:
                receipt = await self._put(batch, again, on_conflict, simulated, present)
            except StoreError:
                if replaced == self._writer.replaced:
                    raise
            else:
                if replaced == self._writer.replaced:
                    return receipt
            # A server that took over meanwhile may lack what was put before: once more, from the
            # first on. What is there stays as it is.
            present = None

    async def _put(
        self,
        batch: BatchSpec,
        again: Callable[[], Iterable[JobSpec]],
        on_conflict: OnConflict,
        simulated: bool,
        present: int | None,
    ) -> SubmitReceipt:
        now_ms = self._now_ms()
        batch_key = await self._writer.run(
            partial(submit.put_batch, spec=batch, simulated=simulated, now_ms=now_ms)
        )
        if present is not None:
            return SubmitReceipt(batch_key, present=present)
        receipt = SubmitReceipt(batch_key)
        portions = submit.slices(iter(again()))
        writing: asyncio.Future[SubmitReceipt] | None = None
        # One slice is made ready while the one before it is written.
        while True:
            portion = await asyncio.to_thread(next, portions, None)
            if writing is not None:
                receipt = _sum(receipt, await asyncio.shield(writing))
            if portion is None:
                await self._tell()
                return receipt
            faults.hit("submit.slice")
            writing = self._writer.submit(
                partial(
                    submit.put_slice,
                    batch=batch,
                    batch_key=batch_key,
                    portion=portion,
                    on_conflict=on_conflict,
                    now_ms=now_ms,
                )
            )

    async def _compared(
        self, batch_name: str, simulated: bool, jobs: Callable[[], Iterable[JobSpec]] | None
    ) -> int | None:
        """Refuse a submission before anything is written; how many jobs it has where all of them
        are there as they are, so that nothing is to be written at all."""

        def look(sql: Driver) -> bool:
            submit.refuse_known(sql, batch_name, simulated)
            return submit.batch_has_jobs(sql, batch_name)

        has_jobs = await asyncio.to_thread(self.database.look, look)
        if jobs is None or not has_jobs:
            return None
        there = iter(await asyncio.to_thread(jobs))
        server = self.path is None
        compared = await submit.compare(self._reader.rows, server, batch_name, there)
        if compared.total:
            raise submit.conflict_error(batch_name, compared.conflicts, compared.total)
        return compared.present

    # workers

    async def register_worker(self, worker_id: str, *, host: str, pid: int, lease_ms: int) -> None:
        """Announce a worker and hold its lock, which the kernel drops when this process dies.

        Args:
            worker_id: new for every process.
            host: `socket.gethostname()` of the machine; only workers of the same host are asked
                for their lock.
            lease_ms: how long it may give no sign of life before its jobs are rescued.
        """
        await asyncio.to_thread(self._locks.acquire, worker_id)
        self._workers_here = self._workers_here | {worker_id}
        await self._writer.run(
            partial(
                rescue.register,
                worker_id=worker_id,
                host=host,
                pid=pid,
                now_ms=self._now_ms(),
                lease_ms=lease_ms,
            )
        )

    async def renew_lease(self, worker_id: str, *, lease_ms: int) -> bool:
        """Give a sign of life. False: the row is gone, the worker was rescued and holds nothing."""
        return await self._writer.run(
            partial(rescue.renew, worker_id=worker_id, now_ms=self._now_ms(), lease_ms=lease_ms)
        )

    async def retire_worker(self, worker_id: str) -> None:
        """Take a worker away that stops; a job it still holds goes back to the queue."""
        await self._writer.run(partial(rescue.retire, worker_id=worker_id, now_ms=self._now_ms()))
        self._workers_here = self._workers_here - {worker_id}
        self._locks.release(worker_id)

    async def rescue(
        self, worker_id: str, *, max_rescues: int, lease_until_ms: int | None = None
    ) -> list[str]:
        """Free the jobs of a worker that is dead, and take its row away; the ids of the jobs.

        Each becomes available with one more rescue, or is discarded when that makes more than
        `max_rescues`. A call that was open is ended as broken, its usage estimated.

        Args:
            lease_until_ms: the lease that was seen to have run out: nothing happens when the
                worker has renewed it since. None where the process is known to be dead.
        """
        freed = await self._writer.run(
            partial(
                rescue.rescue,
                worker_id=worker_id,
                max_rescues=max_rescues,
                now_ms=self._now_ms(),
                lease_until_ms=lease_until_ms,
            )
        )
        self._locks.forget(worker_id)
        return freed

    async def rescue_orphans(self, *, max_rescues: int) -> list[str]:
        """Free the jobs that are executing under a worker that is not registered; their ids."""
        return await self._writer.run(
            partial(rescue.rescue_orphans, max_rescues=max_rescues, now_ms=self._now_ms())
        )

    # claiming

    async def promote_due(self) -> int:
        """Make waiting jobs available whose time has come; how many."""
        promoted = 0
        while (due_ms := await self.next_due_ms()) is not None and due_ms <= self._now_ms():
            promoted += await self._writer.run(partial(claims.promote, now_ms=self._now_ms()))
        return promoted

    async def claim(
        self,
        worker_id: str,
        lanes: Sequence[Lane],
        limit: int,
        *,
        suspect_from: int | None = None,
        alone: bool = True,
    ) -> list[Claim]:
        """Claim available jobs: best priority first, then oldest, across the lanes.

        Empty also where the worker is not registered (any more). A claim that is cancelled while
        it waits gives back what it took.

        Args:
            lanes: where to look, each with the free room it has.
            limit: jobs in all.
            suspect_from: a job that was rescued so often is claimed by itself, and only when
                `alone`; None: jobs are not suspected.
            alone: the worker has no other job that a suspect could take down with it.
        """
        if limit <= 0 or not any(lane.free > 0 for lane in lanes):
            return []
        claiming = self._writer.submit(
            partial(
                claims.claim,
                worker_id=worker_id,
                lanes=tuple(lanes),
                limit=limit,
                now_ms=self._now_ms(),
                suspect_from=suspect_from,
                alone=alone,
            )
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(self._give_back)
            raise

    def _give_back(self, claiming: asyncio.Future[list[Claim]]) -> None:
        if claiming.cancelled() or claiming.exception() is not None:
            return
        for claim in claiming.result():
            given_back = self._writer.submit(
                Settle(claim, Settlement(State.AVAILABLE), self._now_ms())
            )
            given_back.add_done_callback(_seen)

    # the pace that processes keep together

    async def cool_down(self, limit_key: str, name: str, seconds: float, cause: str) -> None:
        """Let no process start a call on this limit for so long; a longer rest stays.

        Args:
            name: of the limit, for a reader.
        """
        await self._writer.run(
            partial(
                pace.cool_down,
                limit_key=limit_key,
                name=name,
                delay_ms=round(1000 * seconds),
                cause=cause,
                now_ms=self._now_ms(),
            )
        )

    async def end_outage(self, limit_key: str) -> None:
        """End a rest that lasts until the API answers again: it does."""
        await self._writer.run(partial(pace.end_outage, limit_key=limit_key, now_ms=self._now_ms()))

    async def share_limits(self, worker_id: str, uses: Sequence[LimitUse]) -> list[LimitSeen]:
        """Tell the other processes what this one uses, and hear what they tell."""
        return await self._writer.run(
            partial(pace.beat, worker_id=worker_id, uses=tuple(uses), now_ms=self._now_ms())
        )

    # writing a document

    async def begin_call(self, claim: Claim, start: CallStart) -> int:
        """Write down a call before its request is sent, and set aside what it may cost; its key.

        Raises:
            ClaimLost: another worker holds the job now.
            CoolingDown: no call may start on its limit yet; nothing was written.
            BudgetReached: the batch's budget has no room for it; the call was not written down.
        """
        begun = await self._writer.run(Begin(claim, start, self._now_ms()))
        if isinstance(begun, Refusal):
            raise BudgetReached(begun.reason, paused=begun.paused)
        return begun

    def save(self, claim: Claim, call_key: int, seq: int, text: str) -> asyncio.Future[None]:
        """Append a chunk of text; the future resolves when it is committed.

        The same chunk again is no change. Half of a surrogate pair, which no database holds, is
        saved as U+FFFD.

        Args:
            seq: its place in the job's order of saving; `LoadedJob.next_seq` is the first.

        The future fails with ClaimLost where another worker holds the job now, and with
        StoreError where the database could not be written.
        """
        return self._writer.submit(Save(claim, call_key, seq, text), beside=True)

    def save_all(self, saves: Sequence[Save]) -> asyncio.Future[list[Answer]]:
        """Append chunks of many jobs, each as `save` does; the future resolves when all are decided.

        It gives an answer for each: its error where it was not saved. It fails with StoreError where
        the database takes nothing more.
        """
        return self._writer.submit_all(saves, beside=True)

    def judge(self, claim: Claim, call_key: int, verdict: Verdict) -> asyncio.Future[None]:
        """Write down what was found of the open call's seam; resolves when it is committed.

        The future fails with ClaimLost where another worker holds the job now.
        """
        return self._writer.submit(Judge(claim, call_key, verdict), beside=True)

    def count(self, claim: Claim, call_key: int, counted: Counted) -> asyncio.Future[None]:
        """Write down how the open call is billed so far; resolves when it is committed.

        The future fails with ClaimLost where another worker holds the job now.
        """
        return self._writer.submit(Count(claim, call_key, counted), beside=True)

    async def end_call(self, claim: Claim, call_key: int, outcome: CallOutcome) -> None:
        """Write down what came of a call.

        Raises:
            ClaimLost: another worker holds the job now.
        """
        await self._writer.run(End(claim, call_key, outcome, self._now_ms()))

    async def settle(self, claim: Claim, settlement: Settlement) -> None:
        """Give a job back; a call that is still open is ended as broken, its usage estimated.

        Raises:
            ClaimLost: another worker holds the job now.
            ValueError: no worker may ask for this.
        """
        settle.check(settlement)
        await self._writer.run(Settle(claim, settlement, self._now_ms()))

    async def end_call_and_settle(
        self, claim: Claim, call_key: int, outcome: CallOutcome, settlement: Settlement
    ) -> None:
        """`end_call` and `settle` in one transaction."""
        settle.check(settlement)
        ended = call_key, outcome
        await self._writer.run(Settle(claim, settlement, self._now_ms(), ended))


def _ready(database: Database, create: bool) -> None:
    if not create and database.current() is None:
        raise StoreUnavailable(database.missing())
    database.upgrade()


def _again(jobs: Jobs) -> Callable[[], Iterable[JobSpec]]:
    if callable(jobs):
        return jobs
    if isinstance(jobs, Iterator):
        jobs = list(jobs)
    return lambda: jobs


def _sum(a: SubmitReceipt, b: SubmitReceipt) -> SubmitReceipt:
    return replace(
        a,
        new=a.new + b.new,
        present=a.present + b.present,
        replaced=a.replaced + b.replaced,
        kept=a.kept + b.kept,
    )


def _seen(future: asyncio.Future[None]) -> None:
    """Nobody waits for this one; a lost claim or a broken database shows elsewhere."""
    if not future.cancelled():
        future.exception()
