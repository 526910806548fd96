"""The limits of a batch, changed while it is worked on; and the rate limits that processes share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, null, select, update

from runner.jobs.spec import BatchLimits
from runner.store.control import resume
from runner.store.records import PauseCause
from runner.store.schema import batch, pace, pace_member
from runner.store.submit import limits_from_json, limits_json

LIMITS: Final = select(batch).where(batch.c.key == bindparam("of_batch"))
SHARED: Final = select(pace).order_by(pace.c.name, pace.c.limit_key)
MEMBERS: Final = select(pace_member).order_by(pace_member.c.limit_key, pace_member.c.worker_id)


def change(connection: Connection, batch_key: int, changes: dict[str, Any]) -> BatchLimits | None:
    """Change some of a batch's limits; what they are now, None where the batch is gone.

    A batch that its budget paused goes on where the budget has room again.

    Args:
        changes: values by the names of `BatchLimits`.
    """
    row = connection.execute(LIMITS, {"of_batch": batch_key}).one_or_none()
    if row is None:
        return None
    before = limits_from_json(row.limits)
    limits = replace(before, **changes)
    values: dict[str, Any] = {
        "limits": limits_json(limits),
        "max_cost_nano_usd": limits.max_cost_nano_usd,
        "max_output_tokens": limits.max_output_tokens,
    }
    if limits.breaker and not before.breaker:
        values["recent_ends"] = null()  # what was let happen counts no more
    connection.execute(update(batch).where(batch.c.key == batch_key).values(values))
    if {"max_cost_nano_usd", "max_output_tokens"} & changes.keys() and _has_room(row, limits):
        resume(connection, batch_key, [PauseCause.BUDGET])
    return limits


def _has_room(row: Row[Any], limits: BatchLimits) -> bool:
    """Whether the smallest call that had no room would have it now."""
    return all(
        most is None or spent + reserved + (short or 1) <= most
        for most, spent, reserved, short in (
            (
                limits.max_cost_nano_usd,
                row.cost_nano_usd,
                row.reserved_nano_usd,
                row.short_of_nano_usd,
            ),
            (
                limits.max_output_tokens,
                row.spent_output_tokens,
                row.reserved_output_tokens,
                row.short_of_output_tokens,
            ),
        )
    )
