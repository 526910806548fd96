"""How long a batch takes: by its streams, and by the rate limits that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from runner.estimating.amounts import Amounts

# What nobody measured. Streams of current models bring 50 to 150 tokens a second.
ASSUMED_TOKENS_PER_SECOND: Final = 70.0
FIRST_TOKEN_S: Final = 1.5


class Binding(StrEnum):
    """What the time goes by."""

    CONCURRENCY = "concurrency"
    LONGEST_DOCUMENT = "longest document"
    REQUESTS = "requests_per_minute"
    INPUT = "input_tokens_per_minute"
    OUTPUT = "output_tokens_per_minute"


@dataclass(frozen=True, slots=True)
class Limits:
    """Rate limits, as far as they are known; None is not known."""

    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model's streams come.

    Args:
        measured: by calls that were made; else it is assumed.
    """

    tokens_per_second: float = ASSUMED_TOKENS_PER_SECOND
    first_token_s: float = FIRST_TOKEN_S
    measured: bool = False

    def seconds(self, amounts: Amounts) -> float:
        """Seconds of streaming, one call after the other."""
        return amounts.output_tokens / self.tokens_per_second + amounts.calls * self.first_token_s


@dataclass(frozen=True, slots=True)
class Load:
    """What one model has to do.

    Args:
        longest: its longest document.
        concurrency: calls open at once to this model.
        rate_class: the class of models whose rate limits it shares.
    """

    amounts: Amounts
    longest: Amounts
    speed: Speed
    concurrency: int
    rate_class: str


def time_of(
    loads: Sequence[Load],
    *,
    concurrency: int,
    own: Limits = Limits(),
    told: Mapping[str, Limits] | None = None,
) -> tuple[float, Binding]:
    """Seconds that the loads take side by side, and what they go by.

    Args:
        concurrency: calls open at once over all models.
        own: the limits of the job file, for all models together.
        told: those that the API told of, by class of models.
    """
    told = told or {}
    streams_s = sum(load.speed.seconds(load.amounts) for load in loads)
    found = [(streams_s / concurrency, Binding.CONCURRENCY)]
    by_class: dict[str, Amounts] = {}
    for load in loads:
        found += [
            (load.speed.seconds(load.amounts) / load.concurrency, Binding.CONCURRENCY),
            (load.speed.seconds(load.longest), Binding.LONGEST_DOCUMENT),
        ]
        by_class[load.rate_class] = by_class.get(load.rate_class, Amounts()) + load.amounts
    found += _by_limits(sum(by_class.values(), Amounts()), own)
    for rate_class, amounts in by_class.items():
        found += _by_limits(amounts, told.get(rate_class, Limits()))
    return max(found, key=lambda one: one[0])


def _by_limits(amounts: Amounts, limits: Limits) -> list[tuple[float, Binding]]:
    # Cache reads do not count. Source: Messages API documentation, rate limits.
    counted_input = amounts.input_tokens - amounts.cache_read_tokens
    return [
        (_minutes(amounts.calls, limits.requests_per_minute), Binding.REQUESTS),
        (_minutes(counted_input, limits.input_tokens_per_minute), Binding.INPUT),
        (_minutes(amounts.output_tokens, limits.output_tokens_per_minute), Binding.OUTPUT),
    ]


def _minutes(amount: float, per_minute: int | None) -> float:
    return 60 * amount / per_minute if per_minute else 0.0
