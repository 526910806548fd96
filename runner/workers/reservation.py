"""What is set aside of a budget before a call: the most it can cost, or what such calls cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, Send
from runner.jobs.call import Usage
from runner.jobs.price import Price, Rates, told_usd, usd
from runner.jobs.spec import Budget
from runner.jobs.states import Finish
from runner.messages.most_input import (
    BLOCK_TOKENS,
    REQUEST_TOKENS,
    most_input_tokens,
    most_text_tokens,
)
from runner.store.records import Reservation
from runner.workers.caching import Marked
from runner.workers.needs import Need

# With the usual kinds first: asking for the abstract one takes several times as long.
_MAPPING: Final = (dict, Mapping)
_NESTED: Final = (dict, list, tuple, Mapping)
_MILLION: Final = 1_000_000
# What was counted before may be split a little differently where more stands behind it.
_COUNT_AGAIN: Final = 1.02


def reservation(
    loop: ContinuationLoop,
    send: Send,
    need: Need,
    marked: Marked,
    price: Price | None,
    worst_nano_usd: int | None,
    budget: Budget,
) -> Reservation:
    """What is to be set aside for a call.

    Args:
        price: None where it is not known: then no money is set aside.
        worst_nano_usd: the most that it can cost; None where the price is not known.
        budget: that, or what such calls are expected to cost.
    """
    own = loop.spec.continuation.max_cost_nano_usd is not None
    worst = worst_nano_usd or 0
    if budget is Budget.WORST:
        return Reservation(worst, send.max_tokens, needs_price=own)
    expected = 0 if price is None else expected_nano_usd(need, marked, price)
    return Reservation(min(expected, worst), need.output_tokens, needs_price=own)


def own_budget_reached(
    loop: ContinuationLoop, worst_nano_usd: int, spent_nano_usd: int
) -> Finished | None:
    """The end of a document whose next call could pass its own `max_cost_usd`.

    Args:
        worst_nano_usd: the most that the call can cost.
        spent_nano_usd: on its calls so far, as far as they count.
    """
    bound = loop.spec.continuation.max_cost_nano_usd
    if bound is None or spent_nano_usd + worst_nano_usd <= bound:
        return None
    return Finished(
        Finish.MAX_COST,
        f"max_cost_usd {usd(bound).normalize():f} reached: {told_usd(spent_nano_usd)} are spent, "
        f"and the next call may cost {told_usd(worst_nano_usd)}",
    )


def worst_nano_usd(loop: ContinuationLoop, send: Send, marked: Marked, price: Price) -> int:
    """The most that a call can cost: all of its input at the dearest rate it may be billed at, and
    all the output that it may write."""
    input_tokens = most_input(loop, send, marked.body)
    rates = price.dearest(input_tokens)
    millionths = input_tokens * dearest_input(rates, marked.body) + send.max_tokens * rates.output
    return -(-millionths // _MILLION)


def expected_nano_usd(need: Need, marked: Marked, price: Price) -> int:
    """What such a call is expected to cost."""
    cached = min(marked.cached_tokens, need.input_tokens)
    written = min(marked.written_tokens, need.input_tokens - cached)
    usage = Usage(
        input_tokens=need.input_tokens - cached - written,
        cache_creation_input_tokens=written,
        cache_creation_1h_input_tokens=written if marked.for_an_hour else 0,
        cache_read_input_tokens=cached,
        output_tokens=need.output_tokens,
    )
    return price.rates(need.input_tokens).cost(usage)


def most_input(loop: ContinuationLoop, send: Send, body: Mapping[str, Any]) -> int:
    """The most tokens that the request for `send` can come to.

    What the API has counted of an earlier call of the job is taken from there; what is new since
    stands for one token a byte. A server that joins blocks in a way of its own may count in a way
    of its own, too (what it has cached not at all), so its counts bound nothing.
    """
    most = most_input_tokens(body)
    if most is None:
        # The API refuses what its window does not hold.
        most = loop.traits.context_window
    if loop.counted_input is None or loop.traits.one_block:
        return most
    tokens, characters = loop.counted_input
    document, *asking = send.plan.messages[len(loop.spec.messages) :] or ({"content": ()},)
    grown = send.plan.resume_at - characters
    new = loop.document.tail(len(loop.document) - characters)[:grown] if grown > 0 else ""
    behind = most_input_tokens({"messages": asking})
    if behind is None:
        return most
    since = (
        round(tokens * _COUNT_AGAIN)
        + most_text_tokens(new)
        + len(document["content"]) * BLOCK_TOKENS
        + REQUEST_TOKENS
        + behind
    )
    return min(most, since)


def dearest_input(rates: Rates, body: Mapping[str, Any]) -> int:
    """The dearest rate at which input of a request may be billed: that of writing to the prompt
    cache, where anything in it is marked for it. Source: Messages API documentation, prompt
    caching."""
    lives = set(_cache_lives(body))
    dearest = rates.input
    if lives:
        dearest = max(dearest, rates.cache_write_5m, rates.cache_read)
    if "1h" in lives:
        dearest = max(dearest, rates.cache_write_1h)
    return dearest


def _cache_lives(value: Any) -> Sequence[str]:
    """How long the parts of a request that are marked for the prompt cache are to stay there."""
    found: list[str] = []
    if isinstance(value, _MAPPING):
        mark = value.get("cache_control")
        if isinstance(mark, Mapping):
            found.append(str(mark.get("ttl", "5m")))
        value = value.values()
    for part in value:
        if isinstance(part, _NESTED):
            found += _cache_lives(part)
    return found
