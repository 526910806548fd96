"""How a document ended, in words for a reader, and what can be done about it."""

from __future__ import annotations

from enum import StrEnum

from runner.jobs.states import Finish, State
from runner.store.records import JobRow


class Standing(StrEnum):
    """What a document is worth to whoever reads it."""

    COMPLETE = "complete"
    CUT = "cut"  # it ended without being whole
    FAILED = "failed"  # an error ended the job; there may be some text
    CANCELLED = "cancelled"
    UNFINISHED = "unfinished"


def standing(job: JobRow) -> Standing:
    """Only a job that is completed by one of the whole finishes gives a complete document."""
    match job.state:
        case State.COMPLETED:
            whole = job.finish is not None and job.finish.complete
            return Standing.COMPLETE if whole else Standing.CUT
        case State.DISCARDED:
            return Standing.FAILED
        case State.CANCELLED:
            return Standing.CANCELLED
        case _:
            return Standing.UNFINISHED


_CAUSES = {
    Finish.END_TURN: "the model ended its turn",
    Finish.STOP_SEQUENCE: "a stop sequence was reached",
    Finish.UNTIL_MET: "the condition of `until` is met",
    Finish.REFUSAL: "the model refused to go on",
    Finish.MAX_CALLS: "as many calls as max_calls allows were answered",
    Finish.MAX_OUTPUT_TOKENS: "the output tokens of max_output_tokens are used up",
    Finish.CONTEXT_WINDOW: "prompt and document fill the model's context window",
    Finish.STALLED: "it made no progress, or went in circles",
    Finish.EARLY_END: "the model stopped before the condition of `until` was met",
    Finish.MAX_COST: "its next call could have passed max_cost_usd",
}

_ADVICE = {
    Finish.REFUSAL: "Read the end of the text, then change the prompt and submit it with --replace.",
    Finish.MAX_CALLS: "`runner retry JOB` lets it go on for as many calls again; or raise "
    "max_tokens in the job file and submit it with --replace.",
    Finish.MAX_OUTPUT_TOKENS: "`runner retry JOB` lets it go on for as many tokens again.",
    Finish.CONTEXT_WINDOW: "Split the prompt into parts of its own, or take a model with a larger "
    "window, and submit it with --replace.",
    Finish.MAX_COST: "`runner retry JOB` lets it go on for as much money again.",
    Finish.STALLED: "Read the end of the text, then change the prompt or raise max_tokens, and "
    "submit it with --replace.",
    Finish.EARLY_END: "Read the end of the text; change `until` or the prompt and submit it with "
    "--replace.",
}


def ending(job: JobRow) -> str:
    """How the document ended, or what the job waits for: one line, may quote an error."""
    stands = standing(job)
    if stands in (Standing.COMPLETE, Standing.CUT):
        if job.finish is None:
            return stands
        return f"{stands} ({job.finish}): {_CAUSES[job.finish]}"
    words = {
        State.DISCARDED: f"failed ({job.finish})" if job.finish else "failed",
        State.CANCELLED: "cancelled",
        State.AVAILABLE: "unfinished: waits for a worker",
        State.EXECUTING: "unfinished: is being written",
        State.SCHEDULED: "unfinished: waits for its time",
        State.RETRYABLE: "unfinished: will be tried again",
    }[job.state]
    return f"{words}: {job.error}" if job.error else words


def advice(job: JobRow) -> str | None:
    """What to do next about a document that is not complete; None for a complete one."""
    match standing(job):
        case Standing.COMPLETE:
            return None
        case Standing.CUT | Standing.FAILED if job.finish in _ADVICE:
            return _ADVICE[job.finish]
        case Standing.CUT | Standing.FAILED:
            return (
                "Mend what the error names, then `runner retry JOB`; a changed prompt is submitted "
                "with --replace."
            )
        case Standing.CANCELLED:
            return "`runner retry JOB` lets it go on."
        case Standing.UNFINISHED:
            return "`runner run` with its job file, or `runner work`, goes on with it."
