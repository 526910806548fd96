"""Promise 5 for `prefill`: cut anywhere, the document is what one endless call would have given."""

from __future__ import annotations

import itertools

from hypothesis import event, given, settings
from hypothesis import strategies as st

from runner.continuation.document import fold
from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, PastCall, Send
from runner.jobs.call import CallOutcome, Strategy, Verdict
from runner.jobs.spec import ContinuationSpec
from runner.jobs.states import Finish
from tests.continuation.strict_api import TRAITS, StrictApi, job, run, units

# Pieces that hurt: white space of all kinds, tags, astral and combining characters, replacement
# characters of the document's own, and the beginnings of the stop sequences used below.
WORDS = st.sampled_from(
    [
        "a",
        "word",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\xa0",
        "\u3000",
        "\u2028",
        "\x1c",
        "\ufeff",
        "</story_1>",
        "<b>",
        "```\n",
        "| a | b |\n",
        "    indented\n",
        "0, 0, 0",
        "́",
        "�",
        "🦊",
        "👩\u200d👩\u200d👧",
        "漢字",
        "é",
        "</en",
        "</end",
        "\n\nE",
        "EN",
        "ST",
        "STOP!",
        "</end>",
        "\n\nEND",
        "word word",
    ]
)
DOCUMENTS = st.lists(WORDS, min_size=1, max_size=60).map("".join)
STOPS = st.lists(
    st.sampled_from(["</end>", "\n\nEND", "STOP", "TOP!", "word word", "🦊!"]), max_size=3
).map(tuple)
SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=30)


def sized(sizes: list[int]):
    """The n-th answer's size; an answer that was asked for more gives more."""
    return lambda n, max_tokens: sizes[n % len(sizes)] if max_tokens <= 100 else 40 + sizes[0]


@settings(max_examples=400)
@given(DOCUMENTS, STOPS, SIZES, st.booleans(), st.booleans())
def test_any_cuts_give_the_endless_document(document, stops, sizes, tear, one_block):
    api = StrictApi(document, sized(sizes), stops, tear)
    traits = TRAITS if not one_block else type(TRAITS)(True, 64_000, 200_000, one_block=True)
    loop = ContinuationLoop(
        job(
            max_tokens=100,
            stop_sequences=stops,
            continuation=ContinuationSpec(max_calls=10_000),
        ),
        traits,
    )
    step = run(loop, api, units)

    assert isinstance(step, Finished)
    event(f"ended as {step.finish}, {min(len(api.requests), 5)} calls or more")
    text = loop.document.text
    if step.finish is Finish.STALLED:
        # Only where white space or half stop sequences fill more than two whole answers, or there
        # is nothing but white space.
        assert not api.endless.strip("\ufeff \n\t\u00a0\u3000\u2028\x1c") or len(document) > 40
        assert api.endless.startswith(text.rstrip("\ufffd"))
    else:
        assert text == api.endless
        assert step.finish in (Finish.END_TURN, Finish.STOP_SEQUENCE)
    if one_block:
        assert all(
            len(request["messages"][-1]["content"]) == 1
            for request in api.requests
            if request["messages"][-1]["role"] == "assistant"
        )


@given(DOCUMENTS, SIZES, st.data())
def test_interrupted_anywhere_it_goes_on_from_what_was_saved(document, sizes, data):
    """Each call may die after any saved character; a new loop is built from what was saved."""
    api = StrictApi(document, sized(sizes))
    spec = job(max_tokens=100, continuation=ContinuationSpec(max_calls=10_000))
    past: list[PastCall] = []
    for _ in range(400):
        loop = ContinuationLoop(spec, TRAITS, past)
        assert fold((call.resume_at, call.text) for call in past) == loop.document.text
        step = loop.next_step()
        if not isinstance(step, Send):
            break
        loop.begin(step)
        text, outcome = api.answer(loop.request(step))
        dies = len(past) < 40 and data.draw(st.booleans(), "dies")
        if dies:
            text = text[: data.draw(st.integers(0, len(text)), "saved")]
        saved = "".join(loop.feed(piece) for piece in units(text))
        saved += loop.end(CallOutcome(None) if dies else outcome)
        past.append(PastCall(step.plan.resume_at, saved, None if dies else outcome))
    assert isinstance(step, Finished)
    if step.finish is not Finish.STALLED:
        assert loop.document.text == document


@given(DOCUMENTS, SIZES)
def test_blocks_stay_the_same_from_call_to_call(document, sizes):
    """Prompt caching finds a beginning only if its blocks never change: all but a request's last
    block stand unchanged in the next."""
    api = StrictApi(document, sized(sizes))
    loop = ContinuationLoop(
        job(max_tokens=100, continuation=ContinuationSpec(max_calls=10_000)), TRAITS
    )
    run(loop, api)
    sent = [
        [block["text"] for block in request["messages"][-1]["content"]]
        for request in api.requests
        if request["messages"][-1]["role"] == "assistant"
    ]
    for before, after in itertools.pairwise(sent):
        assert after[: len(before)] == before


def test_white_space_is_stripped_from_the_request_and_written_again():
    api = StrictApi("One.\n\nTwo.", lambda n, _: [6, 100][n])
    loop = ContinuationLoop(job(max_tokens=100), TRAITS)
    assert run(loop, api) == Finished(Finish.END_TURN)
    assert api.requests[1]["messages"][-1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "One."}],
    }
    assert loop.document.text == "One.\n\nTwo."


def test_a_seam_is_exact_and_a_first_call_has_none():
    loop = ContinuationLoop(job(max_tokens=100), TRAITS)
    first = loop.next_step()
    assert isinstance(first, Send)
    loop.begin(first)
    assert (first.plan.strategy, loop.verdict, first.plan.resume_at) == (None, None, 0)
    loop.feed("abc ")
    loop.end(CallOutcome("max_tokens"))
    second = loop.next_step()
    assert isinstance(second, Send)
    loop.begin(second)
    plan = second.plan
    assert (plan.strategy, loop.verdict, plan.resume_at) == (Strategy.PREFILL, Verdict.EXACT, 3)


def test_a_text_of_white_space_only_is_never_sent():
    api = StrictApi("\n\n \nHello", lambda n, _: [3, 50][n])
    loop = ContinuationLoop(job(max_tokens=100), TRAITS)
    assert run(loop, api) == Finished(Finish.END_TURN)
    assert [request["messages"][-1]["role"] for request in api.requests] == ["user", "user"]
    assert loop.document.text == "\n\n \nHello"


def test_a_stop_sequence_over_a_seam_is_found():
    api = StrictApi("Body</end> never this", lambda n, _: [7, 50][n], ("</end>",))
    loop = ContinuationLoop(job(max_tokens=100, stop_sequences=("</end>",)), TRAITS)
    assert run(loop, api) == Finished(Finish.STOP_SEQUENCE)
    assert loop.document.text == "Body"
