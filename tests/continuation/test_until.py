"""Every form of `until` by name, in whole and in pieces, with and without `stop`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.continuation.document import GrowingDocument
from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, PastCall, Send
from runner.continuation.until import Watch
from runner.jobs.call import CallOutcome
from runner.jobs.spec import Until
from runner.jobs.states import Finish
from tests.continuation.strict_api import TRAITS, job
from tests.continuation.test_loop import after

CASES = {
    # form: condition, a text that meets it, the part up to its place, a text that does not
    "contains": (Until(contains="</s>"), "a</s> b", "a</s>", "a</s b"),
    "matches": (Until(matches=r"(?m)^END \d+"), "a\nEND 12 b", "a\nEND 12", "a END 12 b"),
    "min_words": (Until(min_words=3), "one two\nthree four", "one two\nthree", "one two "),
    "min_chars": (Until(min_chars=6), "one two three", "one two", "one t"),
    "closes_tags": (Until(closes_tags=True), "<a><br>x</a> y", "<a><br>x</a>", "<a>x<b></a> y"),
    "closes_tags by name": (
        Until(closes_tags=("b",)), "<a><b x='1'>x</b> y", "<a><b x='1'>x</b>", "<a>x</a><b>",
    ),
    "all": (
        Until(all=(Until(contains="END"), Until(min_words=3))), "END is it now", "END is it", "END is ",
    ),
}  # fmt: skip
FORMS = pytest.mark.parametrize(("until", "text", "upto", "other"), CASES.values(), ids=CASES)


def with_stop(until):
    return Until.from_json({**until.as_json(), "stop": True})


@FORMS
def test_met_at_the_end_of_the_turn(until, text, upto, other):
    assert after(CallOutcome("end_turn"), text, until=until) == Finished(Finish.UNTIL_MET)
    step = after(CallOutcome("end_turn"), other, until=until)
    assert isinstance(step, Send), "the model is asked to go on"
    assert "not finished yet: it " in step.plan.messages[-1]["content"][0]["text"]


@FORMS
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_stop_in_mid_stream(until, text, upto, other, size):
    loop = ContinuationLoop(job(max_tokens=100, until=with_stop(until)), TRAITS)
    step = loop.next_step()
    assert isinstance(step, Send)
    loop.begin(step)
    saved = ""
    whole = text + " and much that nobody wants to pay for"
    for at in range(0, len(whole), size):
        saved += loop.feed(whole[at : at + size])
        if loop.closed is not None:
            break
    assert loop.closed is not None
    assert at < len(text) + 5 or size == 100
    saved += loop.end(CallOutcome(None, error="closed"))
    assert saved == loop.document.text == upto
    assert loop.next_step() == Finished(Finish.UNTIL_MET)
    # A process that died before it could say so: the next call is closed at its first words.
    again = ContinuationLoop(loop.spec, TRAITS, [PastCall(0, saved, None)])
    if isinstance(step := again.next_step(), Send):
        again.begin(step)
        again.feed(whole[len(saved) : len(saved) + 2])
        assert again.closed is not None
        again.end(CallOutcome(None))
        assert again.next_step() == Finished(Finish.UNTIL_MET)
    assert again.document.text == upto


@FORMS
def test_missing_is_said_in_words(until, text, upto, other):
    watch = Watch(until)
    watch.feed(other)
    assert not watch.met
    assert watch.missing.startswith(("does not yet", "has ", "holds no"))


def test_a_least_size_is_no_end_where_the_document_was_cut():
    """Enough words, and half a sentence: only the model's own end, or `stop`, finishes it."""
    for until in (Until(min_words=2), Until(min_chars=2), Until(closes_tags=True)):
        step = after(CallOutcome("max_tokens"), "<a>one two three</a> fo", until=until)
        assert isinstance(step, Send)
    marked = Until(all=(Until(min_words=2), Until(contains="</a>")))
    step = after(CallOutcome("max_tokens"), "<a>one two three</a> fo", until=marked)
    assert step == Finished(Finish.UNTIL_MET)


def test_a_mark_in_a_broken_call_saves_the_next():
    step = after(CallOutcome(None, error="dropped"), "x</s> and", until=Until(contains="</s>"))
    assert step == Finished(Finish.UNTIL_MET)


def test_what_was_met_behind_a_resume_point_counts_no_more():
    watch = Watch(Until(contains="END"))
    document = GrowingDocument()
    document.add("the END")
    watch.feed("the END")
    assert watch.met
    document.attach(4)
    watch.look_again(document)
    assert not watch.met


@settings(max_examples=200)
@given(
    st.text(alphabet="ab <>/\n", max_size=60),
    st.lists(st.integers(0, 60), max_size=8),
    st.sampled_from(
        [
            Until(contains="ab a"),
            Until(min_words=4),
            Until(min_chars=9),
            Until(closes_tags=True),
            Until(closes_tags=("a", "b")),
            Until(all=(Until(min_words=2), Until(closes_tags=True))),
        ]
    ),
)
def test_pieces_do_not_matter(text, cuts, until):
    whole, pieces = Watch(with_stop(until)), Watch(with_stop(until))
    whole.feed(text)
    at = 0
    for cut in sorted({*cuts, len(text)}):
        pieces.feed(text[at:cut])
        at = max(at, cut)
    assert pieces.stop_at == whole.stop_at
    assert pieces.met == whole.met
    if whole.stop_at is not None:
        assert 0 <= whole.stop_at <= len(text)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.text(alphabet="ab <>/\n", max_size=30), st.integers(0, 40)), max_size=6),
    st.sampled_from(
        [
            Until(contains="ab a"),
            Until(matches=r"\ba+ b\b|^<a"),
            Until(matches=r"(?m)^b+$"),
            Until(min_words=4),
            Until(min_chars=9),
            Until(closes_tags=("a", "b")),
            Until(all=(Until(min_words=2), Until(closes_tags=True), Until(matches="b>$"))),
        ]
    ),
)
def test_seams_do_not_matter(pieces, until):
    """A document that went back at its seams is watched like one that was never cut."""
    watch, document = Watch(with_stop(until)), GrowingDocument()
    for text, back in pieces:
        document.attach(max(0, len(document) - back))
        if back:
            watch.look_again(document)
        document.add(text)
        watch.feed(text)
        whole = Watch(with_stop(until))
        whole.feed(document.text)
        assert watch.met == whole.met
        assert (watch.stop_at is None) == (whole.stop_at is None)
        assert watch.missing == whole.missing


def test_a_pattern_is_looked_for_with_what_stands_before_it():
    for pattern, text, found in (
        (r"\bend", " end", True),
        (r"\bend", "bend", False),
        ("^end", "\nend", False),
        ("(?m)^end", "\nend", True),
    ):
        watch = Watch(Until(matches=pattern, stop=True))
        watch.feed("x" * 9_000 + text[:1])
        assert watch.stop_at is None
        watch.feed(text[1:] + " and")
        assert watch.stop_at == (9_000 + len(text) if found else None)
        watch.feed("x" * 9_000)
        assert watch.stop_at == (9_000 + len(text) if found else None)


def test_a_hostile_pattern_takes_no_time():
    watch = Watch(Until(matches="(a*)*(a*)*(a*)*b", stop=True))
    for _ in range(20):
        watch.feed("a" * 1_000)
        assert watch.stop_at is None


def test_conditions_come_back_from_json():
    for until, *_ in CASES.values():
        assert Until.from_json(until.as_json()) == until
    assert Until(contains="x").as_json() == {"contains": "x"}, "hashes of older jobs stand"
