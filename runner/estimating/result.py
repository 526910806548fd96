"""What an estimate says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.estimating.amounts import Amounts
from runner.estimating.clock import Binding, Speed
from runner.estimating.evidence import Ground
from runner.estimating.forecast import Span
from runner.estimating.sampling import Counts
from runner.jobs.spec import BatchSpec
from runner.store.records import BatchRow


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """What is left to do for one model.

    Args:
        documents: that are left.
        grounds: how many of them rest on what.
    """

    model: str
    documents: int
    span: Span
    grounds: Mapping[Ground, int]
    longest: Amounts
    speed: Speed


@dataclass(frozen=True, slots=True)
class BatchEstimate:
    """What a batch would take from here.

    Args:
        jobs: in the file.
        final: of them, those that will not be worked on again.
        changed: of them, those that are known with another prompt.
        models: one for each model with jobs left.
        seconds: low, expected, high.
        binding: what the expected time goes by.
        counts: what the API counted for it.
        rehearsed, finished: documents that were seen for it.
        known: the batch as the database has it; None where it has not.
        other_kind: the database has a batch of that name with documents of the other kind,
            simulated or real; this one could not be submitted there.
    """

    batch: BatchSpec
    simulated: bool
    jobs: int
    final: int
    changed: int
    models: Sequence[ModelEstimate]
    total: Span
    seconds: tuple[float, float, float]
    binding: Binding
    counts: Counts
    rehearsed: int
    finished: int
    known: BatchRow | None
    other_kind: bool = False

    @property
    def documents(self) -> int:
        """How many are left to write."""
        return self.jobs - self.final

    @property
    def grounds(self) -> Counter[Ground]:
        """How many documents' lengths rest on what."""
        return sum((Counter(model.grounds) for model in self.models), Counter())


def together(spans: Sequence[Span]) -> Span:
    """The sum of spans: what chance makes of samples partly evens out, what is assumed does not."""
    expected = sum((span.expected for span in spans), Amounts())
    low = _bound(expected, [(span.expected, span.low, span.by_chance) for span in spans], -1)
    high = _bound(expected, [(span.expected, span.high, span.by_chance) for span in spans], 1)
    return Span(low, expected, high, by_chance=all(span.by_chance for span in spans))


def _bound(
    expected: Amounts, bounds: Sequence[tuple[Amounts, Amounts, bool]], sign: int
) -> Amounts:
    def off(get: Callable[[Amounts], float | None]) -> float:
        steady = squares = 0.0
        for middle, bound, by_chance in bounds:
            distance = (get(bound) or 0.0) - (get(middle) or 0.0)
            if by_chance:
                squares += distance**2
            else:
                steady += distance
        return steady + sign * math.sqrt(squares)

    cost = expected.cost_nano_usd
    return Amounts(
        expected.calls + off(lambda one: one.calls),
        expected.input_tokens + off(lambda one: one.input_tokens),
        expected.cache_write_tokens + off(lambda one: one.cache_write_tokens),
        expected.cache_read_tokens + off(lambda one: one.cache_read_tokens),
        expected.output_tokens + off(lambda one: one.output_tokens),
        None if cost is None else cost + off(lambda one: one.cost_nano_usd),
    )
