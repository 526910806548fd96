"""The states of a job, the ways between them, and the ways a document ends."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a job stands. The last three are final."""

    AVAILABLE = "available"
    SCHEDULED = "scheduled"
    EXECUTING = "executing"
    RETRYABLE = "retryable"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DISCARDED = "discarded"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({State.COMPLETED, State.CANCELLED, State.DISCARDED})
UNFINISHED = frozenset(State) - FINAL


class Transition(NamedTuple):
    """One allowed way from a state to another.

    `before` None means the job is new. `counters` names the columns that change and how.
    """

    before: State | None
    after: State
    when: str
    counters: tuple[str, ...] = ()


# The one table of transitions: the store's guards, docs/states.md and the tests read it.
TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, State.AVAILABLE, "submitted for now"),
    Transition(None, State.SCHEDULED, "submitted for later"),
    Transition(State.SCHEDULED, State.AVAILABLE, "its time has come"),
    Transition(State.RETRYABLE, State.AVAILABLE, "its time has come"),
    Transition(State.AVAILABLE, State.EXECUTING, "claimed", ("claim + 1",)),
    Transition(State.EXECUTING, State.COMPLETED, "the finish condition is met"),
    Transition(State.EXECUTING, State.RETRYABLE, "an error worth another try", ("attempt + 1",)),
    Transition(State.EXECUTING, State.SCHEDULED, "must wait: rate limit, budget, spend cap"),
    Transition(State.EXECUTING, State.AVAILABLE, "graceful stop"),
    Transition(
        State.EXECUTING,
        State.AVAILABLE,
        "rescued: the lease expired or the process is gone",
        ("rescues + 1; from 0 if text was saved under the claim",),
    ),
    Transition(
        State.EXECUTING,
        State.DISCARDED,
        "attempts or rescues used up, or an error no retry can mend",
    ),
    Transition(State.RETRYABLE, State.DISCARDED, "attempts used up"),
    *(
        Transition(state, State.CANCELLED, "the user says so")
        for state in (State.AVAILABLE, State.SCHEDULED, State.EXECUTING, State.RETRYABLE)
    ),
    *(
        Transition(state, State.AVAILABLE, "runner retry", ("attempt = 0", "rescues = 0"))
        for state in (State.COMPLETED, State.CANCELLED, State.DISCARDED)
    ),
)


def allowed_before(after: State) -> frozenset[State]:
    """The states from which a job may enter `after`."""
    return frozenset(t.before for t in TRANSITIONS if t.after is after and t.before is not None)


class Finish(StrEnum):
    """How a document ended. Only the first three make a complete one; the others cut it."""

    END_TURN = "end_turn"
    STOP_SEQUENCE = "stop_sequence"
    UNTIL_MET = "until_met"
    REFUSAL = "refusal"
    MAX_CALLS = "max_calls"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    CONTEXT_WINDOW = "context_window"
    STALLED = "stalled"
    EARLY_END = "early_end"
    MAX_COST = "max_cost"

    @property
    def complete(self) -> bool:
        return self in COMPLETE


COMPLETE = frozenset({Finish.END_TURN, Finish.STOP_SEQUENCE, Finish.UNTIL_MET})
