"""Requests to go on by a user turn: what of the text so far they ask the model to repeat. Pure.

Source: Messages API documentation, "Handling stop reasons": models that take no prefill are asked to
go on by a user turn behind the text so far.
"""

from __future__ import annotations

import re

_LEAST_ANCHOR = 12  # characters that a request and the text so far share by no accident
_ASKS = re.compile(r"\b(continue|go on|carry on|left off)\b", re.IGNORECASE)


def anchor_of(given: str, asking: str) -> str:
    """The longest piece that ends the text so far and stands in the request; empty for none."""
    given = given.rstrip()
    low, high = 0, min(len(given), len(asking))
    while low < high:  # a piece that stands there stands there with its beginning cut off, too
        middle = (low + high + 1) // 2
        if given[-middle:] in asking:
            low = middle
        else:
            high = middle - 1
    anchor = given[len(given) - low :]
    return anchor if low >= _LEAST_ANCHOR or low == len(given) else ""


def asks_to_go_on(given: str, asking: str, anchor: str) -> bool:
    """Whether a user turn asks to go on; else it is one more turn of an ordinary conversation."""
    return bool(given.strip()) and bool(anchor or _ASKS.search(asking))
