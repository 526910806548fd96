"""What processes on one database tell each other of rate limits: rests, limits, and who is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Row,
    bindparam,
    delete,
    exists,
    func,
    null,
    or_,
    select,
    update,
)

from runner.errors import CoolingDown
from runner.store.bare import quick
from runner.store.engine import storable
from runner.store.portable import insert_into
from runner.store.records import LimitSeen, LimitUse
from runner.store.schema import pace, pace_member, worker

SEEN_MS: Final = 3_000  # who told nothing for so long shares no more
KEPT_MS: Final = 7 * 24 * 3_600_000
DOWN: Final = "the API is down: "  # how the cause of a rest begins that an answer ends

_TOLD: Final = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")

# A rest that was written down later than now is of a clock that was set back: believed, it would
# last as much longer. Small steps are those of a clock that is kept right.
SET_BACK_MS: Final = 5_000

COOLED: Final = select(pace.c.cooled_until_ms, pace.c.cause).where(
    pace.c.limit_key == bindparam("of_limit"),
    pace.c.cooled_until_ms > bindparam("now_ms"),
    pace.c.updated_ms <= bindparam("now_ms") + SET_BACK_MS,
)
PROBE: Final = (
    update(pace)
    .where(pace.c.limit_key == bindparam("of_limit"))
    .values(cooled_until_ms=bindparam("until_ms"), updated_ms=bindparam("now_ms"))
)
# Each trial run has a simulator at another address, and so a limit of its own.
FORGET: Final = delete(pace).where(
    pace.c.updated_ms < bindparam("before_ms"), pace.c.cooled_until_ms < bindparam("now_ms")
)
SEE: Final = select(pace)
MEMBERS: Final = select(pace_member).where(pace_member.c.seen_ms >= bindparam("since_ms"))


def check(connection: Connection, limit_key: str, now_ms: int) -> None:
    """Refuse a call whose limit rests.

    Raises:
        CoolingDown: until when, and why.
    """
    rows, _ = quick(connection, COOLED, {"of_limit": limit_key, "now_ms": now_ms})
    for cooled_until_ms, cause in rows:
        raise resting(cooled_until_ms, cause, now_ms)


def resting(cooled_until_ms: int, cause: str | None, now_ms: int) -> CoolingDown:
    return CoolingDown(cause or "the rate limit was met", (cooled_until_ms - now_ms) / 1000)


def probe(connection: Connection, limit_key: str, probe_ms: int, now_ms: int) -> None:
    """Hold all others while one call tries a server that is down."""
    values = {"of_limit": limit_key, "until_ms": now_ms + probe_ms, "now_ms": now_ms}
    connection.execute(PROBE, values)


def cool_down(
    connection: Connection, limit_key: str, name: str, delay_ms: int, cause: str, now_ms: int
) -> None:
    """Let no call start for so long; a longer rest that is on already stays."""
    until_ms = now_ms + delay_ms
    values = {"cooled_until_ms": until_ms, "cause": storable(cause), "updated_ms": now_ms}
    connection.execute(
        insert_into(connection, pace)
        .values(limit_key=limit_key, name=storable(name), **values)
        .on_conflict_do_update(
            index_elements=["limit_key"],
            set_=values,
            where=or_(pace.c.cooled_until_ms < until_ms, pace.c.updated_ms > now_ms + SET_BACK_MS),
        )
    )


def end_outage(connection: Connection, limit_key: str, now_ms: int) -> None:
    """The server answers again: whoever waited for that may go on."""
    connection.execute(
        update(pace)
        .where(pace.c.limit_key == limit_key, func.substr(pace.c.cause, 1, len(DOWN)) == DOWN)
        .values(cooled_until_ms=0, cause=null(), updated_ms=now_ms)
    )


def beat(
    connection: Connection, worker_id: str, uses: Sequence[LimitUse], now_ms: int
) -> list[LimitSeen]:
    """Tell what one process uses, and see what all know of the same limits."""
    connection.execute(FORGET, {"now_ms": now_ms, "before_ms": now_ms - KEPT_MS})
    for use in uses:
        _tell(connection, use, now_ms)
        if use.wished:
            _join(connection, worker_id, use, now_ms)
        else:
            connection.execute(
                delete(pace_member).where(
                    pace_member.c.limit_key == use.limit_key, pace_member.c.worker_id == worker_id
                )
            )
    keys = [use.limit_key for use in uses]
    members: dict[str, dict[str, tuple[int, int]]] = {key: {} for key in keys}
    since = {"since_ms": now_ms - SEEN_MS}
    for row in connection.execute(MEMBERS.where(pace_member.c.limit_key.in_(keys)), since).all():
        members[row.limit_key][row.worker_id] = (row.in_flight, row.concurrency)
    return [
        LimitSeen(
            limit_key=row.limit_key,
            name=row.name,
            cooled_s=_cooled_ms(row, now_ms) / 1000,
            cause=row.cause,
            requests_per_minute=row.requests_per_minute,
            input_tokens_per_minute=row.input_tokens_per_minute,
            output_tokens_per_minute=row.output_tokens_per_minute,
            members=members[row.limit_key],
        )
        for row in connection.execute(SEE.where(pace.c.limit_key.in_(keys))).all()
    ]


def _cooled_ms(row: Row[Any], now_ms: int) -> int:
    """Milliseconds that are left of a limit's rest."""
    believed = row.updated_ms <= now_ms + SET_BACK_MS
    return max(0, row.cooled_until_ms - now_ms) if believed else 0


def _tell(connection: Connection, use: LimitUse, now_ms: int) -> None:
    told = {name: getattr(use, name) for name in _TOLD if getattr(use, name) is not None}
    insertion = insert_into(connection, pace).values(
        limit_key=use.limit_key, name=storable(use.name), updated_ms=now_ms, **told
    )
    if told:
        changed = [pace.c[name].is_distinct_from(value) for name, value in told.items()]
        condition = changed[0]
        for another in changed[1:]:
            condition = condition | another
        connection.execute(
            insertion.on_conflict_do_update(
                index_elements=["limit_key"], set_=told | {"updated_ms": now_ms}, where=condition
            )
        )
    else:
        connection.execute(insertion.on_conflict_do_nothing())


def _join(connection: Connection, worker_id: str, use: LimitUse, now_ms: int) -> None:
    values = {"concurrency": use.wished, "in_flight": use.in_flight, "seen_ms": now_ms}
    if not connection.execute(select(exists().where(worker.c.id == worker_id))).scalar_one():
        return  # rescued meanwhile: who is no worker shares nothing
    connection.execute(
        insert_into(connection, pace_member)
        .values(limit_key=use.limit_key, worker_id=worker_id, **values)
        .on_conflict_do_update(index_elements=["limit_key", "worker_id"], set_=values)
    )
