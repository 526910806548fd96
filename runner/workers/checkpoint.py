"""Checkpoints: saves the text of one open call as it streams in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from runner import faults
from runner.jobs.call import Verdict
from runner.store.operations import Save
from runner.store.records import Claim, Counted
from runner.store.store import Store
from runner.store.writer import Answer
from runner.workers.settings import WorkerSettings

# While the disk is slow or full, text gathers here in few large pieces rather than in the store's
# queue in thousands of small ones.
HANDED_OVER_AT_ONCE = 4
# A beat of no time: when all that is ready now has run. Streams that are read in the same turn are woken
# together, so it comes when the last of them was read.
_TURN_OVER_S = -1.0


class Saver:
    """Hands a call's text to the store every `checkpoint_s` seconds, or sooner when it is much.

    A chunk is handed over at a beat that all streams of a process share: hundreds of them cost one
    timer, one hand-over and one answer, and the store commits what they have in one go.

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
        self._verdict: Verdict | None = None  # not written down yet
        self.counted = False  # it was told how the call is billed
        self._count: Counted | None = None
        self._parts: list[str] = []
        self._length = 0
        self._loop = asyncio.get_running_loop()
        self._beats = _beats_of(self._loop)
        self._at_s: float | None = None  # the beat at which the text is to be saved
        self._waiting = 0  # writes that are not answered yet
        self._waiting_characters = 0
        self._drained: asyncio.Future[None] | None = None
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
        """Write down the seam's verdict, once, before the first text behind the seam is saved and
        along with it."""
        if not self._judged:
            self._judged = True
            self._verdict = verdict

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
        elif self._at_s is None and not self._due:
            self._wait(_next_beat(self._loop.time(), self._settings.checkpoint_s))

    def gathered(self) -> None:
        """What was added has waited elsewhere for its checkpoint already: it waits no longer than
        it takes to read those that waited with it."""
        if self._parts and not self._due:
            self._wait(_TURN_OVER_S)

    def _wait(self, at_s: float) -> None:
        if at_s != self._at_s:
            self._at_s = at_s
            self._beats.join(self._store, at_s, self)

    def at_beat(self, at_s: float) -> Save | None:
        """What is to be saved at a beat; None where nothing is, or not yet."""
        if at_s != self._at_s:
            return None  # it was saved, or put off
        self._at_s = None
        self._due = self._waiting >= HANDED_OVER_AT_ONCE
        return None if self._due else self._next_chunk()

    def _save_in_turn(self) -> None:
        self._due = self._waiting >= HANDED_OVER_AT_ONCE
        if not self._due:
            self.save()

    def save(self) -> None:
        """Hand over what there is now, without waiting for the commit."""
        if (chunk := self._next_chunk()) is not None:
            _hand_over(self._store, [(self, chunk)])

    def _next_chunk(self) -> Save | None:
        self._due = False
        self._at_s = None
        if not self._parts or self._error is not None:
            return None
        faults.hit("checkpoint.before")
        text = "".join(self._parts)
        self._parts, self._length = [], 0
        if self._verdict is not None:
            verdict, self._verdict = self._verdict, None
            self._watch(self._store.judge(self._claim, self._call_key, verdict))
        if self._count is not None:
            # Side by side they are committed together: it costs no transaction of its own.
            counted, self._count = self._count, None
            self._watch(self._store.count(self._claim, self._call_key, counted))
        chunk = Save(self._claim, self._call_key, self.next_seq, text)
        self.next_seq += 1
        self._waiting += 1
        self._waiting_characters += len(text)
        return chunk

    async def drain(self) -> None:
        """Save everything and wait until it is committed.

        Raises:
            ClaimLost: the job belongs to another worker now.
            StoreError: the database could not take it.
        """
        self.save()
        while self._waiting and self._error is None:
            self._drained = self._loop.create_future()
            await self._drained
        if self._error is not None:
            raise self._error

    def answered(self, length: int, error: BaseException | None) -> None:
        """A write was decided.

        Args:
            length: characters of text in it.
            error: why it was not saved; None once it is committed.
        """
        self._waiting -= 1
        self._waiting_characters -= length
        if error is None:
            if length:
                self.saved_any = True
            if self._due:
                self._save_in_turn()
        elif self._error is None:
            self._error = error
            self._failed(error)
        drained = self._drained
        if drained is not None and not drained.done() and (error or not self._waiting):
            drained.set_result(None)

    def _watch(self, future: asyncio.Future[None]) -> None:
        self._waiting += 1
        future.add_done_callback(self._seen)

    def _seen(self, future: asyncio.Future[None]) -> None:
        self.answered(0, _error_of(future))


class _Beats:
    """The savers of a loop by the beat that they wait for."""

    def __init__(self) -> None:
        self._due: dict[tuple[Store, float], list[Saver]] = {}

    def join(self, store: Store, at_s: float, saver: Saver) -> None:
        """Have a saver asked for its text at a beat."""
        due = self._due.get((store, at_s))
        if due is None:
            due = self._due[store, at_s] = []
            loop = asyncio.get_running_loop()
            if at_s == _TURN_OVER_S:
                loop.call_soon(self._beat, store, at_s)
            else:
                loop.call_at(at_s, self._beat, store, at_s)
        due.append(saver)

    def _beat(self, store: Store, at_s: float) -> None:
        due = self._due.pop((store, at_s))
        chunks = [(saver, chunk) for saver in due if (chunk := saver.at_beat(at_s)) is not None]
        if chunks:
            _hand_over(store, chunks)


_all_beats: WeakKeyDictionary[asyncio.AbstractEventLoop, _Beats] = WeakKeyDictionary()


def _beats_of(loop: asyncio.AbstractEventLoop) -> _Beats:
    beats = _all_beats.get(loop)
    if beats is None:
        # A saver that waited for a beat when its loop ended keeps that loop and its store.
        for ended in [other for other in _all_beats if other.is_closed()]:
            del _all_beats[ended]
        beats = _all_beats[loop] = _Beats()
    return beats


def _hand_over(store: Store, chunks: Sequence[tuple[Saver, Save]]) -> None:
    saving = store.save_all([chunk for _, chunk in chunks])
    saving.add_done_callback(partial(_answer, chunks))


def _answer(chunks: Sequence[tuple[Saver, Save]], saving: asyncio.Future[list[Answer]]) -> None:
    error = _error_of(saving)
    answers = [(None, error)] * len(chunks) if error is not None else saving.result()
    for (saver, chunk), (_, error) in zip(chunks, answers, strict=True):
        saver.answered(len(chunk.text), error)


def _error_of(future: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if future.cancelled() else future.exception()


def _next_beat(now_s: float, every_s: float) -> float:
    """When text that came now is to be saved: at the beat that all streams of a process share, so
    that one transaction takes what all of them have. Each on its own, 32 streams made a hundred
    transactions a second, and each of those writes whole pages for a few words."""
    return now_s if every_s <= 0 else (now_s // every_s + 1) * every_s
