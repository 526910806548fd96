"""The marks that a copy leaves on a batch, at the place it leaves and at the place it comes to.

Both begin with `paused = 'copy'`, so that nobody works on it, and hold the same id:

- `copied_to`, where it leaves: stays when the copy is whole, so that its documents are not paid for
  at two places, until its owner lifts it.
- `copied_from`, where it arrives: how far the copy is, moved on in the transaction of each slice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Self

from sqlalchemy import Connection

from runner.errors import StoreError, StoreUnavailable, UsageError
from runner.store.bare import Driver
from runner.store.engine import driver, storable
from runner.store.records import PauseCause

FIND: Final = "SELECT key, paused, pause_reason, copied_to, copied_from FROM batch WHERE name = ?"
HOLDERS: Final = """\
SELECT job.worker_id, worker.host, worker.pid, count(*) FROM job
LEFT JOIN worker ON worker.id = job.worker_id
WHERE job.batch_key = ? AND job.state = 'executing'
GROUP BY job.worker_id, worker.host, worker.pid ORDER BY job.worker_id
"""
LEAVE: Final = """\
UPDATE batch SET paused = 'copy', pause_reason = ?, copied_to = ? WHERE key = ?
"""
COME_BACK: Final = """\
UPDATE batch SET paused = ?, pause_reason = ?, copied_to = NULL WHERE key = ?
"""
# Only from where it is known to be: of two processes that copy the same batch one goes on.
MOVE_ON: Final = "UPDATE batch SET copied_from = ? WHERE key = ? AND copied_from = ?"


@dataclass(frozen=True, slots=True)
class Leaving:
    """That a batch is or was copied to another place.

    Args:
        id: the same at both places.
        to: the other place, as messages show it.
        paused: the pause it had before, which goes along.
        done: all of it is there.
        place: the other place's identity; see `Database.identity`.
    """

    id: str
    to: str
    paused: str | None
    pause_reason: str | None
    done: bool = False
    place: str = ""

    def words(self) -> str:
        if self.done:
            return f"it was copied to {self.to} and goes on there"
        return f"it is being copied to {self.to}; the same `runner db copy` again finishes that"


@dataclass(frozen=True, slots=True)
class Arriving:
    """That a batch is or was copied here.

    Args:
        id: the same at both places.
        source: the other place, as messages show it.
        after: key that the last job that arrived has there.
        jobs: how many have arrived.
        events: how many of theirs.
        done: all of it is here.
    """

    id: str
    source: str
    after: int = 0
    jobs: int = 0
    events: int = 0
    done: bool = False

    def words(self) -> str:
        return (
            f"it is being copied here from {self.source} and is not whole yet; the same "
            "`runner db copy` again finishes that"
        )

    def moved_on(self, after: int, jobs: int, events: int) -> Self:
        return replace(self, after=after, jobs=self.jobs + jobs, events=self.events + events)


@dataclass(frozen=True, slots=True)
class Found:
    """A batch and the marks on it."""

    key: int
    paused: PauseCause | None
    pause_reason: str | None
    leaving: Leaving | None
    arriving: Arriving | None

    @property
    def half_here(self) -> bool:
        return self.arriving is not None and not self.arriving.done


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that holds jobs of a batch; without host where it is not registered any more."""

    worker_id: str
    host: str | None
    pid: int | None
    jobs: int


def told(mark: Leaving | Arriving) -> str:
    """A mark as it stands in its column; the same mark always gives the same."""
    return storable(json.dumps(asdict(mark)))


def find(sql: Driver, name: str) -> Found | None:
    for key, paused, reason, copied_to, copied_from in sql.execute(FIND, (name,)).fetchall():
        return Found(
            key,
            None if paused is None else PauseCause(paused),
            reason,
            None if copied_to is None else Leaving(**json.loads(copied_to)),
            None if copied_from is None else Arriving(**json.loads(copied_from)),
        )
    return None


def holders(sql: Driver, batch_key: int) -> list[Holder]:
    return [Holder(*row) for row in sql.execute(HOLDERS, (batch_key,)).fetchall()]


def leave(
    connection: Connection, name: str, copy_id: str, to: str, place: str, wait: bool
) -> Leaving:
    """Let nobody begin anything of a batch any more, because it is copied to another place.

    Args:
        to: the other place, as messages show it.
        place: its identity.
        wait: also where some of its jobs are being worked on: their open calls come to their end.

    Raises:
        StoreUnavailable: it is worked on, and `wait` is false.
        StoreError: it is gone, or not whole itself.
    """
    sql = driver(connection)
    found = find(sql, name)
    if found is None:
        raise StoreError(f"batch '{name}' was pruned away meanwhile; nothing was copied.")
    if found.half_here and found.arriving is not None:
        raise StoreError(f"batch '{name}' cannot be copied: {found.arriving.words()}.")
    if found.paused is PauseCause.COPY and found.leaving is not None:
        return found.leaving
    if not wait and (busy := holders(sql, found.key)):
        raise worked_on(name, busy)
    mark = Leaving(copy_id, to, found.paused, found.pause_reason, place=place)
    sql.execute(LEAVE, (storable(mark.words()), told(mark), found.key))
    return mark


def worked_on(name: str, busy: Sequence[Holder]) -> StoreUnavailable:
    who = ", ".join(
        f"process {one.pid} on {one.host} (worker {one.worker_id[:8]})"
        if one.host is not None
        else f"worker {one.worker_id[:8]}, which is not registered any more"
        for one in busy
    )
    return StoreUnavailable(
        f"batch '{name}' is worked on by {who}. Let it finish, or stop it with Ctrl-C; --wait "
        "pauses the batch, lets its open calls come to their end, and then copies it. Jobs of a "
        "process that is dead are freed by `runner rescue`. Nothing was copied."
    )


def still_leaving(connection: Connection, name: str, mark: Leaving) -> None:
    """The last look before a batch goes on at the other place: nobody goes on with it here.

    Raises:
        StoreError: its owner let it go on here meanwhile.
    """
    sql = driver(connection)
    found = _marked(sql, name, mark)
    if found is None or holders(sql, found.key):
        raise StoreError(
            f"batch '{name}' was let go on by its owner while it was copied (`runner resume "
            "--copied`), so it stays where it is. To copy it all the same, give the command with "
            "--afresh."
        )


def left(connection: Connection, name: str, mark: Leaving) -> None:
    """All of it is at the other place. Where its owner lets it go on here as well, it does."""
    sql = driver(connection)
    found = _marked(sql, name, mark)
    if found is not None:
        done = replace(mark, done=True)
        sql.execute(LEAVE, (storable(done.words()), told(done), found.key))


def _marked(sql: Driver, name: str, mark: Leaving) -> Found | None:
    """The batch, where this very mark is on it."""
    found = find(sql, name)
    if found is None or found.paused is not PauseCause.COPY or found.leaving is None:
        return None
    return found if found.leaving.id == mark.id else None


def come_back(connection: Connection, name: str) -> Leaving | None:
    """Lift the mark of a batch that was copied away; what it was, None where there was none."""
    sql = driver(connection)
    found = find(sql, name)
    if found is None or found.paused is not PauseCause.COPY or found.leaving is None:
        return None
    sql.execute(COME_BACK, (found.leaving.paused, found.leaving.pause_reason, found.key))
    return found.leaving


def move_on(sql: Driver, batch_key: int, before: Arriving, after: Arriving) -> None:
    """Write down that a slice has arrived; the first statement of its transaction.

    Raises:
        StoreError: the copy is not as far as was known.
    """
    if sql.execute(MOVE_ON, (told(after), batch_key, told(before))).rowcount != 1:
        raise StoreError(
            "another process copies this batch at this moment, or threw it away; this one stopped."
        )


def refuse_copied(name: str, paused: str | None, reason: str | None) -> None:
    """Let no job be queued in a batch that is copied: it would be in one of the two only.

    Raises:
        UsageError: so it is.
    """
    if paused == PauseCause.COPY:
        raise UsageError(
            f"nothing can be queued in batch '{name}' here: {reason}. Name that database with "
            f"--db; or, where it shall go on here all the same, `runner resume {name} --copied`."
        )
