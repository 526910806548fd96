"""The plain form of texts: the fast ways say what the slow one does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.continuation import likeness
from runner.continuation.likeness import plain

# Much that is joined, spaced or quoted in ways of its own.
_STRANGE = st.sampled_from(
    [
        *" \t\n\x0b\x1c\x1f\x85\u00a0\u2003\u2028\u3000",
        *"“”„‟«»″‘’‚‛′´¨'\"",
        "e",
        "\u0301",
        "q\u0303",
        *"ﬁ½Åé漢한",
        "\u1112\u1161\u11ab",
        "\U0001f469\u200d\U0001f680",
        "word",
        "  ",
    ]
)
_TEXTS = st.one_of(st.text(), st.lists(_STRANGE).map("".join))


@given(_TEXTS)
def test_the_fast_ways_say_what_the_slow_one_does(raw: str) -> None:
    text, ends = likeness._plain(raw)
    fast = plain(raw)
    assert fast.text == text
    assert [fast.end(at) for at in range(len(text))] == ends


@given(_TEXTS)
def test_each_plain_character_ends_somewhere_and_the_last_at_the_end(raw: str) -> None:
    seen = plain(raw)
    ends = [seen.end(at) for at in range(len(seen.text))]
    assert ends == sorted(ends)
    assert not raw or ends[-1] == len(raw)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("a  \n b", "a b"),
        ("“a” ‘b’", "\"a\" 'b'"),
        ("ﬁne\u00a0", "fine "),
        (" \t\n", " "),
        ("\u2003é\u2028", " é "),
    ],
)
def test_white_space_quotes_and_forms_do_not_count(raw: str, text: str) -> None:
    assert plain(raw).text == text
