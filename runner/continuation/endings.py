"""What each stop reason means for the document: the one table of endings."""

from __future__ import annotations

from runner.continuation.document import GrowingDocument
from runner.continuation.steps import CannotContinue, Finished
from runner.continuation.text import is_blank
from runner.jobs.call import CallOutcome
from runner.jobs.spec import JobSpec, Until
from runner.jobs.states import Finish

# Source: Messages API documentation, "Handling stop reasons". New values may come at any time
# (API versioning policy); an unknown one ends the job rather than be taken for a success.
MODEL_ENDED = {"end_turn": Finish.END_TURN, "stop_sequence": Finish.STOP_SEQUENCE}
CUT_FOR_GOOD = {
    "refusal": Finish.REFUSAL,
    "model_context_window_exceeded": Finish.CONTEXT_WINDOW,
}
GO_ON = frozenset({"max_tokens"})


def ending(
    outcome: CallOutcome, document: GrowingDocument, spec: JobSpec
) -> Finished | CannotContinue | None:
    """How the document ends after a call that was answered; None: it goes on."""
    reason = outcome.stop_reason
    if reason in MODEL_ENDED:
        # Some local servers say `end_turn` and name the stop sequence all the same.
        finish = Finish.STOP_SEQUENCE if outcome.stop_sequence is not None else MODEL_ENDED[reason]
        return _ended_by_model(finish, document, spec)
    if reason in CUT_FOR_GOOD:
        return Finished(CUT_FOR_GOOD[reason], _explained(outcome))
    if reason in GO_ON:
        return _until_met(document, spec.until)
    return CannotContinue(f"the API ended the answer with stop_reason {reason!r}, unknown here")


def _ended_by_model(finish: Finish, document: GrowingDocument, spec: JobSpec) -> Finished:
    if is_blank(document.text):
        return Finished(Finish.STALLED, "the model answered with an empty text")
    if spec.until is None:
        return Finished(finish)
    return _until_met(document, spec.until) or Finished(
        Finish.EARLY_END, f"the model stopped, and there is no {spec.until.contains!r} yet"
    )


def _until_met(document: GrowingDocument, until: Until | None) -> Finished | None:
    met = until is not None and until.met(document.text)
    return Finished(Finish.UNTIL_MET) if met else None


def _explained(outcome: CallOutcome) -> str | None:
    details = outcome.stop_details or {}
    words = [str(details[key]) for key in ("category", "explanation") if details.get(key)]
    return ": ".join(words) or None
