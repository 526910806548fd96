"""Every stop reason by name, structured output, thinking, the context window, and nudges."""

from __future__ import annotations

import pytest

from runner.continuation import endings
from runner.continuation.endings import Rule
from runner.continuation.loop import ContinuationLoop
from runner.continuation.room import Room
from runner.continuation.steps import CannotContinue, Finished, Send
from runner.jobs.call import CallOutcome, Strategy, Usage, Verdict
from runner.jobs.spec import ContinuationSpec, JobSpec, Until
from runner.jobs.states import Finish
from runner.jobs.traits import ModelTraits
from tests.continuation.strict_api import TRAITS, StrictApi, job
from tests.continuation.test_loop import after
from tests.continuation.turn_model import ANCHOR

ROWS = {
    "end_turn": Finish.END_TURN,
    "max_tokens": Send,
    "stop_sequence": Finish.STOP_SEQUENCE,
    "tool_use": CannotContinue,
    "pause_turn": Send,
    "refusal": Finish.REFUSAL,
    "model_context_window_exceeded": Finish.CONTEXT_WINDOW,
    "compaction": CannotContinue,
    None: Send,
}


def test_the_table_of_stop_reasons_has_a_row_here_for_each():
    assert set(ROWS) == set(endings.RULES)
    assert endings.rule("invented_tomorrow") is Rule.FOREIGN


@pytest.mark.parametrize(("reason", "expected"), ROWS.items(), ids=str)
def test_stop_reason(reason, expected):
    step = after(CallOutcome(reason))
    if isinstance(expected, Finish):
        assert isinstance(step, Finished)
        assert step.finish is expected
    else:
        assert isinstance(step, expected)
    if expected is CannotContinue:
        assert reason in step.reason
        assert "unknown" not in step.reason


def test_a_paused_turn_is_sent_back_as_it_is():
    step = after(CallOutcome("pause_turn"), text="So far")
    assert isinstance(step, Send)
    assert step.plan.messages[-1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "So far"}],
    }


def drive(loop, *answers):
    """Gives the answers one by one; the requests that were sent, and the last step."""
    requests = []
    for text, outcome in answers:
        step = loop.next_step()
        assert isinstance(step, Send), step
        loop.begin(step)
        requests.append(loop.request(step))
        given = requests[-1]["messages"][-1]["content"]
        if "<anchor>" in text:
            found = ANCHOR.search(given[-1]["text"])
            assert found
            text = text.replace("<anchor>", found[1])
        for piece in (text[i : i + 9] for i in range(0, len(text), 9)):
            loop.feed(piece)
            if loop.closed is not None:
                break
        loop.end(outcome)
    return requests, loop.next_step()


FORM = {"format": {"type": "json_schema", "schema": {}}}
SMALL = ModelTraits(prefill=True, max_output_tokens=400, context_window=200_000)


def test_structured_output_that_was_cut_is_asked_for_again_with_more_room():
    loop = ContinuationLoop(job(max_tokens=100, output_config=FORM), SMALL)
    requests, step = drive(
        loop,
        ('{"a": 1, "b', CallOutcome("max_tokens")),
        ('{"a": 1, "b": 2, "c', CallOutcome("max_tokens")),
        ('{"a": 1, "b": 2, "c": 3}', CallOutcome("end_turn")),
    )
    assert step == Finished(Finish.END_TURN)
    assert loop.document.text == '{"a": 1, "b": 2, "c": 3}'
    assert [request["max_tokens"] for request in requests] == [100, 200, 400]
    assert all(len(request["messages"]) == 1 for request in requests)


def test_structured_output_that_no_call_can_hold_says_so():
    loop = ContinuationLoop(job(max_tokens=300, output_config=FORM), SMALL)
    cut = ('{"a": 1, "b', CallOutcome("max_tokens"))
    requests, step = drive(loop, cut, cut)
    assert isinstance(step, CannotContinue)
    assert "400 tokens" in step.reason
    assert [request["max_tokens"] for request in requests] == [300, 400]


def test_structured_output_is_not_called_met_where_it_was_cut():
    loop = ContinuationLoop(
        job(max_tokens=100, output_config=FORM, until=Until(contains='"b')), SMALL
    )
    _, step = drive(loop, ('{"a": 1, "b', CallOutcome("max_tokens")))
    assert isinstance(step, Send)


def test_broken_structured_output_is_begun_anew_within_max_calls():
    bounds = ContinuationSpec(max_calls=3)
    loop = ContinuationLoop(job(max_tokens=100, output_config=FORM, continuation=bounds), SMALL)
    requests, step = drive(loop, *[('{"a": 1', CallOutcome(None, error="dropped"))] * 3)
    assert isinstance(step, Finished)
    assert step.finish is Finish.MAX_CALLS
    assert [len(request["messages"]) for request in requests] == [1, 1, 1]


THOUGHT = ("", CallOutcome("max_tokens", usage=Usage(output_tokens=100)))


def test_a_call_that_spent_all_on_thinking_is_asked_again_with_more():
    loop = ContinuationLoop(job(max_tokens=100), TRAITS)
    requests, step = drive(loop, THOUGHT, ("Some text", CallOutcome("max_tokens")))
    assert isinstance(step, Send)
    assert step.max_tokens == 200, "what thinking once needed, it needs again"
    assert [request["max_tokens"] for request in requests] == [100, 200]


def test_thinking_only_twice_is_stalled():
    loop = ContinuationLoop(job(max_tokens=100), TRAITS)
    _, step = drive(loop, THOUGHT, THOUGHT)
    assert isinstance(step, Finished)
    assert step.finish is Finish.STALLED
    assert "think" in (step.detail or "")


def test_thinking_only_with_all_the_tokens_there_are_is_not_paid_for_twice():
    loop = ContinuationLoop(job(), SMALL)
    _, step = drive(loop, THOUGHT)
    assert isinstance(step, Finished)
    assert step.finish is Finish.STALLED


def test_a_document_that_fills_the_window_ends_before_a_call_that_cannot_succeed():
    small = ModelTraits(prefill=True, max_output_tokens=400, context_window=1_000)
    loop = ContinuationLoop(job(max_tokens=400), small)
    sizes = ((10, 80), (90, 400), (490, 400), (890, 400))  # tokens in, words out
    answers = [
        ("word " * words, CallOutcome("max_tokens", usage=Usage(tokens, output_tokens=words)))
        for tokens, words in sizes
    ]
    _, step = drive(loop, *answers)
    assert isinstance(step, Finished)
    assert step.finish is Finish.CONTEXT_WINDOW
    assert "1,000" in (step.detail or "")


def test_the_room_is_reckoned_by_what_the_api_counted():
    room = Room(job())
    room.note(0, Usage(100))
    room.note(1_000, Usage(100, cache_read_input_tokens=1_000))
    assert room.tokens(3_000) == 3_100, "a token a character, as in some scripts"
    room.note(3_000, Usage())
    assert room.tokens(3_000) == 3_100, "a server that does not count changes nothing"
    assert room.is_full(3_000, 3_100)
    assert not room.is_full(3_000, 3_200)


def test_a_prompt_is_never_taken_for_longer_than_it_is():
    """Pictures and papers do not count by the length of their data."""
    picture = {"type": "image", "source": {"type": "base64", "data": "A" * 4_000_000}}
    prompt = ({"role": "user", "content": [picture, {"type": "text", "text": "x" * 40}]},)
    loop = ContinuationLoop(JobSpec(id="j", model="m", messages=prompt, max_tokens=9), TRAITS)
    assert isinstance(loop.next_step(), Send)


# Nudges

STORY = "Once upon a time there lived an old otter by the river, and that was it."
ENDED = CallOutcome("end_turn")
UNTIL = Until(contains="</story>")


def nudged(*answers, traits=TRAITS, **settings):
    settings = {"until": UNTIL, "max_tokens": 100, **settings}
    loop = ContinuationLoop(job(**settings), traits)
    return loop, *drive(loop, (STORY + "\n", ENDED), *answers)


def test_a_model_that_stops_early_is_asked_honestly_to_go_on():
    loop, requests, step = nudged(("<anchor>\nThen it slept.</story>", ENDED))
    assert step == Finished(Finish.UNTIL_MET)
    assert loop.document.text == STORY + "\nThen it slept.</story>"
    assert loop.verdict is Verdict.ALIGNED
    assert [message["role"] for message in requests[1]["messages"]] == ["user", "assistant", "user"]
    request = requests[1]["messages"][-1]["content"][0]["text"]
    assert 'not finished yet: it does not yet contain "</story>"' in request
    assert requests[1]["messages"][1]["content"] == [{"type": "text", "text": STORY}]


def test_nudges_are_limited():
    _, _, step = nudged(("<anchor> More.", ENDED), ("<anchor> Still more.", ENDED))
    assert isinstance(step, Finished)
    assert step.finish is Finish.EARLY_END
    assert "asked 2 times" in (step.detail or "")


def test_no_nudges_where_the_job_wants_none():
    _, _, step = nudged(continuation=ContinuationSpec(max_nudges=0))
    assert isinstance(step, Finished)
    assert step.finish is Finish.EARLY_END


def test_a_comment_in_answer_to_a_nudge_never_enters_the_document():
    comment = ("The story is complete. Shall I write another one for you, maybe?", ENDED)
    loop, _, step = nudged(comment, comment)
    assert isinstance(step, Finished)
    assert step.finish is Finish.EARLY_END
    assert loop.document.text == STORY


def test_an_answer_that_adds_nothing_to_a_nudge_ends_early():
    loop, _, step = nudged(("<anchor>", ENDED), ("<anchor>", ENDED))
    assert isinstance(step, Finished)
    assert step.finish is Finish.EARLY_END
    assert loop.document.text == STORY


def test_a_broken_nudge_does_not_count():
    dropped = CallOutcome(None, error="dropped")
    _, requests, step = nudged(("", dropped), ("", dropped), ("<anchor> More.", ENDED))
    assert isinstance(step, Send)
    assert len(requests) == 4
    assert all("not finished yet" in str(request["messages"][-1]) for request in requests[1:])


def test_a_nudge_that_is_cut_goes_on_by_the_jobs_strategy():
    _, _, step = nudged(("<anchor> Then it swam to the", CallOutcome("max_tokens")))
    assert isinstance(step, Send)
    assert step.plan.strategy is Strategy.PREFILL
    assert "".join(b["text"] for b in step.plan.messages[-1]["content"]).endswith("swam to the")


def test_a_stop_sequence_before_the_condition_is_no_reason_to_nudge():
    step = after(CallOutcome("stop_sequence", stop_sequence="X"), "x", until=UNTIL)
    assert isinstance(step, Finished)
    assert step.finish is Finish.EARLY_END
    assert "stop sequence" in (step.detail or "")


def test_near_the_end_of_the_window_a_count_is_asked_for_and_decides():
    small = ModelTraits(prefill=True, max_output_tokens=400, context_window=1_000)
    document = "word " * 2_000
    loop = ContinuationLoop(job(max_tokens=100), small)
    api = StrictApi(document, lambda *_: 1_200)
    while isinstance(step := loop.next_step(), Send) and not step.near_window:
        loop.begin(step)
        text, outcome = api.answer(loop.request(step))
        loop.feed(text)
        loop.end(outcome)
    assert isinstance(step, Send)
    assert loop.counted(step, 500) is None
    full = loop.counted(step, 1_000)
    assert full is not None
    assert full.finish is Finish.CONTEXT_WINDOW
