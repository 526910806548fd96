"""The forms of `until`: what is wrong with one, and its regular expression made ready.

Regular expressions come with job files, which may be a stranger's. RE2 runs them in time
proportional to the text, whatever the pattern, so none can hold up the other jobs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Protocol

import re2  # type: ignore[import-untyped] # it ships no types; the protocols below stand for them

from runner.jobs.keys import KNOWN, unknown_key
from runner.jobs.problems import Path, Report, quoted
from runner.jobs.spec import Json

MAX_PATTERN = 1_000  # characters
MAX_PATTERN_BYTES = 1 << 20  # of memory that a compiled pattern may take
MAX_PARTS = 20  # conditions in one `all`
MAX_SIZE = 100_000_000  # words or characters

_TAG_NAME = re.compile(r"[A-Za-z_][\w.:-]{0,63}")
_FORMS = ("contains", "matches", "min_words", "min_chars", "closes_tags", "all")
_WRITE = 'Write `until: {contains: "…"}`, or another of its forms.'


class BadPattern(ValueError):
    """A regular expression that cannot be used; the message says why."""


class Match(Protocol):
    """Where a pattern matched."""

    def end(self) -> int:
        """The offset behind the match."""


class Pattern(Protocol):
    """A regular expression made ready."""

    def search(self, text: str, pos: int = 0) -> Match | None:
        """The first match in `text` that begins at `pos` or later, if any."""


@functools.lru_cache(maxsize=1024)  # a job file's rows mostly share one
def compiled(pattern: str) -> Pattern:
    """The regular expression made ready.

    Raises:
        BadPattern: it is too long, too large, not RE2's syntax, or matches the empty text.
    """
    if len(pattern) > MAX_PATTERN:
        raise BadPattern(f"it is {len(pattern):,} characters long, and {MAX_PATTERN:,} is the most")
    options = re2.Options()
    options.log_errors = False  # they are told to the user, not to the terminal
    options.max_mem = MAX_PATTERN_BYTES
    try:
        ready: Pattern = re2.compile(pattern, options)
    except re2.error as error:
        words = error.args[0] if error.args else error
        why = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
        raise BadPattern(why) from None
    except UnicodeEncodeError:
        raise BadPattern("it holds half a character (a lone surrogate)") from None
    if ready.search("") is not None:
        raise BadPattern("it matches the empty text, so every document would be finished")
    return ready


def check_until(value: Json, report: Report) -> None:
    """Report what is wrong with a job's `until`."""
    _check(value, report, ("until",), outermost=True)


def _check(value: Json, report: Report, path: Path, *, outermost: bool) -> None:
    if not isinstance(value, Mapping):
        report(path, f"this is {quoted(value)}", _WRITE)
        return
    before = report.count
    for key in value:
        if key not in KNOWN["`until`"]:
            report((*path, key), *unknown_key(key, "`until`"), on_key=True)
        elif not outermost and key in ("all", "stop"):
            fix = "Write it in `until` itself."
            report((*path, key), f"`{key}` cannot stand within `all`", fix, on_key=True)
    if report.count != before:
        return
    forms = [key for key in _FORMS if key in value]
    if not forms:
        report(path, "there is no condition here", _WRITE)
    elif len(forms) > 1:
        fix = f"Write `all: [{', '.join('{' + form + ': …}' for form in forms)}]`."
        report((*path, forms[1]), "there is more than one condition here", fix, on_key=True)
    else:
        _check_form(forms[0], value[forms[0]], report, (*path, forms[0]))
    if not isinstance(value.get("stop", False), bool):
        report((*path, "stop"), f"this is {quoted(value['stop'])}", "Write `true` or `false`.")


def _check_form(form: str, value: Json, report: Report, path: Path) -> None:
    if form in ("contains", "matches"):
        if not isinstance(value, str) or not value or value.isspace():
            report(path, "a text to wait for is needed, not blank", _WRITE)
        elif form == "matches":
            try:
                compiled(value)
            except BadPattern as bad:
                fix = "Write a regular expression in RE2's syntax (no look-around, no back-references)."
                report(
                    path,
                    f"this cannot be used as a regular expression: {quoted(str(bad))[1:-1]}",
                    fix,
                )
    elif form in ("min_words", "min_chars"):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= MAX_SIZE:
            report(path, f"this is {quoted(value)}", f"Write a whole number from 1 to {MAX_SIZE}.")
    elif form == "closes_tags":
        names = [value] if isinstance(value, str) else value
        if value is not True and not (
            isinstance(names, list) and names and all(map(_is_name, names))
        ):
            fix = "Write `true`, or names of tags such as `[answer, story_5]`, without `<` and `>`."
            report(path, f"this is {quoted(value)}", fix)
    elif not isinstance(value, list) or not 1 <= len(value) <= MAX_PARTS:
        fix = f"Write a list of 1 to {MAX_PARTS} conditions: `[{{contains: …}}, {{min_words: …}}]`."
        report(path, f"this is {quoted(value)}", fix)
    else:
        for index, part in enumerate(value):
            _check(part, report, (*path, index), outermost=False)


def _is_name(value: Json) -> bool:
    return isinstance(value, str) and _TAG_NAME.fullmatch(value) is not None
