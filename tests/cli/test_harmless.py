"""Text from elsewhere on a terminal."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.cli.harmless import harmless, one_line
from tests.cli.filled import HOSTILE


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jtext", "text"),
        ("\x1bPq#0\x1b\\text", "text"),
        ("\x1bctext", "text"),
        ("\x1b(0text", "text"),
        ("\x1b]0;never closed, and on it goes", "0;never closed, and on it goes"),
        ("\x1b", ""),
        ("a\x08\x08b\x7f\x00c", "abc"),
        ("over\rwritten", "over\nwritten"),
        ("crlf\r\nline", "crlf\nline"),
        ("‮desrever‬ ⁦x⁩", "desrever x"),
        ("half \ud83d pair", "half  pair"),
        ("tabs\tand\nlines stay", "tabs\tand\nlines stay"),
        ("żółw, 日本語, 👩‍🚀, العربية", "żółw, 日本語, 👩‍🚀, العربية"),
    ],
)
def test_what_is_left(text: str, left: str) -> None:
    assert harmless(text) == left


def test_one_line_is_one_line() -> None:
    assert one_line(" a\n b\t\u2028c\x0bd ") == "a b c d"
    assert "\n" not in one_line(HOSTILE)


@given(
    st.text(
        alphabet=st.one_of(st.characters(), st.sampled_from("\x1b[]0;?hlmHJ\x9b\x9d\x07\\P\x18"))
    )
)
def test_nothing_left_steers_a_terminal(text: str) -> None:
    left = harmless(text)
    assert not any(ord(c) < 0x20 and c not in "\t\n" for c in left)
    assert not any(0x7F <= ord(c) <= 0x9F for c in left)
    left.encode()
    assert harmless(left) == left


@given(st.text(alphabet="ab\x1b[]0;?12hlmHJK\x9b\x07\n"))
def test_a_screen_shows_only_the_letters(text: str) -> None:
    screen = pyte.Screen(80, 24)
    pyte.Stream(screen).feed("before" + one_line(text)[:60])
    assert screen.display[0].startswith("before")
    assert screen.title == ""
