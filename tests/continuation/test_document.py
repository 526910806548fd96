"""The fold, and the places where a document may be cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.continuation.document import GrowingDocument, fold
from runner.continuation.text import Intake, clean_end, is_blank
from tests.continuation.strict_api import units

TEXTS = st.text(alphabet=st.sampled_from("ab \n\t<>é🦊\ufffd\u00a0"), max_size=40)


@given(st.lists(st.tuples(st.integers(0, 200), st.lists(TEXTS, max_size=4)), max_size=12))
def test_a_document_is_the_fold_of_its_calls(calls):
    """The rule of the design, written out plainly, beside the class that never copies."""
    document, plain, folded = GrowingDocument(), "", []
    for resume_at, parts in calls:
        resume_at = min(resume_at, len(plain))
        document.attach(resume_at)
        for part in parts:
            document.add(part)
        plain = plain[:resume_at] + "".join(parts)
        folded.append((resume_at, "".join(parts)))
        assert (document.text, len(document)) == (plain, len(plain))
        assert document.tail(7) == plain[-7:]
        assert document.words() == len(plain.split())
        assert document.clean_end(("ab",)) == clean_end(plain, ("ab",))
        assert "".join(document.blocks(len(plain) // 2)) == plain[: len(plain) // 2]
    assert fold(folded) == plain


def test_many_small_parts_are_put_together():
    document = GrowingDocument()
    words = [f"{n} " for n in range(1_000)]
    for word in words:
        document.add(word)
    assert document.tail(3_500) == "".join(words)[-3_500:]
    document.add("end")
    assert (document.text, document.words()) == ("".join(words) + "end", 1_001)


def test_a_resume_point_outside_the_document_is_a_bug():
    with pytest.raises(ValueError, match="outside a document of 3"):
        fold([(0, "abc"), (4, "d")])


def test_a_long_run_of_white_space_is_seen_through():
    document = GrowingDocument()
    document.attach(0)
    document.add("x" + " " * 10_000)
    assert document.clean_end(()) == 1


@given(TEXTS, st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3))
def test_a_clean_end_leaves_nothing_unfit(text, stops):
    end = clean_end(text, stops)
    kept = text[:end]
    assert kept == kept.rstrip().rstrip("\ufffd\ufeff")
    for stop in stops:
        assert not any(kept.endswith(stop[:n]) for n in range(1, len(stop) + 1))


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", 0),
        (" \n", 0),
        ("a", 1),
        ("a \n\t", 1),
        ("a\xa0\u3000\u2028\x85\x1f", 1),
        ("a�", 1),
        ("a � ", 1),
        ("�a", 2),
        ("a\ufeff\u200b", 1),
    ],
)
def test_clean_ends(text, end):
    assert clean_end(text) == end


@pytest.mark.parametrize(
    ("text", "stops", "end"),
    [
        ("x</en", ["</end>"], 1),
        ("x<", ["</end>"], 1),
        ("x\n\nE", ["\n\nEND"], 1),
        ("x</end>", ["</end>"], 1),
        ("xab", ["abc", "b!"], 1),
        ("x a", ["ab"], 1),
    ],
)
def test_half_a_stop_sequence_is_no_clean_end(text, stops, end):
    assert clean_end(text, stops) == end


@pytest.mark.parametrize("blank", ["", " ", "\n\u00a0\ufeff", "\u200b "])
def test_blank(blank):
    assert is_blank(blank)
    assert not is_blank(blank + "x" + blank)


@given(st.text(max_size=30), st.data())
def test_intake_puts_split_characters_together(text, data):
    pieces, cuts = units(text), Intake()
    assert "".join(map(cuts.feed, pieces)) + cuts.end(cut=True) == text.replace("\0", "\ufffd")


@pytest.mark.parametrize(
    ("pieces", "saved"),
    [
        (["\ud83e"], "\ufffd"),
        (["a\udd8a"], "a\ufffd"),
        (["\ud83e", "x"], "\ufffdx"),
        (["\ud83e", "\ud83e" + "\udd8a"], "\ufffd🦊"),
        (["a\0b"], "a\ufffdb"),
    ],
)
def test_intake_marks_what_cannot_be_saved(pieces, saved):
    intake = Intake()
    text = "".join(map(intake.feed, pieces)) + intake.end(cut=True)
    assert text == saved
    text.encode()
