"""The pause switch of a batch, and the breaker that throws it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, func, null, select, update

from runner.store.bare import quick
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


def ended(connection: Connection, batch_key: int, jobs: Sequence[tuple[str, str | None]]) -> None:
    """Remember how jobs ended, and pause their batch where the breaker trips.

    Args:
        jobs: the id of each, and the name of the error that ended it; None where its document
            ended.
    """
    ((recent, paused, limits),), _ = quick(connection, RECENT_ENDS, {"of_batch": batch_key})
    ends = before = RecentEnds.from_json(recent)
    values: dict[str, str] = {}
    for job_id, error in jobs:
        last, ends = ends, ends.then(None if error is None else storable(error))
        trip = None if ends == last else ends.trip()
        if trip is None or values or paused is not None:
            continue
        if limits_from_json(limits).breaker:
            values["paused"] = PauseCause.BREAKER
            values["pause_reason"] = storable(f"{trip.reason}; the last of them is {job_id}")
    if ends != before:
        values["recent_ends"] = ends.to_json()
        connection.execute(update(batch).where(batch.c.key == batch_key).values(values))
