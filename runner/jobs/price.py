"""Money, exactly: nano-dollars as whole numbers, so that sums of a million calls stay true."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from runner.jobs.call import Usage

NANO: Final = 1_000_000_000  # nano-dollars in a dollar
_MILLION: Final = 1_000_000


def nano_usd(dollars: Decimal | str | int | float) -> int:
    """Dollars as nano-dollars, rounded half up.

    A float is taken as it prints: 0.1 is a tenth of a dollar.
    """
    exact = Decimal(str(dollars)) * NANO
    return int(exact.to_integral_value(ROUND_HALF_UP))


def usd(nano: int) -> Decimal:
    """Nano-dollars as dollars, exactly."""
    return Decimal(nano) / NANO


def usd_json(nano: int | None) -> float | None:
    """Nano-dollars as dollars for JSON, exact below some four million dollars; None stays None."""
    return None if nano is None else nano / NANO


def told_usd(nano: int) -> str:
    """An amount as exact as a budget is kept, and no longer than a reader needs."""
    amount = usd(nano)
    if 0 < amount < Decimal("0.01"):
        return f"${amount.normalize():f}"
    return f"${amount:,.2f}" if amount == round(amount, 2) else f"${amount:,.4f}"


@dataclass(frozen=True, slots=True)
class Rates:
    """What tokens cost, each kind in nano-dollars a million tokens.

    Args:
        input: neither written to nor read from the prompt cache.
        cache_write_5m, cache_write_1h: written to the prompt cache, for 5 minutes or for 1 hour.
        cache_read: read from it.
    """

    input: int
    output: int
    cache_write_5m: int
    cache_write_1h: int
    cache_read: int

    def cost(self, usage: Usage) -> int:
        """The cost of a call, in nano-dollars."""
        written_1h = usage.cache_creation_1h_input_tokens
        millionths = (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + (usage.cache_creation_input_tokens - written_1h) * self.cache_write_5m
            + written_1h * self.cache_write_1h
            + usage.cache_read_input_tokens * self.cache_read
        )
        return (millionths + _MILLION // 2) // _MILLION


@dataclass(frozen=True, slots=True)
class Price:
    """A model's price, which may depend on how long the input is.

    Args:
        tiers: (tokens, rates): above so many tokens of whole input the whole call costs these;
            ascending.
    """

    base: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()

    def rates(self, input_tokens: int) -> Rates:
        """The rates of a call with so many tokens of whole input."""
        found = self.base
        for above, rates in self.tiers:
            if input_tokens > above:
                found = rates
        return found

    def dearest(self, input_tokens: int) -> Rates:
        """The dearest rate of each kind that a call of at most so many tokens may meet."""
        open_to_it = (self.base, *(rates for above, rates in self.tiers if input_tokens > above))
        return Rates(*map(max, zip(*map(astuple, open_to_it), strict=True)))
