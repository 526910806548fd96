"""What calls cost: set aside before they are made, settled when they are over."""

from __future__ import annotations

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, Send
from runner.jobs.call import CallOutcome, Charge
from runner.store.records import CallStart, Claim, Reservation
from runner.workers.caching import Marked
from runner.workers.needs import Need


class Money:
    """Prices calls, and says what is to be set aside for them."""

    def start(
        self,
        claim: Claim,
        loop: ContinuationLoop,
        send: Send,
        need: Need,
        marked: Marked,
        limit_key: str | None,
    ) -> CallStart | Finished:
        """The call as it is to be written down; or the end of a document whose own budget has no
        room for it."""
        plan = send.plan
        return CallStart(
            number=send.number,
            strategy=plan.strategy,
            resume_at=plan.resume_at,
            max_tokens=send.max_tokens,
            model=loop.spec.model,
            reservation=Reservation(output_tokens=send.max_tokens),
            input_tokens=need.input_tokens,
            prompt_tokens=need.prompt_tokens,
            limit_key=limit_key,
        )

    def charge(
        self, start: CallStart, need: Need, outcome: CallOutcome, kept_characters: int
    ) -> Charge:
        """What a call cost.

        Args:
            kept_characters: of its answer, those that entered the document.
        """
        usage = outcome.usage
        prompt_tokens = start.prompt_tokens
        if start.resume_at == 0:
            prompt_tokens = usage.total_input_tokens or prompt_tokens
        cost = None if start.rates is None else start.rates.cost(usage)
        return Charge(cost_nano_usd=cost, prompt_tokens=prompt_tokens)
