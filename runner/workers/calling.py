"""One call on its way: what it needs, its leave to start, its price, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from runner.jobs.call import CallOutcome, Usage
from runner.jobs.price import Price
from runner.messages.errors import CallError
from runner.messages.headers import RateLimits
from runner.store.records import CallStart, Counted
from runner.workers.caching import Marked
from runner.workers.money import Money, estimated
from runner.workers.needs import Need
from runner.workers.pacing import Permit

# Errors of requests that were sent, and may have been read: their input is taken to be billed.
_SENT: Final = frozenset({"timeout", "broken_stream"})
# From the API's hands to the disk, without the waiting for a checkpoint: about what it takes.
ON_ITS_WAY_MS: Final = 25


@dataclass(slots=True)
class Calling:
    """A call that may be made now. Is told how it fares, and tells those who keep pace and cache.

    Args:
        start: as it is written down before it is sent.
        price: of its model today; None where it is not known.
    """

    need: Need
    marked: Marked
    permit: Permit
    start: CallStart
    price: Price | None
    kept_characters: int = 0  # of its answer, those that entered the document
    _input: Usage | None = None  # as the API bills it
    _written_characters: int = 0
    _thinking_characters: int = 0

    def began(self, rate_limits: RateLimits) -> None:
        self.permit.began(rate_limits)

    def counted(self, usage: Usage) -> None:
        self._input = usage
        self.permit.counted(usage)
        self.marked.began(usage)

    def wrote(self, characters: int, thinking: int) -> None:
        self._written_characters += characters
        self._thinking_characters += thinking
        self.permit.wrote(characters)

    def so_far(self, checkpoint_s: float) -> Counted | None:
        """What is known at the call's first text beside that text: how the input is billed, and
        the output that no chunk will hold, should the process die. None: the API has told nothing.

        Args:
            checkpoint_s: time between two chunks. When the process dies, half of it is not saved
                on average, and what is on its way to us and to the disk.
        """
        if self._input is None:
            return None
        aside = self._written_characters - self._thinking_characters - self.kept_characters
        unsaved = self.need.tokens_per_ms * (checkpoint_s * 500 + ON_ITS_WAY_MS)
        lost = round(max(0, aside) * self.need.tokens_per_character + unsaved)
        thinking = round(self._thinking_characters * self.need.tokens_per_character)
        output = lost + max(thinking, self.need.thinking_tokens)
        rates = None
        if self.price is not None:
            rates = self.price.rates(self._input.total_input_tokens)
        return Counted(replace(self._input, output_tokens=output), lost, rates)

    def ended(self, outcome: CallOutcome, money: Money, error: CallError | None) -> CallOutcome:
        """The call is over; its outcome with what it cost.

        Args:
            error: what the API or the network said in place of an answer; None: nothing did, and
                where there is no answer either, we let go of the call while it was on its way.
        """
        sent = error is None or error.type in _SENT
        if sent and self._input is None and outcome.stop_reason is None:
            usage = Usage(input_tokens=self.need.input_tokens, estimated=True)
            outcome = replace(outcome, usage=usage)
        outcome = estimated(outcome, self.need)
        outcome = replace(outcome, input_characters=self.need.input_characters)
        charge = money.charge(self.start, self.price, outcome, self.kept_characters)
        self.permit.close(outcome.usage)
        self.marked.ended(outcome)
        return replace(outcome, charge=charge)

    def given_up(self) -> None:
        """It was never sent."""
        self.permit.close(None)
        self.marked.close()
