"""The length that a prompt asks for, in its own words: "about 900 words", "five stories of 2,000
tokens each". English before all; a prompt that says nothing of length gives nothing.

It reads the beginning and the end of a prompt only: there its instructions stand, and in between
the texts they are about, which speak of lengths that nobody asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

from runner.estimating.numbers import NUMBER, number_of

LOOKED_AT: Final = 3_000  # characters at either end of a prompt


class Unit(StrEnum):
    """What a length is counted in."""

    WORDS = "words"
    TOKENS = "tokens"
    CHARACTERS = "characters"


@dataclass(frozen=True, slots=True)
class Wish:
    """A length that was asked for, in `unit`; authors keep to it only roughly."""

    unit: Unit
    least: float
    expected: float
    most: float
    phrase: str  # the prompt's own words for it

    def times(self, count: float) -> Wish:
        return Wish(
            self.unit, self.least * count, self.expected * count, self.most * count, self.phrase
        )


# Words in each, roughly; used only where nothing more exact is asked for.
_LOOSE_UNITS: Final = {"page": 450, "paragraph": 90, "sentence": 20}
_ITEMS: Final = {
    "story": 600,
    "chapter": 1_500,
    "article": 800,
    "essay": 800,
    "section": 400,
    "scene": 800,
    "poem": 150,
    "letter": 300,
    "post": 400,
    "lesson": 800,
    "episode": 1_000,
    "recipe": 300,
    "review": 200,
    "dialogue": 300,
    "summary": 150,
    "description": 120,
    "entry": 100,
    "example": 60,
    "question": 40,
    "part": None,
    "item": None,
    "paragraph": None,
    "version": None,
    "variant": None,
}


def _plural(noun: str) -> str:
    return f"{noun[:-1]}(?:y|ies)" if noun.endswith("y") else f"{noun}s?"


_unit = r"words?|w(?:ö|oe)rtern?|worten?|mots|palabras|tokens?|characters?|chars?"
_loose = "|".join(map(_plural, _LOOSE_UNITS))
_item = "|".join(map(_plural, _ITEMS))
_more = r"at\s+least|no\s+(?:less|fewer)\s+than|a?\s*minimum(?:\s+of)?|more\s+than|over|min\.?"
_less = (
    r"at\s+most|no\s+(?:more|longer)\s+than|up\s+to|under|below|(?:less|fewer|shorter)\s+than|"
    r"a?\s*max(?:imum|\.)?(?:\s+of)?|within|not\s+exceed(?:ing)?|exceeding"
)
_LENGTH: Final = re.compile(
    rf"(?:(?P<more>\b(?:{_more}))\s+|(?P<less>\b(?:{_less}))\s+)?"
    rf"(?:(?P<between>\bbetween\s+)?(?P<from>{NUMBER})\s*(?:-|–|—|\bto\b|\band\b)\s*)?"
    rf"(?P<number>{NUMBER})[\s-]*(?:more\s+)?(?P<unit>{_unit}|{_loose})\b"
    r"(?P<each>\s+(?:long\s+)?(?:each|apiece|per\s+(?P<per>[a-z]+)|for\s+(?:each|every)\b))?"
    r"(?P<after>\s*(?:or\s+more|minimum|min\b|at\s+least|or\s+(?:less|fewer)|max(?:imum)?\b|at\s+most))?",
    re.IGNORECASE,
)
_counted = (
    rf"(?P<count>{NUMBER})[\s-]+"
    rf"(?:(?!and\b|of\b|with\b|(?:{_unit})\b)[\w'-]+,?[\s-]+){{0,4}}?(?P<noun>{_item})"
)
_COUNT: Final = re.compile(rf"{_counted}\b", re.IGNORECASE)
# What is looked for first, being rare and quickly found: the noun behind the number.
_UNIT_WORD: Final = re.compile(rf"(?<![^\W\d_])(?:{_unit}|{_loose})\b", re.IGNORECASE)
_ITEM_WORD: Final = re.compile(rf"\b(?:{_item})\b", re.IGNORECASE)
_MOST_PLACES: Final = 40  # of such nouns that are looked at
_BEFORE, _BEHIND = 110, 40  # characters round one that are looked at
_EACH_BEFORE: Final = re.compile(r"\b(?:each|every)\b[^.\n;:]{0,60}$", re.IGNORECASE)
# "ten chapters of about 900 words": a plural noun that the length belongs to.
_ITEMS_OF: Final = re.compile(
    rf"{_counted}\s+(?:of|with)\s+"
    r"(?:about|around|approximately|roughly|some|exactly|only)?\s*$",
    re.IGNORECASE,
)
_IN_ALL: Final = re.compile(
    r"^\s*(?:in\s+(?:all|total)|altogether|overall|combined)", re.IGNORECASE
)
# A text that is there already, or a rule for something smaller than the document.
_NOT_ASKED_FOR: Final = re.compile(
    r"\b(?:this|these|those|following|above|attached|original|my|his|her|their|first|last|every|per|any)\s+$"
    r"|\b(?:sentence|line|title|heading|headline|caption|keyword|name|bullet)s?\b[^.\n;]{0,30}$",
    re.IGNORECASE,
)
_THE: Final = re.compile(r"\bthe(?:\s+same)?\s+$", re.IGNORECASE)
_SMALL_PARTS: Final = frozenset({"line", "sentence", "minute", "second", "hour", "day", "page"})


def wished(prompt: str) -> Wish | None:
    """The length that a prompt asks for; None where it asks for none.

    Args:
        prompt: its text.
    """
    text = prompt
    if len(prompt) > 2 * LOOKED_AT:
        text = f"{prompt[:LOOKED_AT]}\n.\n{prompt[-LOOKED_AT:]}"
    exact: list[Wish] = []
    loose: list[Wish] = []
    for wish, is_exact in _wishes(text):
        (exact if is_exact else loose).append(wish)
    if exact or loose:
        # Of a whole and its parts, the whole is the longest.
        return max(exact or loose, key=lambda wish: wish.expected)
    return _items_without_length(text)


def _wishes(text: str) -> Iterator[tuple[Wish, bool]]:
    """Every length in `text`, and whether it is in an exact unit."""
    for match in _places(text, _UNIT_WORD, _LENGTH, "unit"):
        before = text[max(0, match.start() - 120) : match.start()]
        if _NOT_ASKED_FOR.search(before) or (match["per"] or "").lower() in _SMALL_PARTS:
            continue
        expected = number_of(match["number"])
        if not 0 < expected <= 10_000_000 or (_THE.search(before) and expected <= 20):
            continue
        wish = _wish(match, expected)
        found = _known_unit(match["unit"])
        if not _IN_ALL.match(text[match.end() :]):
            wish = wish.times(_repetitions(match, before, text))
        yield wish, found is not None


def _places(
    text: str, word: re.Pattern[str], pattern: re.Pattern[str], group: str
) -> Iterator[re.Match[str]]:
    """The matches of `pattern` whose `group` is one of the first places of `word`."""
    for found in islice(word.finditer(text), _MOST_PLACES):
        start, end = max(0, found.start() - _BEFORE), found.end() + _BEHIND
        for match in pattern.finditer(text, start, end):
            if match.start(group) == found.start():
                yield match
                break


def _wish(match: re.Match[str], expected: float) -> Wish:
    known = _known_unit(match["unit"])
    unit, scale = known or (Unit.WORDS, _loose_words(match["unit"]))
    phrase = " ".join(match[0].split())
    after = (match["after"] or "").lower()
    least, most = 0.85 * expected, 1.25 * expected
    first = number_of(match["from"]) if match["from"] else 0.0
    if 0 < first < expected:
        least, most, expected = first, expected, (first + expected) / 2
    elif match["more"] or "more" in after or "min" in after or "least" in after:
        least, expected, most = expected, 1.15 * expected, 1.8 * expected
    elif match["less"] or "less" in after or "fewer" in after or "m" in after:
        least, expected, most = 0.4 * expected, 0.8 * expected, expected
    if known is None:
        least, most = 0.6 * least, 1.6 * most
    return Wish(unit, scale * least, scale * expected, scale * most, phrase)


def _repetitions(match: re.Match[str], before: str, text: str) -> float:
    """How often the document holds something of that length."""
    if direct := _ITEMS_OF.search(before):
        return max(1.0, number_of(direct["count"]))
    if not match["each"] and not _EACH_BEFORE.search(before):
        return 1.0
    counts = [
        (number_of(one["count"]), one["noun"].lower())
        for one in _places(text, _ITEM_WORD, _COUNT, "noun")
        if not match.start() <= one.start() < match.end()
    ]
    noun = (match["per"] or "").lower()
    named = [count for count, word in counts if noun and word[:4] == noun[:4]]
    return max(1.0, (named or [count for count, _ in counts] or [1.0])[0])


def _items_without_length(text: str) -> Wish | None:
    """ "Five stories": how long such things are as a rule."""
    for match in _places(text, _ITEM_WORD, _COUNT, "noun"):
        count = number_of(match["count"])
        words = next(
            (
                words
                for noun, words in _ITEMS.items()
                if re.fullmatch(_plural(noun), match["noun"], re.IGNORECASE)
            ),
            None,
        )
        before = text[max(0, match.start() - 40) : match.start()]
        if words is None or not 2 <= count <= 10_000 or _NOT_ASKED_FOR.search(before):
            continue
        if _THE.search(before):
            continue
        phrase = " ".join(match[0].split())
        return Wish(Unit.WORDS, 0.5 * words, words, 2 * words, phrase).times(count)
    return None


def _known_unit(word: str) -> tuple[Unit, int] | None:
    lower = word.lower()
    if lower.startswith("char"):
        return Unit.CHARACTERS, 1
    if lower.startswith(("wo", "wö", "mots", "palabras")):
        return Unit.WORDS, 1
    return (Unit.TOKENS, 1) if lower.startswith("token") else None


def _loose_words(word: str) -> int:
    return next(words for noun, words in _LOOSE_UNITS.items() if word.lower().startswith(noun))
