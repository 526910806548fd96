"""How long a batch's estimate says that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from runner.estimating.amounts import Amounts
from runner.estimating.clock import Binding, Limits, Load, time_of
from runner.estimating.forecast import Span
from runner.estimating.result import ModelEstimate
from runner.jobs.spec import BatchSpec
from runner.messages.pace import rate_class


def times(
    estimates: Sequence[ModelEstimate], batch: BatchSpec, told: Mapping[str, Limits]
) -> tuple[tuple[float, float, float], Binding]:
    """Low, expected and high in seconds, and what the expected one goes by."""
    limits = batch.limits
    own = Limits(
        limits.requests_per_minute,
        limits.input_tokens_per_minute,
        limits.output_tokens_per_minute,
    )

    def seconds(get: Callable[[Span], Amounts]) -> tuple[float, Binding]:
        loads = []
        for one in estimates:
            at_once = limits.concurrency_by_model.get(one.model, limits.concurrency)
            amounts, expected = get(one.span), one.span.expected.output_tokens
            longest = one.longest * (amounts.output_tokens / expected if expected else 1.0)
            loads.append(Load(amounts, longest, one.speed, at_once, rate_class(one.model)))
        return time_of(loads, concurrency=limits.concurrency, own=own, told=told)

    low, _ = seconds(lambda span: span.low)
    expected, binding = seconds(lambda span: span.expected)
    high, _ = seconds(lambda span: span.high)
    return (low, expected, high), binding
