"""The user's own condition for a finished document, watched while the document grows.

Each form has a *place*: the offset at which it is first met. New text alone is looked at, and what
of the old text a form needs, so that watching a document costs what it grows by.
"""

from __future__ import annotations

import re
from collections import Counter
from copy import copy
from typing import Protocol, Self

from runner.continuation.document import GrowingDocument
from runner.jobs.conditions import Match, compiled
from runner.jobs.spec import Until

MATCH_SPAN = 4_000  # characters that a regular expression may match and still be found for certain
_SHOWN_TAGS = 5

# Elements of HTML that are never closed.
_VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr".split()  # noqa: SIM905
)
_TAG = re.compile(r"<(/?)([A-Za-z_][\w.:-]{0,63})(?:\s[^<>]{0,1000})?(/?)>")
_LONGEST_TAG = 1_100  # characters
_BETWEEN_TAGS = re.compile(r"<?[^<>]*>?|[<>]")


class Condition(Protocol):
    """One form of `until`, fed with the document from its beginning.

    Attributes:
        place: the offset at which it is first met; None while it is not.
    """

    @property
    def place(self) -> int | None: ...

    def feed(self, text: str) -> None:
        """The document goes on with `text`."""

    def met(self) -> bool:
        """Whether a document that ends here meets it."""

    def missing(self) -> str:
        """What the document lacks, to follow the word "it"."""

    def copy(self) -> Self:
        """The same as it stands, to be fed on its own."""


class _Form:
    """What holds no more than values that are never changed in place."""

    def copy(self) -> Self:
        return copy(self)


class _Contains(_Form):
    def __init__(self, wanted: str) -> None:
        self.place: int | None = None
        self._wanted = wanted
        self._seen = 0
        self._tail = ""

    def feed(self, text: str) -> None:
        window = self._tail + text
        if self.place is None and (at := window.find(self._wanted)) >= 0:
            self.place = self._seen - len(self._tail) + at + len(self._wanted)
        self._seen += len(text)
        keep = len(self._wanted) - 1
        self._tail = window[len(window) - keep :] if keep <= len(window) else window

    def met(self) -> bool:
        return self.place is not None

    def missing(self) -> str:
        return f'does not yet contain "{self._wanted}"'


class _Matches(_Form):
    """A match that ends where the text ends so far may grow: mid-stream it waits for more."""

    def __init__(self, pattern: str) -> None:
        self._words = pattern
        self._pattern = compiled(pattern)
        self._text = ""  # where a match may begin, and the character before it
        self._before = 0  # characters before that
        self.new: list[str] = []
        self._match: Match | None = None
        self._place: int | None = None

    def feed(self, text: str) -> None:
        self.new.append(text)

    def copy(self) -> Self:
        same = copy(self)
        same.new = self.new.copy()
        return same

    @property
    def place(self) -> int | None:
        match = None if self._place is not None else self._search()
        if match is not None and match.end() < len(self._text):
            self._place = self._before + match.end()
        return self._place

    def met(self) -> bool:
        return self._place is not None or self._search() is not None

    def missing(self) -> str:
        return f"does not yet hold anything that the regular expression {self._words} matches"

    def _search(self) -> Match | None:
        """Looks at what is new. What `^` and `\\b` want to see before it goes in as well."""
        if self.new:
            beyond = max(0, len(self._text) - MATCH_SPAN - 1)
            self._before += beyond
            self._text = "".join((self._text[beyond:], *self.new))
            self.new.clear()
            self._match = self._pattern.search(self._text, 1 if self._before else 0)
        return self._match


class _MinWords(_Form):
    """The n-th word counts once white space follows it, or the document ends."""

    def __init__(self, least: int) -> None:
        self.place: int | None = None
        self._least = least
        self._whole = 0  # words that white space followed
        self._in_word = False
        self._seen = 0

    def feed(self, text: str) -> None:
        if self.place is None:
            self._count(text)
        self._seen += len(text)

    def _count(self, text: str) -> None:
        for match in re.finditer(r"\s+|\S+", text):
            if not match[0][0].isspace():
                self._in_word = True
            elif self._in_word:
                self._in_word = False
                self._whole += 1
                if self._whole == self._least:
                    self.place = self._seen + match.start()
                    return

    def met(self) -> bool:
        return self.place is not None or self._whole + self._in_word >= self._least

    def missing(self) -> str:
        return f"has {self._whole + self._in_word:,} words, and is to have at least {self._least:,}"


class _MinChars(_Form):
    """The place is behind the word, in scripts that part words by white space."""

    def __init__(self, least: int) -> None:
        self.place: int | None = None
        self._least = least
        self._seen = 0
        self._last = ""

    def feed(self, text: str) -> None:
        start = max(0, self._least - self._seen)
        for at in range(start, len(text)):
            if self.place is not None:
                break
            before = text[at - 1] if at else self._last
            if not (_of_word(before) and _of_word(text[at])):
                self.place = self._seen + at
        self._seen += len(text)
        self._last = text[-1:] or self._last

    def met(self) -> bool:
        return self._seen >= self._least

    def missing(self) -> str:
        return f"has {self._seen:,} characters, and is to have at least {self._least:,}"


class _ClosesTags(_Form):
    """Counts the tags that are opened and closed; `names` empty means all of them."""

    def __init__(self, names: frozenset[str]) -> None:
        self.place: int | None = None
        self._names = names
        self.opened: Counter[str] = Counter()
        self.closed: set[str] = set()
        self._seen = 0
        self._tail = ""  # begins with a `<` that may yet become a tag

    def feed(self, text: str) -> None:
        window = self._tail + text
        start = self._seen - len(self._tail)
        end = 0
        for match in _TAG.finditer(window):
            end = match.end()
            self._take(*match.groups())
            if self.place is None and self.met():
                self.place = start + end
        self._seen += len(text)
        begun = window.rfind("<", max(end, len(window) - _LONGEST_TAG))
        self._tail = window[begun:] if begun >= 0 else ""

    def _take(self, slash: str, name: str, empty: str) -> None:
        if self._names:
            if name not in self._names:
                return
        elif name.lower() in _VOID:
            return
        if empty:
            self.closed.add(name)
        elif not slash:
            self.opened[name] += 1
        elif self.opened[name]:
            self.opened[name] -= 1
            self.closed.add(name)

    def copy(self) -> Self:
        same = copy(self)
        same.opened, same.closed = self.opened.copy(), self.closed.copy()
        return same

    def met(self) -> bool:
        wanted = self.closed >= self._names if self._names else bool(self.closed)
        return wanted and not any(self.opened.values())

    def missing(self) -> str:
        still = [name for name, count in self.opened.items() if count]
        if still:
            return f"does not yet close {_tags(still)}"
        never = sorted(self._names - self.closed)
        return f"does not yet hold {_tags(never)}" if never else "holds no tags yet"


class _All(_Form):
    def __init__(self, parts: list[Condition], *, stop: bool) -> None:
        self.place: int | None = None
        self.parts = parts
        self._stop = stop

    def feed(self, text: str) -> None:
        if not self._stop or self.place is not None:
            self._feed(text)
            return
        # Tags may be closed here and open a little later: looked at only once a piece, whether the
        # parts are met together would depend on how the stream was cut into pieces.
        for piece in _BETWEEN_TAGS.findall(text):
            self._feed(piece)
            places = [part.place for part in self.parts]
            if None not in places and self.met():
                self.place = max(place for place in places if place is not None)
                return

    def _feed(self, text: str) -> None:
        for part in self.parts:
            part.feed(text)

    def copy(self) -> Self:
        same = copy(self)
        same.parts = [part.copy() for part in self.parts]
        return same

    def met(self) -> bool:
        return all(part.met() for part in self.parts)

    def missing(self) -> str:
        return ", and ".join(part.missing() for part in self.parts if not part.met())


class Watch:
    """Watches one document for its job's condition.

    Args:
        until: None: the job has no condition, and nothing is ever met.
    """

    def __init__(self, until: Until | None) -> None:
        self._until = until
        self._condition = None if until is None else _condition(until)
        # How it stood at the last resume point, from which the next is not far.
        self._earlier = None if until is None else _condition(until)
        self._earlier_at = 0

    def look_again(self, document: GrowingDocument) -> None:
        """The document went back to a resume point: what was met behind it no longer counts."""
        if self._until is None or self._earlier is None:
            return
        if len(document) < self._earlier_at:
            self._earlier, self._earlier_at = _condition(self._until), 0
        self._earlier.feed(document.tail(len(document) - self._earlier_at))
        _ = self._earlier.place  # looked at now, lest every copy looks at all of it
        self._earlier_at = len(document)
        self._condition = self._earlier.copy()

    def feed(self, text: str) -> None:
        """The document goes on with `text`."""
        if self._condition is not None:
            self._condition.feed(text)

    @property
    def stop_at(self) -> int | None:
        """The offset at which the document is to be stopped; None: it goes on."""
        if self._until is None or self._condition is None or not self._until.stop:
            return None
        return self._condition.place

    @property
    def met(self) -> bool:
        """Whether a document whose author ends it here meets the condition."""
        return self._condition is not None and self._condition.met()

    @property
    def met_by_a_mark(self) -> bool:
        """Whether the document is finished even where it was cut.

        A text to be contained is the mark of an end. A number of words is not: a document that was
        cut at its 500th word has enough words, and half a sentence.
        """
        if self._until is None:
            return False
        return self.stop_at is not None or (_is_mark(self._until) and self.met)

    @property
    def missing(self) -> str:
        """What the document lacks, to follow the word "it"."""
        return "" if self._condition is None else self._condition.missing()


def _condition(until: Until) -> Condition:
    if until.all:
        return _All([_condition(part) for part in until.all], stop=until.stop)
    if until.contains is not None:
        return _Contains(until.contains)
    if until.matches is not None:
        return _Matches(until.matches)
    if until.min_words is not None:
        return _MinWords(until.min_words)
    if until.min_chars is not None:
        return _MinChars(until.min_chars)
    tags = until.closes_tags
    return _ClosesTags(frozenset(tags) if isinstance(tags, tuple) else frozenset())


def _is_mark(until: Until) -> bool:
    """Whether the condition marks an end, or only asks for a least size or for order."""
    if until.all:
        return any(map(_is_mark, until.all))
    named = isinstance(until.closes_tags, tuple) and bool(until.closes_tags)
    return until.contains is not None or until.matches is not None or named


def _of_word(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _tags(names: list[str]) -> str:
    shown = ", ".join(f"<{name}>" for name in names[:_SHOWN_TAGS])
    return shown + (" and others" if len(names) > _SHOWN_TAGS else "")
