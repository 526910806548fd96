"""Money for people: nano-dollars as dollars."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

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


def usd_json(nano_usd: int | None) -> float | None:
    """An amount in dollars for JSON; exact to the nano-dollar below some four million dollars."""
    return None if nano_usd is None else nano_usd / 10**9
