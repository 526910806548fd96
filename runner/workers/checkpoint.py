"""Checkpoints: saves the text of one open call as it streams in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runner import faults
from runner.jobs.call import Verdict
from runner.store.records import Claim, Counted
from runner.store.store import Store
from runner.workers.settings import WorkerSettings

# While the disk is slow or full, text gathers here in few large pieces rather than in the store's
# queue in thousands of small ones.
HANDED_OVER_AT_ONCE = 4
# Streams that are read in the same turn are read one after the other.
TOGETHER_S = 0.02


class Saver:
    """Hands a call's text to the store every `checkpoint_s` seconds, or sooner when it is much.

    A chunk is handed over by a timer, not by a task: hundreds of streams cost hundreds of timers,
    and the store commits whatever lies ready in one go.

    Args:
        next_seq: the sequence number of this call's first chunk in its job.
        failed: called once, with the error, when a chunk could not be saved.
    """

    def __init__(
        self,
        store: Store,
        claim: Claim,
        call_key: int,
        next_seq: int,
        settings: WorkerSettings,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.next_seq = next_seq
        self.saved_any = False  # some text is committed
        self._store = store
        self._claim = claim
        self._call_key = call_key
        self._settings = settings
        self._failed = failed
        self._judged = False
        self.counted = False  # it was told how the call is billed
        self._count: Counted | None = None
        self._parts: list[str] = []
        self._length = 0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._waiting_characters = 0
        self._due = False  # there is text whose time to be saved has come
        self._error: BaseException | None = None

    @property
    def checkpoint_s(self) -> float:
        """The longest time that text may wait before it is handed over."""
        return self._settings.checkpoint_s

    @property
    def overfull(self) -> bool:
        """Whether so much waits for the disk that the stream should not be read on."""
        return self._waiting_characters + self._length > self._settings.unsaved_characters

    def judge(self, verdict: Verdict) -> None:
        """Write down the seam's verdict, once, before the first text behind the seam is saved."""
        if not self._judged:
            self._judged = True
            self._watch(self._store.judge(self._claim, self._call_key, verdict), 0)

    def count(self, counted: Counted | None) -> None:
        """Write down how the call is billed along with its next chunk."""
        self.counted = True
        self._count = counted

    def add(self, text: str) -> None:
        """Take text that must be saved within `checkpoint_s`."""
        if not text:
            return
        self._parts.append(text)
        self._length += len(text)
        if self._length >= self._settings.checkpoint_characters:
            self._save_in_turn()
        elif self._timer is None and not self._due:
            loop = asyncio.get_running_loop()
            due = _next_beat(loop.time(), self._settings.checkpoint_s)
            self._timer = loop.call_at(due, self._save_in_turn)

    def gathered(self) -> None:
        """What was added has waited elsewhere for its checkpoint already: it waits no longer than
        it takes to read those that waited with it."""
        if self._parts and not self._due:
            if self._timer is not None:
                self._timer.cancel()
            loop = asyncio.get_running_loop()
            soon_s = min(TOGETHER_S, self._settings.checkpoint_s)
            self._timer = loop.call_at(_next_beat(loop.time(), soon_s), self._save_in_turn)

    def _save_in_turn(self) -> None:
        self._due = len(self._waiting) >= HANDED_OVER_AT_ONCE
        if not self._due:
            self.save()

    def save(self) -> None:
        """Hand over what there is now, without waiting for the commit."""
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._parts or self._error is not None:
            return
        faults.hit("checkpoint.before")
        text, length = "".join(self._parts), self._length
        self._parts, self._length = [], 0
        if self._count is not None:
            # Side by side they are committed together: it costs no transaction of its own.
            counted, self._count = self._count, None
            self._watch(self._store.count(self._claim, self._call_key, counted), 0)
        future = self._store.save(self._claim, self._call_key, self.next_seq, text)
        self.next_seq += 1
        self._watch(future, length)

    async def drain(self) -> None:
        """Save everything and wait until it is committed.

        Raises:
            ClaimLost: the job belongs to another worker now.
            StoreError: the database could not take it.
        """
        self.save()
        while self._waiting and self._error is None:
            await asyncio.wait(tuple(self._waiting), return_when=asyncio.FIRST_COMPLETED)
        if self._error is not None:
            raise self._error

    def _watch(self, future: asyncio.Future[None], length: int) -> None:
        self._waiting[future] = length
        self._waiting_characters += length
        future.add_done_callback(self._saved)

    def _saved(self, future: asyncio.Future[None]) -> None:
        length = self._waiting.pop(future)
        self._waiting_characters -= length
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None and self._error is None:
            self._error = error
            self._failed(error)
            return
        if error is None and length:
            self.saved_any = True
        if self._due:
            self._save_in_turn()


def _next_beat(now_s: float, every_s: float) -> float:
    """When text that came now is to be saved: at the beat that all streams of a process share, so
    that one transaction takes what all of them have. Each on its own, 32 streams made a hundred
    transactions a second, and each of those writes whole pages for a few words."""
    return now_s if every_s <= 0 else (now_s // every_s + 1) * every_s
