"""A batch's budget: what may be spent is set aside before a call, and settled when it ends.

It happens in the transaction that writes the call's row or ends it, so that nothing that was set
aside is ever forgotten: at every moment, what a batch has reserved is the sum of what its open
calls reserved. Every process asks by one conditional UPDATE of the batch's row, so no two can
spend the same dollar.

A call that has no room waits while others of its batch run: they may cost less than was set aside
for them. What it was short of is remembered, so that no more jobs are claimed than calls like it
have room, and none is claimed again and again while not one has. Where nothing runs any more and
there is no room all the same, the batch pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Update,
    bindparam,
    func,
    or_,
    select,
    update,
)

from runner.jobs.price import told_usd
from runner.jobs.states import State
from runner.store.bare import quick
from runner.store.engine import storable
from runner.store.portable import smaller
from runner.store.records import CallStart, Claim, PauseCause, Refusal
from runner.store.schema import batch, job_count

# What says how much of a budget is left.
COLUMNS: Final = (
    batch.c.cost_nano_usd,
    batch.c.reserved_nano_usd,
    batch.c.max_cost_nano_usd,
    batch.c.short_of_nano_usd,
    batch.c.spent_output_tokens,
    batch.c.reserved_output_tokens,
    batch.c.max_output_tokens,
    batch.c.short_of_output_tokens,
)

_COST: Final = batch.c.cost_nano_usd + batch.c.reserved_nano_usd
_TOKENS: Final = batch.c.spent_output_tokens + batch.c.reserved_output_tokens
_NANO_USD: Final = bindparam("need_nano_usd", type_=batch.c.reserved_nano_usd.type)
_OUTPUT: Final = bindparam("need_output", type_=batch.c.reserved_output_tokens.type)
_OF_BATCH: Final = batch.c.key == bindparam("of_batch")


# NULL nano-dollars is a price that nobody knows: then there is no room in a budget of money.
# Where some wait, those that come are taken to be like the smallest that is known.
def _reserve(least_nano_usd: ColumnElement[int], least_output: ColumnElement[int]) -> Update:
    return (
        update(batch)
        .where(
            _OF_BATCH,
            or_(
                batch.c.max_cost_nano_usd.is_(None), batch.c.max_cost_nano_usd >= _COST + _NANO_USD
            ),
            or_(
                batch.c.max_output_tokens.is_(None), batch.c.max_output_tokens >= _TOKENS + _OUTPUT
            ),
        )
        .values(
            reserved_nano_usd=batch.c.reserved_nano_usd + func.coalesce(_NANO_USD, 0),
            reserved_output_tokens=batch.c.reserved_output_tokens + _OUTPUT,
            short_of_nano_usd=smaller(batch.c.short_of_nano_usd, least_nano_usd),
            short_of_output_tokens=smaller(batch.c.short_of_output_tokens, least_output),
        )
    )


RESERVE: Final = _reserve(_NANO_USD, _OUTPUT)
# For several calls at once: their sums, and the smallest of them.
RESERVE_ALL: Final = _reserve(
    bindparam("least_nano_usd", type_=batch.c.reserved_nano_usd.type),
    bindparam("least_output", type_=batch.c.reserved_output_tokens.type),
)
# Jobs that are worked on: one that is between two calls may yet make a smaller one, or end.
_RUNNING: Final = job_count.alias("running")
EXECUTING: Final = (
    select(func.coalesce(func.sum(_RUNNING.c.jobs), 0))
    .where(_RUNNING.c.batch_key == batch.c.key, _RUNNING.c.state == State.EXECUTING)
    .scalar_subquery()
)
ASKED: Final[Select[Any]] = select(
    *COLUMNS, batch.c.pause_reason, EXECUTING.label("executing")
).where(_OF_BATCH)
REFUSE: Final = (
    update(batch)
    .where(_OF_BATCH)
    .values(
        short_of_nano_usd=bindparam("short_of_money", type_=batch.c.short_of_nano_usd.type),
        short_of_output_tokens=bindparam("short_of_output", type_=_OUTPUT.type),
    )
)
PAUSE: Final = (
    update(batch)
    .where(_OF_BATCH, batch.c.paused.is_(None))
    .values(paused=PauseCause.BUDGET, pause_reason=bindparam("reason"))
)


def fitting(row: Row[Any], executing: int) -> int | None:
    """How many calls like the smallest that is known a batch has room for.

    None where none was ever refused. Where nothing runs, one may try all the same: it goes on, or
    pauses the batch.

    Args:
        row: of `batch`.
        executing: its jobs that are worked on.
    """
    shorts = (row.short_of_nano_usd, row.short_of_output_tokens)
    most: list[int] = [
        max(0, left) // short
        for left, short in zip(_left(row), shorts, strict=True)
        if left is not None and short
    ]
    if not most:
        return None
    return min(most) if executing else max(1, min(most))


def reserve(connection: Connection, claim: Claim, start: CallStart) -> Refusal | None:
    """Set aside what a call may cost; None: it may be made.

    Where it is refused and nothing else of the batch runs, the batch is paused and says why.
    """
    known = start.rates is not None
    asked = {
        "of_batch": claim.batch_key,
        "need_nano_usd": start.reservation.nano_usd if known else None,
        "need_output": start.reservation.output_tokens,
    }
    priced = known or not start.reservation.needs_price
    if priced and quick(connection, RESERVE, asked)[1]:
        return None
    row = connection.execute(ASKED, asked).one()
    money, output = _left(row)
    short = {
        "of_batch": claim.batch_key,
        "short_of_money": _smallest(row.short_of_nano_usd, asked["need_nano_usd"], money),
        "short_of_output": _smallest(row.short_of_output_tokens, asked["need_output"], output),
    }
    connection.execute(REFUSE, short)
    reason = storable(_words(claim, start, row))
    hopeless = not known and (row.max_cost_nano_usd is not None or not priced)
    if (row.executing > 1 or row.reserved_output_tokens) and not hopeless:
        return Refusal(reason, paused=False)
    connection.execute(PAUSE, {"of_batch": claim.batch_key, "reason": reason})
    return Refusal(row.pause_reason or reason, paused=True)


def reserve_all(
    connection: Connection, asked: Sequence[tuple[Claim, CallStart]]
) -> list[Refusal | None]:
    """Set aside what calls of one batch may cost, at once where there is room for all of them."""
    if all(start.rates is not None for _, start in asked):
        needs = [start.reservation for _, start in asked]
        money = [need.nano_usd for need in needs]
        output = [need.output_tokens for need in needs]
        together = {
            "of_batch": asked[0][0].batch_key,
            "need_nano_usd": sum(money),
            "need_output": sum(output),
            "least_nano_usd": min(money),
            "least_output": min(output),
        }
        if connection.execute(RESERVE_ALL, together).rowcount:
            return [None] * len(asked)
    return [reserve(connection, claim, start) for claim, start in asked]


def _left(row: Row[Any]) -> tuple[int | None, int | None]:
    """Nano-dollars and output tokens that are neither spent nor set aside; None: no budget."""
    money, output = row.max_cost_nano_usd, row.max_output_tokens
    return (
        None if money is None else money - row.cost_nano_usd - row.reserved_nano_usd,
        None if output is None else output - row.spent_output_tokens - row.reserved_output_tokens,
    )


def _smallest(known: int | None, need: int | None, left: int | None) -> int | None:
    """The smallest call that has no room, as far as is known.

    Args:
        known: the smallest so far; where it fits into what is left, it is not the one that waits.
        need: of the call that is refused; it may fit here and not in the other budget.
    """
    if left is None:
        return None
    if need is None or need <= left:
        return known
    return need if known is None or known <= left else min(known, need)


def _words(claim: Claim, start: CallStart, row: Row[Any]) -> str:
    """Why a call is refused, for the reader."""
    need = start.reservation
    if start.rates is None and (row.max_cost_nano_usd is not None or need.needs_price):
        whose = "its" if row.max_cost_nano_usd is not None else f"job {claim.job_id}'s"
        return (
            f"{whose} budget `max_cost_usd` cannot be kept, for the price of {start.model} is not "
            "known; give it under `prices` in the job file"
        )
    money, _ = _left(row)
    if money is not None and need.nano_usd > money:
        key, bound, spent = (
            "max_cost_usd",
            told_usd(row.max_cost_nano_usd),
            told_usd(row.cost_nano_usd),
        )
        aside, asks = told_usd(row.reserved_nano_usd), f"cost {told_usd(need.nano_usd)}"
    else:
        key, bound = "max_output_tokens", f"{row.max_output_tokens:,}"
        spent, aside = f"{row.spent_output_tokens:,}", f"{row.reserved_output_tokens:,}"
        asks = f"write {need.output_tokens:,} tokens"
    running = f", {aside} are set aside for calls that run" if row.reserved_output_tokens else ""
    return (
        f"its budget `{key}` of {bound} has no room for the next call: {spent} are spent{running}, "
        f"and the next call of job {claim.job_id} may {asks}"
    )
