"""Tokens, calls, money and time that add up."""

from __future__ import annotations

from dataclasses import dataclass

from runner.jobs.call import Usage
from runner.jobs.price import Price


@dataclass(frozen=True, slots=True)
class Amounts:
    """What some calls come to, or are expected to; fractions stand for the mean of several.

    Args:
        input_tokens: all of it, what the prompt cache holds included.
        cache_write_tokens, cache_read_tokens: the parts of it that are written to the prompt cache
            and read from it.
        cost_nano_usd: nano-dollars; None where a price is unknown.
    """

    calls: float = 0.0
    input_tokens: float = 0.0
    cache_write_tokens: float = 0.0
    cache_read_tokens: float = 0.0
    output_tokens: float = 0.0
    cost_nano_usd: float | None = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        costs = (self.cost_nano_usd, other.cost_nano_usd)
        return Amounts(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.output_tokens + other.output_tokens,
            None if None in costs else sum(cost for cost in costs if cost is not None),
        )

    def __mul__(self, factor: float) -> Amounts:
        cost = self.cost_nano_usd
        return Amounts(
            self.calls * factor,
            self.input_tokens * factor,
            self.cache_write_tokens * factor,
            self.cache_read_tokens * factor,
            self.output_tokens * factor,
            None if cost is None else cost * factor,
        )


def amounts_of(usage: Usage, price: Price | None) -> Amounts:
    """What one call comes to.

    Args:
        price: None where it is unknown.
    """
    total = usage.total_input_tokens
    return Amounts(
        1,
        total,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
        usage.output_tokens,
        None if price is None else price.rates(total).cost(usage),
    )
