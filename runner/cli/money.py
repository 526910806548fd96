"""Money for people: nano-dollars as dollars."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.store.records import BatchRow

_USD = Decimal(10) ** 9
_PLACES = ((10, 2), (Decimal("0.1"), 4))
_MOST_PLACES = 6


def dollars(nano_usd: int, *, estimated: bool = False, like: int | None = None) -> str:
    """An amount such as `$12.34`, or `~$0.0123` where it is in part estimated.

    Args:
        like: the largest amount it stands beside: large sums need no small change.
    """
    usd = Decimal(nano_usd) / _USD
    largest = abs(Decimal(nano_usd if like is None else like)) / _USD
    places = next((places for least, places in _PLACES if largest >= least), _MOST_PLACES)
    if not nano_usd:
        places = min(places, 2)
    told = usd.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    sign = "-" if usd < 0 else ""
    if nano_usd and not told:
        told, sign = Decimal(1).scaleb(-places), f"{sign}<"
    return f"{'~' if estimated else ''}{sign}${abs(told):,}"


def cost_words(nano_usd: int, unpriced_calls: int, *, estimated: bool = False) -> str:
    """A cost in words; what nobody knows the price of is said and never counted as nothing."""
    if not unpriced_calls:
        return dollars(nano_usd, estimated=estimated)
    calls = "1 call" if unpriced_calls == 1 else f"{unpriced_calls:,} calls"
    unknown = f"price unknown: {calls}"
    return f"{dollars(nano_usd, estimated=estimated)} ({unknown})" if nano_usd else unknown


def cost_cell(nano_usd: int, unpriced_calls: int, *, estimated: bool = False) -> str:
    """The same for a column: what only unpriced calls make up is not known."""
    if unpriced_calls and not nano_usd:
        return "unknown"
    return dollars(nano_usd, estimated=estimated)


def spent(row: BatchRow) -> str:
    """What a batch cost so far, of its budget where it has one."""
    told = cost_words(row.cost_nano_usd, row.unpriced_calls, estimated=row.usage.estimated)
    budget = row.limits.max_cost_nano_usd
    return told if budget is None else f"{told} of {dollars(budget)}"


def budget_lines(row: BatchRow) -> list[str]:
    """A line for each budget of a batch, and one for calls whose price nobody knows."""
    lines = []
    if (most := row.limits.max_cost_nano_usd) is not None:
        cost = dollars(row.cost_nano_usd, estimated=row.usage.estimated, like=most)
        running = dollars(row.reserved_nano_usd, like=most)
        lines.append(
            f"{row.name}: {cost} of a budget of {dollars(most)} spent"
            + (f", {running} set aside for running calls" if row.reserved_nano_usd else "")
        )
    if (tokens := row.limits.max_output_tokens) is not None:
        lines.append(
            f"{row.name}: {row.spent_output_tokens:,} of a budget of {tokens:,} output tokens spent"
        )
    if row.unpriced_calls:
        calls = "1 call" if row.unpriced_calls == 1 else f"{row.unpriced_calls:,} calls"
        lines.append(f"{row.name}: price unknown: {calls}, in no cost; `prices:` names a price")
    return lines


def spent_by_all(rows: Sequence[BatchRow]) -> str:
    """What several batches cost so far together, in few words."""
    cost = sum(row.cost_nano_usd for row in rows)
    unpriced = sum(row.unpriced_calls for row in rows)
    budgets = [row.limits.max_cost_nano_usd for row in rows]
    told = cost_words(cost, unpriced, estimated=any(row.usage.estimated for row in rows))
    known = [budget for budget in budgets if budget is not None]
    return f"{told} of {dollars(sum(known))}" if known and len(known) == len(budgets) else told
