"""One call on its way: what it needs, its leave to start, its price, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runner.jobs.call import CallOutcome, Usage
from runner.messages.headers import RateLimits
from runner.store.records import CallStart
from runner.workers.caching import Marked
from runner.workers.money import Money
from runner.workers.needs import Need
from runner.workers.pacing import Permit


@dataclass(slots=True)
class Calling:
    """A call that may be made now. Is told how it fares, and tells those who keep pace and cache.

    Args:
        start: as it is written down before it is sent.
    """

    need: Need
    marked: Marked
    permit: Permit
    start: CallStart
    kept_characters: int = 0  # of its answer, those that entered the document

    def began(self, rate_limits: RateLimits) -> None:
        self.permit.began(rate_limits)

    def counted(self, usage: Usage) -> None:
        self.permit.counted(usage)
        self.marked.began(usage)

    def wrote(self, characters: int) -> None:
        self.permit.wrote(characters)

    def ended(self, outcome: CallOutcome, money: Money) -> CallOutcome:
        """The call is over; its outcome with what it cost."""
        outcome = replace(outcome, input_characters=self.need.input_characters)
        charge = money.charge(self.start, self.need, outcome, self.kept_characters)
        self.permit.close(outcome.usage)
        self.marked.ended(outcome)
        return replace(outcome, charge=charge)

    def given_up(self) -> None:
        """It was never sent."""
        self.permit.close(None)
        self.marked.close()
