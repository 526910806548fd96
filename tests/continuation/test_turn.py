"""Promise 5 for `turn`: each seam is verified, or repaired, or flagged; never silently doubtful."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import CannotContinue, Finished, Send
from runner.jobs.call import Strategy, Verdict
from runner.jobs.spec import ContinuationSpec, OnUnverifiedSeam
from runner.jobs.states import Finish
from runner.jobs.traits import ModelTraits
from tests.continuation import turn_model
from tests.continuation.strict_api import job, units
from tests.continuation.turn_model import DECIDABLE, UNDECIDABLE, TurnModel

TRAITS = ModelTraits(prefill=False, max_output_tokens=128_000, context_window=1_000_000)
SPEC = ContinuationSpec(max_calls=10_000)

PROSE = [". ", ", ", "\n\n", "\n", ' "quoted" ', " it's ", " naïve café "]
MATTER = ["\n- item ", "\n| a | b |\n", "\n```python\nx = 1\n```\n", "<story_2>", "</story_2>\n\n"]
SCRIPTS = [" 漢字かな ", " 👩\u200d👩\u200d👧 ", " 0, 0, 0, "]
PIECES = st.sampled_from(PROSE + MATTER + SCRIPTS)


@st.composite
def documents(draw):
    """Text in which every few words are unlike all others, as in prose, with awkward matter."""
    parts = draw(st.lists(st.tuples(st.integers(1, 6), PIECES), min_size=1, max_size=60))
    counter, text = 0, ""
    for words, piece in parts:
        for _ in range(words):
            counter += 1
            text += f"word{counter:x} "
        text = text.rstrip() + piece
    return text.strip() + "."


def run_all(loop, api):
    verdicts = []
    while isinstance(step := loop.next_step(), Send):
        loop.begin(step)
        text, outcome = api.answer(loop.request(step))
        for piece in units(text):
            loop.feed(piece)
            if loop.rejected is not None:
                break
        loop.end(outcome)
        if step.plan.strategy is Strategy.TURN:
            verdicts.append(loop.verdict if loop.rejected is None else "rejected")
    return step, verdicts


def sizes(base):
    return lambda n, max_tokens: base[n % len(base)] * max(1, max_tokens // 600)


@settings(max_examples=300)
@given(
    documents(),
    st.lists(st.integers(500, 900), min_size=1, max_size=5),
    st.lists(st.sampled_from(DECIDABLE), min_size=1, max_size=6),
)
def test_every_decidable_reply_gives_the_true_document(document, base, behaviours):
    api = TurnModel(document, sizes(base), lambda n: behaviours[n % len(behaviours)])
    loop = ContinuationLoop(job(max_tokens=600, continuation=SPEC), TRAITS)
    step, verdicts = run_all(loop, api)
    assert step == Finished(Finish.END_TURN)
    assert loop.document.text == document
    assert set(verdicts) <= {Verdict.ALIGNED, Verdict.OVERLAP}


@pytest.mark.parametrize("behaviour", DECIDABLE, ids=lambda b: b.__name__)
def test_each_decidable_behaviour(behaviour):
    document = " ".join(f'Sentence {n} says that it\'s "{n * n}" by now.' for n in range(200))
    api = TurnModel(document, lambda *_: 1000, lambda _: behaviour)
    loop = ContinuationLoop(job(max_tokens=600, continuation=SPEC), TRAITS)
    step, verdicts = run_all(loop, api)
    assert step == Finished(Finish.END_TURN)
    assert loop.document.text == document
    expected = Verdict.OVERLAP if behaviour is turn_model.half_anchor else Verdict.ALIGNED
    assert set(verdicts) == {expected}


@pytest.mark.parametrize("behaviour", UNDECIDABLE, ids=lambda b: b.__name__)
@pytest.mark.parametrize("policy", OnUnverifiedSeam)
def test_each_undecidable_behaviour_is_rejected_then_flagged_or_failed(behaviour, policy):
    document = " ".join(f"Sentence {n} says {n * n} by now." for n in range(400))
    api = TurnModel(document, lambda *_: 9000, lambda _: behaviour)
    loop = ContinuationLoop(
        job(max_tokens=600, continuation=ContinuationSpec(on_unverified_seam=policy)), TRAITS
    )
    step, verdicts = run_all(loop, api)
    assert verdicts[:2] == ["rejected", "rejected"]
    if policy is OnUnverifiedSeam.FAIL or behaviour is turn_model.restarts:
        if policy is OnUnverifiedSeam.FAIL:
            assert isinstance(step, CannotContinue)
        else:
            assert isinstance(step, Finished)
            assert step.finish is Finish.STALLED
        assert verdicts[2] == "rejected"
        assert document.startswith(loop.document.text)
    else:
        assert verdicts[2] is Verdict.UNVERIFIED
        assert isinstance(step, Finished)
        if behaviour is turn_model.skips:
            assert loop.document.text == document


@settings(max_examples=300)
@given(
    documents(),
    st.lists(st.integers(300, 900), min_size=1, max_size=5),
    st.lists(st.sampled_from(DECIDABLE + UNDECIDABLE), min_size=1, max_size=6),
)
def test_a_document_is_never_silently_wrong(document, base, behaviours):
    api = TurnModel(document, sizes(base), lambda n: behaviours[n % len(behaviours)])
    loop = ContinuationLoop(job(max_tokens=600, continuation=SPEC), TRAITS)
    step, verdicts = run_all(loop, api)
    if isinstance(step, Finished) and step.finish.complete and Verdict.UNVERIFIED not in verdicts:
        assert loop.document.text == document


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        ("0, " * 900 + "1.", Verdict.UNVERIFIED),
        ("la la la\n" * 300 + "end", Verdict.UNVERIFIED),
        ("| 0 | 0 |\n" * 300 + "end", Verdict.UNVERIFIED),
        (
            "".join(
                f"Verse {n} of it.\nAnd so we sing the song again, again, again.\n"
                for n in range(99)
            ),
            Verdict.ALIGNED,
        ),
    ],
    ids=["zeros", "chorus", "table", "refrain"],
)
def test_legitimate_repeats_are_kept(document, verdict):
    """A model that obeys repeats the anchor at its beginning: nothing else is taken off. Where
    the anchor stands in many places, nobody can tell which of them the reply means."""
    api = TurnModel(document, lambda *_: 900, lambda _: turn_model.obeys)
    loop = ContinuationLoop(job(max_tokens=600, continuation=SPEC), TRAITS)
    step, verdicts = run_all(loop, api)
    assert step == Finished(Finish.END_TURN)
    assert loop.document.text == document
    assert set(verdicts) == {verdict}


def test_a_reply_cut_before_the_anchor_ends_is_asked_for_more():
    document = " ".join(f"Sentence {n} says {n * n} by now." for n in range(20))
    api = TurnModel(document, lambda _, max_tokens: max_tokens, lambda _: turn_model.opens)
    loop = ContinuationLoop(job(max_tokens=60, continuation=SPEC), TRAITS)
    step, verdicts = run_all(loop, api)
    assert isinstance(step, Finished)
    assert document.startswith(loop.document.text)
    assert "rejected" not in verdicts
