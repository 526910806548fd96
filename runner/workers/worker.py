"""A working process: claims jobs to fill its free slots, runs them, keeps its lease, rescues."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from random import Random

import anyio
from anyio.abc import TaskGroup

from runner import faults
from runner.errors import RunnerError, StoreBlocked
from runner.jobs.price import Rates
from runner.messages.client import MessagesClient
from runner.messages.prices import price_of
from runner.store.records import BatchRow, PauseCause
from runner.store.store import Store
from runner.workers.caching import Caching
from runner.workers.claiming import Claiming
from runner.workers.job_run import Interruption, JobRun, Workplace
from runner.workers.lease import Lease
from runner.workers.models import Models
from runner.workers.money import Money
from runner.workers.needs import Needs
from runner.workers.pacing import Pacing
from runner.workers.progress import Progress
from runner.workers.rescue import Rescuer
from runner.workers.settings import WorkerSettings
from runner.workers.waiting import Waiting
from runner.workers.watch import Watch

log = logging.getLogger(__name__)


class Worker:
    """Works on queued jobs.

    Args:
        batch_keys: the batches to work on; None means all there are.
        simulated: work on the batches whose documents come from the simulator; else on the others.
        until_final: end when every job of these batches is final or its batch is paused; else
            work until stopped. A batch that its owner paused while we worked on it is waited for.
        wait: a batch that anything else paused is waited for as well.
        settled: called with each job's key when this process has settled it, whatever its state.
    """

    def __init__(
        self,
        store: Store,
        client: MessagesClient,
        *,
        batch_keys: Collection[int] | None = None,
        simulated: bool = False,
        until_final: bool = True,
        wait: bool = False,
        settings: WorkerSettings = WorkerSettings(),
        progress: Progress | None = None,
        settled: Callable[[int], None] | None = None,
        random: Random | None = None,
    ) -> None:
        self.progress = progress or Progress()
        self._store = store
        self._batch_keys = batch_keys
        self._simulated = simulated
        self._until_final = until_final
        self._waits = wait or not until_final
        self._settings = settings
        self._settled = settled
        random = random or Random()  # noqa: S311  jitter needs no secrecy
        self._pacing = Pacing(
            store,
            client.base_url,
            client.credential,
            notice=self.progress.notice,
            room=self._more_may_start,
            random=random,
        )
        self._running: dict[int, JobRun] = {}
        self._wake = anyio.Event()
        self._worker_id = ""
        self._waiting = Waiting(store, self.progress, settings.ask_again_s)
        self._claiming = Claiming(
            store,
            self._pacing,
            self._waiting,
            settings,
            self._running,
            batch_keys=batch_keys,
            simulated=simulated,
        )
        self._place = Workplace(
            store=store,
            client=client,
            models=Models(store, client, self.progress.notice),
            needs=Needs(store),
            caching=Caching(
                store,
                batch=lambda key: self._claiming.batches[key],
                slots=self._slots,
                rates=self._rates,
            ),
            pacing=self._pacing,
            money=Money(client.base_url, lambda key: self._claiming.batches[key].limits),
            progress=self.progress,
            settings=settings,
            random=random,
            max_attempts=lambda key: self._claiming.batches[key].limits.max_attempts,
            batch_name=lambda key: self._claiming.batches[key].name,
        )

    def stop(self) -> None:
        """Stop soon: no new calls; what streams is saved, the jobs are handed back."""
        self.progress.stopping = True
        self._store.stop_waiting()
        self._interrupt_all(Interruption.STOP)
        self._wake.set()

    async def run(self) -> None:
        """Work until there is nothing left to do, or until stopped.

        While the disk is full or another program locks the database, nothing more is claimed or
        sent; streams are read no further than fits in memory, and end when the lease does. What
        they gave is saved, and the work goes on, when there is room again.

        Raises:
            StoreError: the database can take nothing more. Nothing saved is lost.
        """
        self._store.wait_when_blocked(self._blocked)
        if self.progress.stopping:
            self._store.stop_waiting()
        try:
            while not await self._work_under_one_lease():
                self.progress.notice("the lease was lost; going on under a new one")
        except BaseExceptionGroup as group:
            # Whatever ended the task groups: callers see the one error that was the cause.
            error = _cause(group)
            raise error from error.__cause__
        finally:
            self._store.stop_waiting()

    def _blocked(self, error: StoreBlocked | None) -> None:
        if error is None:
            self.progress.notice("the database can be written again; the work goes on")
        else:
            self.progress.notice(
                f"{error.what}: nothing more is asked for, and nothing is lost. {error.remedy}; "
                "the work then goes on by itself"
            )

    async def _work_under_one_lease(self) -> bool:
        """True: done or stopped. False: the lease was lost, the jobs are handed back."""
        self._worker_id = uuid.uuid4().hex
        settings = self._settings
        lease = Lease(self._store, self._worker_id, settings)
        faults.hit("worker.before_registration")
        await self._store.register_worker(
            self._worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            lease_ms=round(settings.lease_s * 1000),
        )
        faults.hit("worker.registered")
        rescuer = Rescuer(self._store, self._worker_id, settings, self.progress)
        await rescuer.look()
        lost = False
        async with anyio.create_task_group() as background:

            async def keep_lease() -> None:
                nonlocal lost
                await lease.keep()
                lost = True
                self._interrupt_all(Interruption.LEASE)
                self._wake.set()

            background.start_soon(keep_lease)
            background.start_soon(rescuer.run)
            background.start_soon(self._store.listen, lambda: self._wake.set())
            watch = Watch(self._store, self._worker_id, self._running, settings.watch_s)
            background.start_soon(watch.run)
            background.start_soon(self._pacing.keep, self._worker_id, self._claiming.reread)
            async with anyio.create_task_group() as jobs:
                await self._produce(jobs, lambda: lost)
            background.cancel_scope.cancel()
        faults.hit("worker.before_retirement")
        await self._store.retire_worker(self._worker_id)
        return not lost

    async def _produce(self, jobs: TaskGroup, lost: Callable[[], bool]) -> None:
        """Claim jobs to fill free slots, until all is done, or the process must let go."""
        while not (self.progress.stopping or lost()):
            self._wake = anyio.Event()
            claims = await self._claiming.claim(self._worker_id)
            for claim in claims:
                faults.hit("job.claimed")
                run = self._running[claim.job_key] = JobRun(claim, self._place)
                jobs.start_soon(self._run_job, run)
            if self.progress.stopping or lost():
                self._interrupt_all(Interruption.STOP)  # those that were just being claimed
            elif claims and not self._claiming.full:
                continue  # there may be more
            else:
                if self._waits and not claims:
                    busy = {run.claim.batch_key for run in self._running.values()}
                    await self._waiting.look(await self._our_batches(), busy)
                if self._until_final and not self._running and await self._all_done():
                    return
                with anyio.move_on_after(self._settings.poll_s):
                    await self._wake.wait()

    def _more_may_start(self) -> None:
        """The API gives more room than before: see whether a job waited for it in the queue."""
        if self._claiming.short_of_room:
            self._wake.set()

    async def _run_job(self, run: JobRun) -> None:
        try:
            await run.run()
            faults.hit("settle.after")
        finally:
            del self._running[run.claim.job_key]
            self._wake.set()
        if self._settled is not None:
            self._settled(run.claim.job_key)

    async def _all_done(self) -> bool:
        """Whether nothing is left that anyone could work on without the owner's help."""
        return not any(
            batch.unfinished and self._may_go_on(batch) for batch in await self._our_batches()
        )

    def _rates(self, batch_key: int, model: str) -> Rates | None:
        """What calls of a batch to a model cost, short ones; None where nobody knows."""
        own = self._claiming.batches[batch_key].limits.prices
        url = self._place.client.base_url
        price = price_of(model, base_url=url, at=datetime.now(UTC), own=own)
        return None if price is None else price.base

    def _slots(self, batch_key: int) -> int:
        """How many calls of a batch may be open at once in this process."""
        most = self._claiming.batches[batch_key].limits.concurrency
        ours = self._settings.concurrency
        return most if ours is None else min(most, ours)

    async def _our_batches(self) -> list[BatchRow]:
        return [
            batch
            for batch in await self._store.batches()
            if batch.simulated is self._simulated
            and (self._batch_keys is None or batch.key in self._batch_keys)
        ]

    def _may_go_on(self, batch: BatchRow) -> bool:
        """Whether a batch is open, or its owner paused it before our eyes and may resume it."""
        if batch.paused is PauseCause.COPY:
            return False  # it goes on at another place
        if batch.paused is None or self._waits:
            return True
        return batch.paused is PauseCause.USER and batch.key in self._claiming.worked_on

    def _interrupt_all(self, why: Interruption) -> None:
        for run in self._running.values():
            run.interrupt(why)


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that made a task group fall: ours before others, a plain one before a group."""
    leaves = [
        _cause(error) if isinstance(error, BaseExceptionGroup) else error
        for error in group.exceptions
    ]
    return next((error for error in leaves if isinstance(error, RunnerError)), leaves[0])
