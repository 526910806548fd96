"""How models answer, above all when they are asked to go on by a user turn."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from random import Random

from runner.simulator.request import Request


class Behaviour(StrEnum):
    """The ways by name. The last three concern every answer, the others those to a user turn."""

    OBEYS = "obeys"  # repeats the last words it is asked for, and goes on
    OPENS = "opens"  # says "Sure, here is the rest" first
    REPEATS = "repeats"  # repeats the last sentence or two
    RETYPES = "retypes"  # repeats with other quotation marks, white space and Unicode form
    FENCES = "fences"  # opens a code block first
    RESTARTS = "restarts"  # begins the document again
    COMMENTS = "comments"  # talks about the document instead of going on with it
    SKIPS = "skips"  # goes on rightly, without the last words
    STOPS_EARLY = "stops_early"  # ends its turn although the document is not finished
    CIRCLES = "circles"  # repeats itself without end
    THINKS_ONLY = "thinks_only"  # thinks until its tokens are used up


ALWAYS = frozenset({Behaviour.STOPS_EARLY, Behaviour.CIRCLES, Behaviour.THINKS_ONLY})
COMMENT = "It looks as if the document is finished. Shall I write anything else for you?"
OPENINGS = (
    "Sure, here is the rest of the document:\n\n",
    "Certainly! Continuing from where I left off:\n\n",
    "I apologize for the interruption. Here is the continuation:\n\n",
)
_REPEATED = 150  # characters: a sentence or two


class BehaviourPlan:
    """Says how each answer is given: as the prompt's mark says, else by probability.

    Raises:
        ValueError: a name in `probabilities` is no behaviour.
    """

    def __init__(self, probabilities: Mapping[str, float]) -> None:
        self._probabilities = [(Behaviour(k), p) for k, p in sorted(probabilities.items())]

    def draw(self, request: Request, marked: str | None, random: Random) -> Behaviour:
        """How the next answer is given.

        Raises:
            ValueError: the mark names no behaviour.
        """
        behaviour = Behaviour(marked) if marked is not None else self._drawn(random)
        return behaviour if request.asking_blocks or behaviour in ALWAYS else Behaviour.OBEYS

    def _drawn(self, random: Random) -> Behaviour:
        if not self._probabilities:
            return Behaviour.OBEYS
        chance = random.random()
        for behaviour, probability in self._probabilities:
            if chance < probability:
                return behaviour
            chance -= probability
        return Behaviour.OBEYS


def lead(behaviour: Behaviour, request: Request, random: Random) -> str:
    """What an answer to a user turn writes before it goes on with the document."""
    anchor = request.anchor
    match behaviour:
        case Behaviour.OPENS:
            return random.choice(OPENINGS) + anchor
        case Behaviour.FENCES:
            return "```\n" + anchor
        case Behaviour.REPEATS:
            given = request.prefill.rstrip()
            start = given.find(" ", max(0, len(given) - len(anchor) - _REPEATED)) + 1
            return given[min(start, len(given) - len(anchor)) :]
        case Behaviour.RETYPES:
            return retyped(anchor)
        case Behaviour.RESTARTS | Behaviour.SKIPS:
            return ""
        case Behaviour.COMMENTS:
            return COMMENT
        case _:
            return anchor


def retyped(text: str) -> str:
    """The same words with other quotation marks, white space and Unicode form."""
    typed = unicodedata.normalize("NFD", text).replace('"', "\u201d").replace("'", "\u2019")
    return re.sub(r"\s+", "\n", typed)
