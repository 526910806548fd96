"""Batches, and what pauses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from runner.jobs.call import Usage
from runner.jobs.spec import BatchLimits
from runner.jobs.states import UNFINISHED, Finish, State


class PauseCause(StrEnum):
    """Why a batch is paused. Only a user's pause outlives the next `runner run`, and a copy's."""

    USER = "user"
    CREDENTIALS = "credentials"
    SPEND_CAP = "spend_cap"
    BUDGET = "budget"
    BREAKER = "breaker"
    COPY = "copy"  # it is being copied to another database, was, or has not arrived whole


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch with its kept counts.

    `counts` is keyed by (state, finish); finish is None for jobs without one.
    """

    key: int
    name: str
    limits: BatchLimits
    paused: PauseCause | None
    pause_reason: str | None
    created_ms: int
    counts: Mapping[tuple[State, Finish | None], int]
    calls: int
    usage: Usage
    simulated: bool = False  # its documents come from the simulator
    cost_nano_usd: int = 0  # spent so far, by pruned jobs too
    spent_output_tokens: int = 0  # likewise
    reserved_nano_usd: int = 0  # set aside for the calls that run now
    reserved_output_tokens: int = 0
    unpriced_calls: int = 0  # calls whose price was not known: they stand in no cost

    @property
    def jobs(self) -> int:
        return sum(self.counts.values())

    def count(self, *states: State) -> int:
        return sum(n for (state, _), n in self.counts.items() if state in states)

    @property
    def unfinished(self) -> int:
        return self.count(*UNFINISHED)

    @property
    def complete(self) -> int:
        """Documents that are finished and whole."""
        return sum(
            n
            for (state, finish), n in self.counts.items()
            if state is State.COMPLETED and finish is not None and finish.complete
        )

    @property
    def cut(self) -> int:
        """Documents that ended without being whole."""
        return self.count(State.COMPLETED) - self.complete
