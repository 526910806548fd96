"""What a worker that waits does about paused batches: says so, and asks after spending limits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable

from runner.store.records import BatchRow, PauseCause
from runner.store.store import Store
from runner.workers.job_run import JobRun
from runner.workers.progress import Progress


class Waiting:
    """Keeps an eye on batches that are paused, for a worker that does not end because of it.

    Nobody tells when a spending limit is lifted: it is raised in the Console, or a new month
    begins. So every `ask_again_s` one job of the batch goes ahead; when some text of it is saved
    the others follow, and when it is refused the batch is paused again. Every other pause ends by
    its owner's order alone.

    Args:
        ask_again_s: seconds between two such tries.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        progress: Progress,
        ask_again_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._progress = progress
        self._ask_again_s = ask_again_s
        self._clock = clock
        self._told: dict[int, PauseCause] = {}
        self._asks_at_s: dict[int, float] = {}
        self._on_trial: set[int] = set()

    async def look(self, rows: Iterable[BatchRow], busy: Collection[int]) -> None:
        """See which of our batches are paused, and try those whose time has come.

        Args:
            busy: keys of batches that still have jobs running here; they are not tried yet, for
                those jobs would all go on at once.
        """
        for row in rows:
            if row.paused is None:
                self._asks_at_s.pop(row.key, None)
                if row.key not in self._on_trial:
                    self._told.pop(row.key, None)
                continue
            self._on_trial.discard(row.key)
            if not row.unfinished:
                continue
            self._tell(row)
            if row.paused is not PauseCause.SPEND_CAP:
                continue
            asks_at_s = self._asks_at_s.setdefault(row.key, self._clock() + self._ask_again_s)
            if self._clock() >= asks_at_s and row.key not in busy:
                del self._asks_at_s[row.key]
                # First, so that no claim comes between.
                self._on_trial.add(row.key)
                if not await self._store.resume(row.key, causes=[PauseCause.SPEND_CAP]):
                    self._on_trial.discard(row.key)

    def room(self, batch_key: int, runs: Iterable[JobRun]) -> int:
        """How many more jobs of a batch may be claimed: one, while it is being tried.

        Args:
            runs: the jobs of that batch that this process works on now.
        """
        if batch_key not in self._on_trial:
            return sys.maxsize
        running = list(runs)
        if any(run.proven for run in running):
            self._on_trial.discard(batch_key)
            return sys.maxsize
        return max(0, 1 - len(running))

    def _tell(self, row: BatchRow) -> None:
        if self._told.get(row.key) is row.paused or row.paused is None:
            return
        self._told[row.key] = row.paused
        if row.paused is PauseCause.COPY:
            self._progress.notice(f"{row.name} is left alone: {row.pause_reason}")
            return
        asked = ""
        if row.paused is PauseCause.SPEND_CAP:
            asked = f"; it is tried again every {self._ask_again_s / 60:.0f} minutes"
        self._progress.notice(
            f"{row.name} is paused ({row.paused}): {row.pause_reason}. This run waits until "
            f"`runner resume {row.name}` or another order lets it go on{asked}"
        )
