"""Numbers as prompts write them: 900, 1,500, 2.5k, five, a dozen, twenty-five, two thousand."""

from __future__ import annotations

import re
from typing import Final

_SMALL: Final = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS: Final = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES: Final = {"dozen": 12, "hundred": 100, "thousand": 1_000}
_VALUES: Final = (
    {word: number for number, word in enumerate(_SMALL, start=1)}
    | {word: 10 * number for number, word in enumerate(_TENS, start=2)}
    | {"a": 1, "an": 1, "single": 1, "half": 0.5}
)

_scale = "|".join(_SCALES)
_digits = r"\d{1,3}(?:,\d{3})+|\d{1,9}(?:\.\d{1,3})?"
_words = rf"(?:{'|'.join(_TENS)})(?:[-\s](?:{'|'.join(_SMALL[:9])}))?|{'|'.join(_SMALL)}"
NUMBER: Final = (
    rf"(?:(?:{_digits})(?:\s?k\b|\s?(?:{_scale})\b|(?![\d,]))"
    rf"|\b(?:(?:{_words})(?:[\s-](?:{_scale}))?|an?[\s-](?:{_scale})|an?[\s-]single|half[\s-]a[\s-](?:{_scale}))\b)"
)
"""A regular expression without groups for one number; to be used with re.IGNORECASE."""


def number_of(text: str) -> float:
    """The value of what `NUMBER` matched."""
    parts = re.findall(r"[a-z]+|[\d.]+", text.lower().replace(",", ""))
    value = 0.0
    for part in parts:
        if part == "k":
            value *= 1_000
        elif part in _SCALES:
            value = (value or 1) * _SCALES[part]
        elif part in ("a", "an"):
            value = value or 1
        elif part == "single":
            value = 1
        elif part in _VALUES:
            value += _VALUES[part]
        else:
            value += float(part)
    return value
