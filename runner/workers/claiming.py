"""What a working process claims: as many jobs as fit, and no more than can start soon."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from runner.messages.pace import batch_limit_key
from runner.store.records import BatchRow, Claim, Lane, OpenLane
from runner.store.store import Store
from runner.workers.job_run import JobRun
from runner.workers.pacing import Pacing
from runner.workers.settings import WorkerSettings
from runner.workers.waiting import Waiting


class Claiming:
    """Claims what fits: within a process's own concurrency, each batch's, and each model's in it.

    A job whose next death would be its last has no other beside it of which nothing is saved: a
    process that dies takes all its jobs along, and only the one at fault must be given up.

    Args:
        running: the runs of this process, by job key; it changes meanwhile.
        batch_keys: the batches to work on; None means all there are.
        simulated: work on the batches whose documents come from the simulator; else on the others.
        clock: monotonic seconds.

    Attributes:
        batches: as they were read last, by key.
        worked_on: keys of the batches that were open to us at some time.
        full: the last claim took all that we have slots for: nothing more fits until a job ends.
        short_of_room: the last claim left jobs in the queue whose calls could not start soon.
    """

    def __init__(
        self,
        store: Store,
        pacing: Pacing,
        waiting: Waiting,
        settings: WorkerSettings,
        running: Mapping[int, JobRun],
        *,
        batch_keys: Collection[int] | None,
        simulated: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batches: dict[int, BatchRow] = {}
        self.worked_on: set[int] = set()
        self.full = False
        self.short_of_room = False
        self._store = store
        self._pacing = pacing
        self._waiting = waiting
        self._settings = settings
        self._running = running
        self._batch_keys = batch_keys
        self._simulated = simulated
        self._clock = clock
        self._promote_at_s = -1.0
        # Of each batch by its key: its name, whether it is simulated, its limits. The key of a
        # batch that was pruned away may come back, as another's.
        self._seen: dict[int, tuple[str, bool, str]] = {}

    async def reread(self) -> list[BatchRow]:
        """The batches that are worked on, as they are now: their owner may change their limits
        while they run."""
        rows = await self._store.batches()
        self.batches |= {batch.key: batch for batch in rows}
        return [row for row in rows if row.key in self.worked_on]

    async def claim(self, worker_id: str) -> list[Claim]:
        """Claim jobs for the slots that are free; empty where there are none, or no jobs."""
        self.full = False
        self.short_of_room = True  # so that room which comes meanwhile is heard of
        await self._promote()
        runs = list(self._running.values())
        suspect_from = max(1, self._settings.max_rescues)
        unproven = [run for run in runs if not run.proven]
        if any(run.claim.rescues >= suspect_from for run in unproven):
            return []
        # Counted first: they take of the room that a budget has, until their calls stand in it.
        beginning = Counter(run.claim.batch_key for run in runs if not run.in_call)
        open_lanes = await self._store.open_lanes(self._batch_keys)
        seen = {lane.batch_key: (lane.batch, lane.simulated, lane.limits) for lane in open_lanes}
        if any(self._seen.get(key) != batch for key, batch in seen.items()):
            await self.reread()
            self._seen |= seen
        lanes = self._lanes(open_lanes, beginning)
        claims: list[Claim] = []
        for batch_key, (batch_lanes, most) in lanes.items():
            free = most
            if self._settings.concurrency is not None:
                ours = self._settings.concurrency - len(self._running) - len(claims)
                free = min(free, ours)
            of_batch = [run for run in self._running.values() if run.claim.batch_key == batch_key]
            free = min(free, self._waiting.room(batch_key, of_batch))
            if free <= 0:
                continue
            found = await self._store.claim(
                worker_id,
                batch_lanes,
                free,
                suspect_from=suspect_from,
                alone=not unproven and not claims,
            )
            claims += found
            if len(found) < min(free, sum(lane.free for lane in batch_lanes)):
                self.full = False
            if any(claim.rescues >= suspect_from for claim in claims):
                self.full = False
                break
        if self._settings.concurrency is not None:
            self.full |= len(self._running) + len(claims) >= self._settings.concurrency
        return claims

    async def _promote(self) -> None:
        """Make jobs available whose time has come; they are noticed as soon as new work is."""
        if self._clock() >= self._promote_at_s:
            self._promote_at_s = self._clock() + self._settings.poll_s
            await self._store.promote_due()

    def _lanes(
        self, open_lanes: Sequence[OpenLane], beginning: Mapping[int, int]
    ) -> dict[int, tuple[list[Lane], int]]:
        """By batch: where to look, each lane with its free room, and how much there is in all.

        Args:
            beginning: jobs that were claimed and have not begun their calls yet, by batch.
        """
        runs = list(self._running.values())
        by_batch = Counter(run.claim.batch_key for run in runs)
        by_lane = Counter((run.claim.batch_key, run.claim.model) for run in runs)
        by_limit = Counter(self._pacing.key(run.claim.model) for run in runs if not run.settling)
        wished = by_limit + Counter({batch_limit_key(key): n for key, n in by_batch.items()})
        self.full, self.short_of_room = True, False
        lanes: dict[int, tuple[list[Lane], int]] = {}
        for lane in open_lanes:
            batch = self.batches.get(lane.batch_key)
            if batch is None or lane.simulated is not self._simulated:
                continue
            self.worked_on.add(batch.key)
            limits = batch.limits
            of_batch = limits.concurrency - by_batch[batch.key]
            most = limits.concurrency_by_model.get(lane.model, limits.concurrency)
            slots = min(most - by_lane[batch.key, lane.model], of_batch)
            if slots >= lane.available:
                self.full = False  # more may have come
            free = min(slots, lane.available)
            if free <= 0:
                continue
            limit_key = self._pacing.key(lane.model)
            wished[limit_key] += free
            wished[batch_limit_key(batch.key)] += free
            # What cannot start soon stays in the queue, where others can take it.
            room = self._pacing.room(batch.key, lane.model, by_limit[limit_key])
            if room < free:
                self.short_of_room = True
                free = room
            if free > 0:
                by_limit[limit_key] += free
                if lane.most is not None:
                    # What the budget has room for, where it had none for some: others would only
                    # be refused.
                    of_batch = min(of_batch, lane.most - beginning.get(batch.key, 0))
                found, _ = lanes.get(batch.key, ([], 0))
                lanes[batch.key] = [*found, Lane(batch.key, lane.model, free)], of_batch
        self._pacing.wish(wished)
        return lanes
