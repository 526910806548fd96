"""What each stop reason means for the document: the one table of endings."""

from __future__ import annotations

from enum import Enum

from runner.continuation.steps import CannotContinue, Finished
from runner.jobs.call import CallOutcome
from runner.jobs.states import Finish


class Rule(Enum):
    """What becomes of a document whose last answer ended so."""

    ENDED = "the model ended it"
    CUT = "it was cut, and goes on"
    CUT_FOR_GOOD = "it was cut, and no further call can help"
    FOREIGN = "the answer waits for something that is not ours to give"


# Source: Messages API documentation, "Handling stop reasons". New values may come at any time
# (API versioning policy); an unknown one ends the job rather than be taken for a success. No stop
# reason at all is that of a broken call, whose text is gone on with.
RULES: dict[str | None, Rule] = {
    "end_turn": Rule.ENDED,
    "stop_sequence": Rule.ENDED,
    "max_tokens": Rule.CUT,
    # A turn of server tools that takes long is sent back as it is, to be gone on with. We send no
    # tools, so all there is to send back is the text, as after any other cut.
    "pause_turn": Rule.CUT,
    "refusal": Rule.CUT_FOR_GOOD,
    "model_context_window_exceeded": Rule.CUT_FOR_GOOD,
    "tool_use": Rule.FOREIGN,
    "compaction": Rule.FOREIGN,
    None: Rule.CUT,
}

_FINISHES = {
    "end_turn": Finish.END_TURN,
    "stop_sequence": Finish.STOP_SEQUENCE,
    "refusal": Finish.REFUSAL,
    "model_context_window_exceeded": Finish.CONTEXT_WINDOW,
}
_WHY_FOREIGN = {
    "tool_use": "the model asked for a tool, and runner runs none; take tools out of the request",
    "compaction": "the API compacted the conversation, so the document's beginning is gone from "
    "it; take context_management out of params",
}


def rule(stop_reason: str | None) -> Rule:
    """The rule for a stop reason; FOREIGN for unknown ones."""
    return RULES.get(stop_reason, Rule.FOREIGN)


def model_finish(outcome: CallOutcome) -> Finish:
    """The finish of a document that the model ended, or that is cut for good."""
    # Some local servers say `end_turn` and name the stop sequence all the same.
    if outcome.stop_sequence is not None and rule(outcome.stop_reason) is Rule.ENDED:
        return Finish.STOP_SEQUENCE
    return _FINISHES[str(outcome.stop_reason)]


def cut_for_good(outcome: CallOutcome) -> Finished:
    """The end of a document that no further call can help; a refusal keeps its explanation."""
    details = outcome.stop_details or {}
    words = [str(details[key]) for key in ("category", "explanation") if details.get(key)]
    return Finished(model_finish(outcome), ": ".join(words) or None)


def foreign(outcome: CallOutcome) -> CannotContinue:
    """Why a document cannot go on after a stop reason that is not ours to serve."""
    reason = str(outcome.stop_reason)
    why = _WHY_FOREIGN.get(reason, "unknown here")
    return CannotContinue(f"the API ended the answer with stop_reason {reason!r}: {why}")
