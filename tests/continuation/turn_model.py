"""A model that is asked to go on by a user turn, and the ways in which models do that."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.jobs.call import CallOutcome, Usage

ANCHOR = re.compile(r"<last_words>(.*)</last_words>\Z", re.DOTALL)


def obeys(document: str, given: str, anchor: str) -> str:
    return anchor + document[len(given) :]


def opens(document: str, given: str, anchor: str) -> str:
    return "Sure, here is the rest of the document:\n\n" + obeys(document, given, anchor)


def apologises(document: str, given: str, anchor: str) -> str:
    return "I apologize for the interruption. Continuing:\n" + obeys(document, given, anchor)


def fences(document: str, given: str, anchor: str) -> str:
    return "```python\n" + obeys(document, given, anchor)


def quotes(document: str, given: str, anchor: str) -> str:
    return f'"{anchor}"' + document[len(given) :]


def keeps_tags(document: str, given: str, anchor: str) -> str:
    return f"<last_words>{anchor}</last_words>" + document[len(given) :]


def leads_in(document: str, given: str, anchor: str) -> str:
    return "..." + obeys(document, given, anchor)


def repeats(document: str, given: str, anchor: str) -> str:
    """Begins a sentence or two earlier."""
    start = max(0, len(given) - len(anchor) - 150)
    start = document.find(" ", start) + 1
    return document[min(start, len(given) - len(anchor)) :]


def opens_and_repeats(document: str, given: str, anchor: str) -> str:
    return "Of course! Picking up where I left off:\n\n" + repeats(document, given, anchor)


def retypes(document: str, given: str, anchor: str) -> str:
    """Other quotation marks, white space and Unicode form in the anchor."""
    typed = unicodedata.normalize("NFD", anchor).replace('"', "”").replace("'", "’")
    return re.sub(r"\s+", "\n", typed) + document[len(given) :]


def half_anchor(document: str, given: str, anchor: str) -> str:
    """Repeats only the end of what it was asked to repeat."""
    return anchor[-30:].lstrip() + document[len(given) :]


def restarts(document: str, given: str, anchor: str) -> str:
    return document


def comments(document: str, given: str, anchor: str) -> str:
    return "It looks as if the document is finished. Shall I write anything else for you?"


def skips(document: str, given: str, anchor: str) -> str:
    """Goes on rightly, without the anchor."""
    return document[len(given) :].lstrip()


DECIDABLE = (obeys, opens, apologises, fences, quotes, keeps_tags, leads_in, repeats)
DECIDABLE += (opens_and_repeats, retypes, half_anchor)
UNDECIDABLE = (restarts, comments, skips)

Behaviour = Callable[[str, str, str], str]


@dataclass
class TurnModel:
    """Answers by `behaviour`, cut after `size(n, max_tokens)` characters."""

    document: str
    size: Callable[[int, int], int]
    behaviour: Callable[[int], Behaviour]
    requests: list[Mapping[str, Any]] = field(default_factory=list)

    def answer(self, body: Mapping[str, Any]) -> tuple[str, CallOutcome]:
        messages = body["messages"]
        assert messages[-1]["role"] == "user", "this model takes no prefill"
        n = len(self.requests)
        self.requests.append(body)
        reply = self.document
        if len(messages) > 1:
            given = "".join(block["text"] for block in messages[-2]["content"])
            found = ANCHOR.search(messages[-1]["content"][-1]["text"])
            assert found is not None
            anchor = found[1]
            assert self.document.startswith(given), f"not a beginning: {given[-50:]!r}"
            assert given.endswith(anchor)
            assert given == given.rstrip()
            reply = self.behaviour(n)(self.document, given, anchor)
        size = self.size(n, body["max_tokens"])
        usage = Usage(output_tokens=min(size, len(reply)))
        if size < len(reply):
            return reply[:size], CallOutcome("max_tokens", usage=usage)
        return reply, CallOutcome("end_turn", usage=usage)


def own_line(document: str, given: str, anchor: str) -> str:
    """The anchor on a line of its own, then on with the text."""
    return anchor + "\n\n" + document[len(given) :].lstrip()


def restarts_politely(document: str, given: str, anchor: str) -> str:
    return "Sure! Here is the whole answer, continued to its end:\n\n" + document


def rewrites(document: str, given: str, anchor: str) -> str:
    """Begins again and soon goes another way."""
    return document[: len(given) // 2] + "But it all went another way. " + document[len(given) :]


def jumps_back(document: str, given: str, anchor: str) -> str:
    """Goes on behind an earlier place, with a piece of the anchor before it."""
    return anchor[-20:] + document[len(given) * 2 // 3 :]


def answers_about(document: str, given: str, anchor: str) -> str:
    return f'Your answer ended with "{anchor}". Shall I go on from there?'


def short_repeat(document: str, given: str, anchor: str) -> str:
    """Repeats the last word or two only."""
    return " ".join(anchor.split()[-2:]) + document[len(given) :]


def says_nothing(document: str, given: str, anchor: str) -> str:
    return ""


HOSTILE = (restarts_politely, rewrites, jumps_back, answers_about, short_repeat, says_nothing)
