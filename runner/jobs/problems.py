"""What is wrong with a job file, each with its place and its fix, gathered and shown together."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from runner.errors import RunnerError

SHOWN_PROBLEMS = 20
# A mistake under `defaults` meets every job; it is told once. Past this many we stop comparing.
REMEMBERED_PROBLEMS = 10_000
SHOWN_CHARACTERS = 60

Path = tuple[str | int, ...]  # keys and list indices that lead to a value


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a job file.

    Args:
        file: the file it stands in, as it was named.
        line: counted from 1; None where the file as a whole is meant.
        column: in characters, counted from 1.
        key: the way to the offending key, such as `jobs[0].max_tokens`; empty for the whole file.
        message: what is wrong.
        fix: what to do about it.
        row: the row of a `foreach` file that brought it up.
    """

    file: str
    line: int | None
    column: int | None
    key: str
    message: str
    fix: str
    row: str | None = None

    def __str__(self) -> str:
        place = [str(n) for n in (self.line, self.column) if n is not None]
        what = ", ".join(part for part in (self.key, self.row) if part)
        head = ":".join([plain(self.file), *place]) + ":" + (f" {plain(what)}:" if what else "")
        return f"{head} {self.message}. {self.fix}"


class JobFileError(RunnerError):
    """A job file was refused; nothing of it was queued.

    Args:
        problems: the first twenty at most, in the order of the file.
        total: how many there are in all.
    """

    exit_status = 2

    def __init__(self, problems: Collection[Problem], total: int) -> None:
        self.problems = tuple(problems)
        self.total = total
        lines = [str(problem) for problem in self.problems]
        more = total - len(lines)
        if more:
            lines.append(f"and {more:,} more")
        super().__init__("\n".join(lines))


class Problems:
    """Gathers problems: keeps the first to show, counts all.

    With `at_once`, the first one raises JobFileError: for files that were read without fault
    before and have changed since.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.total = 0
        self.muted = False  # while a file is read once more for places only
        self._at_once = at_once
        self._first: list[Problem] = []
        self._seen: set[Problem] = set()

    def add(self, problem: Problem) -> None:
        if self.muted or problem in self._seen:
            return
        if len(self._seen) < REMEMBERED_PROBLEMS:
            self._seen.add(problem)
        self.total += 1
        if len(self._first) < SHOWN_PROBLEMS:
            self._first.append(problem)
        if self._at_once:
            raise self.error()

    def refuse(self, problem: Problem) -> JobFileError:
        """The error to raise when nothing beyond this problem can be read."""
        self.add(problem)
        return self.error()

    def error(self) -> JobFileError:
        shown = sorted(self._first, key=lambda p: (p.file, p.line or 0, p.column or 0))
        return JobFileError(shown, self.total)

    def raise_if_any(self) -> None:
        if self.total:
            raise self.error()


class Report(ABC):
    """Takes what a check finds, by the path of the value within the job.

    `count` grows with each, so that a caller can tell whether anything was found.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path, message: str, fix: str, *, on_key: bool = False) -> None:
        """Report a problem of the value at `path`; with `on_key`, of the key that names it."""
        self.count += 1
        self.place(path, message, fix, on_key)

    @abstractmethod
    def place(self, path: Path, message: str, fix: str, on_key: bool) -> None:
        """Find the place of `path` and add the problem."""

    @abstractmethod
    def where(self, path: Path) -> str:
        """The place of `path` in words, for a message about another place."""


def dotted(path: Path) -> str:
    """A path as a reader writes it: `jobs[0].max_tokens`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def plain(text: str) -> str:
    """Text with everything a terminal might act on written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """A value from the file as messages show it: short, on one line, harmless to a terminal."""
    text = value if isinstance(value, str) else _written(value)
    if len(text) > SHOWN_CHARACTERS:
        text = text[: SHOWN_CHARACTERS - 1] + "…"
    return f'"{plain(text)}"' if isinstance(value, str) else plain(text)


def _written(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return str(value)


def nearest(word: str, known: Collection[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that `word` was probably meant to be; `cutoff` 1 takes only the word itself."""
    close = difflib.get_close_matches(word.lower()[:100], known, n=1, cutoff=cutoff)
    return close[0] if close else None
