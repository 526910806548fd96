"""A tokenizer that is like a real one where it matters: its tokens cut words and white space."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left

# Pieces of words with the space before them, digits by threes, punctuation that swallows the line
# breaks behind it, runs of white space; whatever is not ASCII is a token of its own, so a cut also
# falls between the parts of an accented letter or of an emoji made of several code points.
_TOKEN = re.compile(
    r" ?[A-Za-z]{1,9}|[0-9]{1,3}|[!-/:-@\[-`{-~]{1,3}\n{0,2}|\n{1,2}|[ \t]{1,4}|.", re.DOTALL
)


def token_ends(text: str) -> array[int]:
    """Where each token of `text` ends, as offsets in characters; the last is `len(text)`."""
    return array("L", [match.end() for match in _TOKEN.finditer(text)])


def count_tokens(text: str) -> int:
    """How many tokens `text` is split into."""
    return len(_TOKEN.findall(text))


def tokens_between(ends: array[int], start: int, end: int) -> int:
    """How many tokens have a part in the characters from `start` to `end`."""
    if end <= start:
        return 0
    # The token holding `start` is the first that ends after it; the one holding `end - 1` likewise.
    return bisect_left(ends, end) - bisect_left(ends, start + 1) + 1
