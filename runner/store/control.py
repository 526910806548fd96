"""The pause switch of a batch, and the breaker that throws it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, bindparam, func, null, select, update

from runner.store.breaker import RecentEnds
from runner.store.engine import storable
from runner.store.records import PauseCause
from runner.store.schema import batch
from runner.store.submit import limits_from_json

RECENT_ENDS: Final = select(batch.c.recent_ends, batch.c.paused, batch.c.limits).where(
    batch.c.key == bindparam("of_batch")
)
_OWNERS_TO_END: Final = (PauseCause.USER, PauseCause.BREAKER)


def pause(connection: Connection, batch_key: int, cause: PauseCause, reason: str) -> None:
    """Pause a batch. What only its owner may end is not replaced by what ends without him: a
    spending limit is tried again by whoever waits for it."""
    stays = [PauseCause.COPY, *(() if cause is PauseCause.USER else _OWNERS_TO_END)]
    statement = update(batch).where(
        batch.c.key == batch_key, func.coalesce(batch.c.paused, "").not_in(stays)
    )
    connection.execute(statement.values(paused=cause, pause_reason=storable(reason)))


def resume(connection: Connection, batch_key: int, causes: Collection[PauseCause] | None) -> bool:
    """Whether a pause was ended; that of a copy ends by `copy_marks` alone."""
    statement = update(batch).where(
        batch.c.key == batch_key, batch.c.paused.is_not(None), batch.c.paused != PauseCause.COPY
    )
    if causes is not None:
        statement = statement.where(batch.c.paused.in_(sorted(causes)))
    # A pause that ends is a fresh look: what failed before it trips no breaker any more.
    values = {"paused": null(), "pause_reason": null(), "recent_ends": null()}
    return connection.execute(statement.values(values)).rowcount == 1


def ended(connection: Connection, batch_key: int, job_id: str, error: str | None) -> None:
    """Remember how a job ended, and pause its batch where the breaker trips.

    Args:
        error: the name of the error that ended it; None where its document ended.
    """
    row = connection.execute(RECENT_ENDS, {"of_batch": batch_key}).one()
    before = RecentEnds.from_json(row.recent_ends)
    ends = before.then(None if error is None else storable(error))
    if ends == before:
        return
    values: dict[str, str] = {"recent_ends": ends.to_json()}
    trip = ends.trip()
    if trip is not None and row.paused is None and limits_from_json(row.limits).breaker:
        values["paused"] = PauseCause.BREAKER
        values["pause_reason"] = storable(f"{trip.reason}; the last of them is {job_id}")
    connection.execute(update(batch).where(batch.c.key == batch_key).values(values))
