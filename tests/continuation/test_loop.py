"""Bounds and endings of the continuation loop."""

from __future__ import annotations

import pytest

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import CannotContinue, Finished, PastCall, Send
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.spec import ContinuationSpec, Until
from runner.jobs.states import Finish
from tests.continuation.strict_api import TRAITS, StrictApi, job, run

LONG = "".join(f"word{n} " for n in range(1000))


def after(outcome: CallOutcome, text: str = "Some text", **settings):
    loop = ContinuationLoop(job(max_tokens=100, **settings), TRAITS)
    step = loop.next_step()
    assert isinstance(step, Send)
    loop.begin(step)
    loop.feed(text)
    loop.end(outcome)
    return loop.next_step()


@pytest.mark.parametrize(
    ("outcome", "finish"),
    [
        (CallOutcome("end_turn"), Finish.END_TURN),
        (CallOutcome("stop_sequence", stop_sequence="X"), Finish.STOP_SEQUENCE),
        (CallOutcome("end_turn", stop_sequence="X"), Finish.STOP_SEQUENCE),
        (CallOutcome("refusal"), Finish.REFUSAL),
        (CallOutcome("model_context_window_exceeded"), Finish.CONTEXT_WINDOW),
    ],
)
def test_each_stop_reason_has_its_finish(outcome, finish):
    step = after(outcome)
    assert isinstance(step, Finished)
    assert step.finish is finish


@pytest.mark.parametrize("reason", ["tool_use", "compaction", "something_new"])
def test_an_unknown_stop_reason_is_no_success(reason):
    step = after(CallOutcome(reason))
    assert isinstance(step, CannotContinue)
    assert reason in step.reason


def test_a_call_without_a_stop_reason_is_continued():
    assert isinstance(after(CallOutcome(None, error="dropped")), Send)
    died = ContinuationLoop(job(max_tokens=100), TRAITS, [PastCall(0, "Some text", None)])
    assert isinstance(died.next_step(), Send)


def test_a_refusal_keeps_its_explanation():
    step = after(
        CallOutcome("refusal", stop_details={"category": "bio", "explanation": "No recipes."})
    )
    assert step == Finished(Finish.REFUSAL, "bio: No recipes.")


def test_an_empty_answer_is_not_a_complete_document():
    step = after(CallOutcome("end_turn"), text=" \n")
    assert isinstance(step, Finished)
    assert step.finish is Finish.STALLED


def test_until_met_at_a_cut_saves_the_next_call():
    step = after(CallOutcome("max_tokens"), "x</done> and", until=Until("</done>"))
    assert step == Finished(Finish.UNTIL_MET)


def test_until_met_at_the_end_of_the_turn():
    assert after(CallOutcome("end_turn"), "x</done>", until=Until("</done>")) == Finished(
        Finish.UNTIL_MET
    )


def test_a_model_that_stops_before_until_is_cut_short():
    step = after(
        CallOutcome("end_turn"),
        "x",
        until=Until("</done>"),
        continuation=ContinuationSpec(max_nudges=0),
    )
    assert isinstance(step, Finished)
    assert step.finish is Finish.EARLY_END
    assert "</done>" in (step.detail or "")


def test_max_calls_counts_answers():
    loop = ContinuationLoop(job(max_tokens=100, continuation=ContinuationSpec(max_calls=3)), TRAITS)
    api = StrictApi(LONG, lambda *_: 10)
    step = run(loop, api)
    assert isinstance(step, Finished)
    assert (step.finish, len(api.requests)) == (Finish.MAX_CALLS, 3)


def test_max_output_tokens_is_never_passed():
    loop = ContinuationLoop(
        job(max_tokens=30, continuation=ContinuationSpec(max_output_tokens=100)), TRAITS
    )
    api = StrictApi(LONG, lambda _, max_tokens: max_tokens)
    step = run(loop, api)
    assert isinstance(step, Finished)
    assert step.finish is Finish.MAX_OUTPUT_TOKENS
    assert [request["max_tokens"] for request in api.requests] == [30, 30, 30, 10]


def test_tokens_of_broken_calls_count_too():
    loop = ContinuationLoop(
        job(max_tokens=30, continuation=ContinuationSpec(max_output_tokens=40)), TRAITS
    )
    step = loop.next_step()
    assert isinstance(step, Send)
    loop.begin(step)
    loop.feed("abc")
    loop.end(CallOutcome(None, usage=Usage(output_tokens=25, estimated=True)))
    step = loop.next_step()
    assert isinstance(step, Send)
    assert step.max_tokens == 15
    loop.begin(step)
    loop.end(CallOutcome(None, usage=Usage(output_tokens=15, estimated=True)))
    step = loop.next_step()
    assert isinstance(step, Finished)
    assert step.finish is Finish.MAX_OUTPUT_TOKENS


def test_no_progress_twice_in_a_row_is_stalled_after_asking_for_more():
    loop = ContinuationLoop(job(max_tokens=8), TRAITS)
    api = StrictApi("abc" + " " * 1000, lambda _, max_tokens: max_tokens)
    step = run(loop, api)
    assert isinstance(step, Finished)
    assert step.finish is Finish.STALLED
    assert [request["max_tokens"] for request in api.requests] == [8, 8, 16]


def test_one_answer_without_progress_is_forgiven():
    loop = ContinuationLoop(job(max_tokens=4), TRAITS)
    api = StrictApi("abcd" + "\n" * 6 + "efgh", lambda _, max_tokens: max_tokens)
    assert run(loop, api) == Finished(Finish.END_TURN)
    assert loop.document.text == api.document


def test_max_tokens_defaults_to_what_the_model_gives():
    step = ContinuationLoop(job(), TRAITS).next_step()
    assert isinstance(step, Send)
    assert step.max_tokens == TRAITS.max_output_tokens


def test_the_request_holds_what_the_job_says_and_nothing_else():
    spec = job(
        max_tokens=7,
        system="Be brief.",
        stop_sequences=("X",),
        thinking={"type": "disabled"},
        output_config={"effort": "low"},
        params={"service_tier": "auto"},
    )
    loop = ContinuationLoop(spec, TRAITS)
    step = loop.next_step()
    assert isinstance(step, Send)
    assert loop.request(step) == {
        "model": "claude-haiku-4-5",
        "max_tokens": 7,
        "messages": [{"role": "user", "content": "Write."}],
        "system": "Be brief.",
        "stop_sequences": ["X"],
        "thinking": {"type": "disabled"},
        "output_config": {"effort": "low"},
        "service_tier": "auto",
    }
    bare = ContinuationLoop(job(max_tokens=7), TRAITS)
    step = bare.next_step()
    assert isinstance(step, Send)
    assert set(bare.request(step)) == {"model", "max_tokens", "messages"}
