"""The one thread that writes: group commits.

Callers hand over operations; the thread takes all that wait, applies them in one transaction,
commits, and only then answers: an answer means that it is on the disk. No task can interrupt a
transaction, because no task runs one.

An operation is a function of the connection. It may be applied more than once (its transaction
can be rolled back for a neighbour's fault), and it raises a `RunnerError` only while it has not
written anything: so one that is refused does not spoil its neighbours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection

from runner import faults
from runner.errors import StoreBlocked, StoreError, StoreUnavailable
from runner.store import operations
from runner.store.database import Database, Replaced, Session
from runner.store.patience import Patience

log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[Connection], T]

BATCH_SIZE: Final = 512
MAX_WAITING: Final = 20_000
TRIES: Final = 5  # of a transaction that another one got in the way of


# What an operation gave, or its error.
Answer = tuple[Any, BaseException | None]


class _Entry(NamedTuple):
    operations: Sequence[Operation[Any]]
    future: asyncio.Future[Any]
    beside: bool
    many: bool  # the future resolves to a list of answers


class Writer:
    """Owns the writing connection of one database. The thread starts with the first operation.

    Args:
        afresh: applied before anything else to a database that may lack what was committed.
    """

    def __init__(
        self,
        database: Database,
        patience: Patience | None = None,
        afresh: Operation[None] | None = None,
    ) -> None:
        self.replaced = 0  # times that another server took the database's place
        self._afresh = afresh
        self._afresh_due = False
        self._database = database
        self._patience = patience or Patience()
        self._session: Session = database.writing()
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._waiting = 0  # operations in the queue
        self._lock = threading.Lock()
        self._refusal: StoreError | None = None  # set once nothing is taken any more
        self._thread: threading.Thread | None = None

    def submit(self, operation: Operation[T], *, beside: bool = False) -> asyncio.Future[T]:
        """Hand over an operation; the future resolves when it is committed.

        Args:
            beside: it locks the rows that it relies on, so that other processes may write at the
                same time where the database lets them.

        Cancelling the future does not take the operation back. The future fails with StoreError
        when the database could not do it.
        """
        return self._hand_over((operation,), beside, many=False)

    def submit_all(
        self, operations: Sequence[Operation[Any]], *, beside: bool = False
    ) -> asyncio.Future[list[Answer]]:
        """Hand over many operations as one; what each gave, or its error, once all are decided.

        A future, a look at the queue and a call into the event loop for each cost more than most
        operations do. The future itself fails with StoreError where none could be taken.
        """
        return self._hand_over(operations, beside, many=True)

    def _hand_over(
        self, operations: Sequence[Operation[Any]], beside: bool, *, many: bool
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._lock:
            refusal = self._refusal
            if refusal is None and self._waiting >= MAX_WAITING:
                refusal = StoreUnavailable(
                    f"{MAX_WAITING} writes wait for {self._database.shown}: its disk is too slow or hangs."
                )
            if refusal is None:
                self._waiting += len(operations)
                self._queue.put(_Entry(operations, future, beside, many))
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="runner-store-writer", daemon=True
                    )
                    self._thread.start()
        if refusal is not None:
            future.set_exception(refusal)
        return future

    async def run(self, operation: Operation[T]) -> T:
        """Hand over an operation and wait until it is committed."""
        return await asyncio.shield(self.submit(operation))

    async def close(self) -> None:
        """Apply all that waits, then end the thread. SQLite folds the log into the file when the
        last connection to it closes."""
        with self._lock:
            thread, first = self._thread, self._refusal is None
            self._refusal = self._refusal or StoreError(
                f"the store of {self._database.shown} is closed."
            )
        if thread is None:
            return
        if first:
            self._queue.put(None)
        # Shielded: a cancelled close must not leave a thread that nobody waits for.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, thread.join))

    def _run(self) -> None:
        waiting: list[_Entry] = []
        try:
            while True:
                waiting, last = self._take()
                _deliver(waiting, self._apply(waiting))
                faults.hit("commit.acknowledged")
                waiting = []
                if last:
                    break
        except BaseException as error:  # whoever waits must hear of it, whatever it was
            died = StoreError(
                f"the writer of {self._database.shown} stopped: {error!r}. Start again."
            )
            with self._lock:
                self._refusal = died
            with contextlib.suppress(queue.Empty):
                while True:
                    entry = self._queue.get_nowait()
                    if entry is not None:
                        waiting.append(entry)
            _deliver(waiting, [(None, died)] * _count(waiting))
        finally:
            self._session.close()

    def _take(self) -> tuple[list[_Entry], bool]:
        """All that waits, up to a batch and the rest of its last entry; and whether it was the
        last."""
        batch: list[_Entry] = []
        operations = 0
        last = False
        entry = self._queue.get()
        with contextlib.suppress(queue.Empty):
            while True:
                if entry is None:
                    last = True
                    break
                batch.append(entry)
                operations += len(entry.operations)
                if operations >= BATCH_SIZE:
                    break
                entry = self._queue.get_nowait()
        with self._lock:
            self._waiting -= operations
        return batch, last

    def _apply(self, batch: Sequence[_Entry]) -> list[Answer]:
        if not batch:
            return []
        # The very same work again after an error: a database that lost the answer to a commit
        # knows by it that it has been asked before.
        work = partial(self._begin_afresh if self._afresh_due else _work, batch)
        beside = not self._afresh_due and all(entry.beside for entry in batch)
        tries = 0
        while True:
            try:
                answers = self._session.transaction(work, beside=beside)
            except Replaced:
                log.warning(
                    "another server holds %s now, and may lack the last commits; the jobs of this "
                    "process go on from what it has",
                    self._database.shown,
                )
                self.replaced += 1
                self._afresh_due = self._afresh is not None
                work, beside = partial(self._begin_afresh, batch), False
            except Exception as error:  # it is handed to whoever asked for the operation
                tries += 1
                if tries < TRIES and self._database.passing(error):
                    continue
                cause = self._database.explained(error)
                if cause is not None:
                    # The file or the disk, not an operation: one by one they would fail alike.
                    self._session.disconnect()
                    if isinstance(cause, StoreBlocked) and self._patience.wait(cause):
                        continue
                    cause.__cause__ = error
                    return [(None, cause)] * _count(batch)
                if _count(batch) == 1:
                    return [(None, self._database.refused(error))]
                break
            else:
                faults.hit("commit.after")
                self._afresh_due = False
                self._patience.worked()
                return answers
        return [answer for entry in _one_by_one(batch) for answer in self._apply([entry])]

    def _begin_afresh(self, batch: Sequence[_Entry], connection: Connection) -> list[Answer]:
        if self._afresh is not None:
            self._afresh(connection)
        return _work(batch, connection)


def _count(batch: Sequence[_Entry]) -> int:
    return sum(len(entry.operations) for entry in batch)


def _one_by_one(batch: Sequence[_Entry]) -> list[_Entry]:
    return [
        entry._replace(operations=(operation,)) for entry in batch for operation in entry.operations
    ]


def _work(batch: Sequence[_Entry], connection: Connection) -> list[Answer]:
    answers: list[Answer] = [
        *operations.apply(
            connection, [operation for entry in batch for operation in entry.operations]
        )
    ]
    faults.hit("commit.before")
    return answers


def _deliver(batch: Sequence[_Entry], answers: Sequence[Answer]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Entry, Sequence[Answer]]]] = {}
    begin = 0
    for entry in batch:
        end = begin + len(entry.operations)
        by_loop.setdefault(entry.future.get_loop(), []).append((entry, answers[begin:end]))
        begin = end
    for loop, pairs in by_loop.items():
        # A closed loop has nobody left who could be told.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: Sequence[tuple[_Entry, Sequence[Answer]]]) -> None:
    for entry, answers in pairs:
        future = entry.future
        if future.done():
            continue
        if entry.many:
            future.set_result(list(answers))
            continue
        ((value, error),) = answers
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
