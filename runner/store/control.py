"""The pause switch of a batch."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, func, null, update

from runner.store.engine import storable
from runner.store.records import PauseCause
from runner.store.schema import batch


def pause(connection: Connection, batch_key: int, cause: PauseCause, reason: str) -> None:
    connection.execute(
        update(batch)
        .where(
            batch.c.key == batch_key,
            # What the user paused, nobody else may take over: it outlives the next run.
            func.coalesce(batch.c.paused, "") != PauseCause.USER,
        )
        .values(paused=cause, pause_reason=storable(reason))
    )


def resume(connection: Connection, batch_key: int, causes: Collection[PauseCause] | None) -> bool:
    """Whether a pause was ended."""
    statement = update(batch).where(batch.c.key == batch_key, batch.c.paused.is_not(None))
    if causes is not None:
        statement = statement.where(batch.c.paused.in_(sorted(causes)))
    resumed = connection.execute(statement.values(paused=null(), pause_reason=null()))
    return resumed.rowcount == 1
