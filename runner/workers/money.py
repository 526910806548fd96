"""What calls cost: set aside before they are made, settled when they are over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, Send
from runner.jobs.call import CallOutcome, Charge, Usage
from runner.jobs.price import Price, Rates, told_usd
from runner.jobs.spec import BatchLimits, Budget, JobSpec
from runner.messages.prices import price_of_request
from runner.store.records import CallStart, Claim
from runner.workers.caching import Marked
from runner.workers.needs import Need
from runner.workers.reservation import own_budget_reached, reservation, worst_nano_usd


class Money:
    """Prices calls, and says what is to be set aside for them.

    Args:
        base_url: of the endpoint they go to.
        limits: of a batch, by its key: its own prices, and what it sets aside.
    """

    def __init__(self, base_url: str, limits: Callable[[int], BatchLimits]) -> None:
        self._base_url = base_url
        self._limits = limits

    def price(self, claim: Claim, spec: JobSpec) -> Price | None:
        """What a call of the job costs today; None where nobody knows."""
        return price_of_request(
            spec.model,
            spec.params,
            base_url=self._base_url,
            at=datetime.now(UTC),
            own=self._limits(claim.batch_key).prices,
        )

    def start(
        self,
        claim: Claim,
        loop: ContinuationLoop,
        send: Send,
        need: Need,
        marked: Marked,
        limit_key: str | None,
        price: Price | None,
        spent_nano_usd: int,
    ) -> CallStart | Finished:
        """The call as it is to be written down; or the end of a document whose own budget has no
        room for it.

        Args:
            spent_nano_usd: on the document's calls so far, as far as they count.
        """
        plan = send.plan
        worst = None if price is None else worst_nano_usd(loop, send, marked, price)
        if worst is not None and (end := own_budget_reached(loop, worst, spent_nano_usd)):
            return end
        budget = self._limits(claim.batch_key).budget
        dropped = max(0, len(loop.document) - plan.resume_at)
        return CallStart(
            number=send.number,
            strategy=plan.strategy,
            resume_at=plan.resume_at,
            max_tokens=send.max_tokens,
            model=loop.spec.model,
            rates=None if price is None else price.rates(need.input_tokens),
            reservation=reservation(loop, send, need, marked, price, worst, budget),
            input_tokens=need.input_tokens,
            prompt_tokens=need.prompt_tokens,
            dropped_output_tokens=round(dropped * need.tokens_per_character),
            limit_key=limit_key,
        )

    def charge(
        self,
        start: CallStart,
        price: Price | None,
        outcome: CallOutcome,
        kept_characters: int,
    ) -> Charge:
        """What a call cost.

        Args:
            kept_characters: of its answer, those that entered the document.
        """
        usage = outcome.usage
        prompt_tokens = start.prompt_tokens
        if start.resume_at == 0:
            prompt_tokens = usage.total_input_tokens or prompt_tokens
        rates = None if price is None else price.rates(usage.total_input_tokens)
        return Charge(
            cost_nano_usd=cost(rates, usage),
            prompt_tokens=prompt_tokens,
            lost_output_tokens=lost_tokens(outcome, kept_characters),
            rates=rates,
        )

    def beyond(self, claim: Claim, start: CallStart, outcome: CallOutcome) -> str | None:
        """What to tell of a call that cost more than the most it could; None: it did not."""
        cost_nano_usd, most = outcome.charge.cost_nano_usd, start.reservation.nano_usd
        if start.rates is None or cost_nano_usd is None or cost_nano_usd <= most:
            return None
        if self._limits(claim.batch_key).budget is Budget.EXPECTED:
            return None  # what was set aside was no bound
        return (
            f"a call was billed {told_usd(cost_nano_usd)}, more than the {told_usd(most)} that "
            "it could cost by its length and max_tokens; the books hold what was billed"
        )


def cost(rates: Rates | None, usage: Usage) -> int | None:
    """What a call cost, in nano-dollars; None where the price is not known. What took no token,
    as a request that was turned away, costs nothing at any price."""
    if rates is not None:
        return rates.cost(usage)
    return None if usage.total_input_tokens or usage.output_tokens else 0


def lost_tokens(outcome: CallOutcome, kept_characters: int) -> int:
    """Of a call's output, what never entered the document: all of it where no text did, else in
    proportion to the text that was left out. Thinking goes with the text it led to."""
    written = outcome.usage.output_tokens
    if kept_characters <= 0:
        return written
    if outcome.text_characters <= kept_characters:
        return 0
    return written * (outcome.text_characters - kept_characters) // outcome.text_characters


def estimated(outcome: CallOutcome, need: Need) -> CallOutcome:
    """The outcome of a stream that broke, with the output tokens that such a text and the thinking
    before it have come to in this batch."""
    usage = outcome.usage
    if not usage.estimated or outcome.output_counted:
        return outcome
    thinking = outcome.thinking_characters * need.tokens_per_character
    if outcome.text_characters or outcome.thinking_characters:
        thinking = max(thinking, need.thinking_tokens)
    text = outcome.text_characters * need.tokens_per_character
    least = usage.output_tokens if not outcome.text_characters else 0
    tokens = min(need.most_output_tokens, max(least, round(text + thinking)))
    return replace(outcome, usage=replace(usage, output_tokens=tokens))
