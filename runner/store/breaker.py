"""The breaker: a batch whose jobs keep failing with the same error pauses, rather than fail whole.

A wrong parameter, a model that is gone or a proxy in the way would else discard a million jobs by
morning. What the last jobs of a batch ended with is kept in its row (`batch.recent_ends`), so that
all processes remember together. What counts is the jobs' end, not each error on the way there; a
document that ended, whole, cut or refused, is none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

IN_A_ROW: Final = 20
WINDOW: Final = 50
OF_WINDOW: Final = 25  # half of it

_LONGEST_NAME = 80  # characters: an error's name may be a stranger's words
_NO_ERROR = ""


@dataclass(frozen=True, slots=True)
class Trip:
    """Why a batch is to pause.

    Args:
        error: the name of the error: HTTP status and type.
        times: how many of the last `of` jobs ended with it.
    """

    error: str
    times: int
    of: int

    @property
    def reason(self) -> str:
        """The same in words."""
        jobs = f"{self.times} jobs in a row"
        if self.times < self.of:
            jobs = f"{self.times} of the last {self.of} jobs"
        return f"{jobs} failed with the same error, {self.error}"


@dataclass(frozen=True, slots=True)
class RecentEnds:
    """How the last jobs of a batch ended, oldest first, as runs of the same.

    Args:
        runs: an error's name, or "" for a document that ended, and how many in a row; in all at
            most `WINDOW`, so that where all goes well it stays as it is.
    """

    runs: tuple[tuple[str, int], ...] = ()

    def then(self, error: str | None) -> RecentEnds:
        """What is remembered after one more job ended.

        Args:
            error: the name of the error that ended it; None where its document ended.
        """
        name = _NO_ERROR if error is None else error[:_LONGEST_NAME]
        runs = list(self.runs)
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
        if sum(count for _, count in runs) > WINDOW:
            oldest, count = runs[0]
            runs[:1] = [(oldest, count - 1)] if count > 1 else []
        return RecentEnds(tuple(runs))

    def trip(self) -> Trip | None:
        """Whether the latest end is one too many of its kind."""
        if not self.runs or self.runs[-1][0] == _NO_ERROR:
            return None
        error, in_a_row = self.runs[-1]
        if in_a_row >= IN_A_ROW:
            return Trip(error, in_a_row, in_a_row)
        times = sum(count for name, count in self.runs if name == error)
        if times >= OF_WINDOW:
            return Trip(error, times, sum(count for _, count in self.runs))
        return None

    def to_json(self) -> str:
        """As the batch's row holds it."""
        return json.dumps(self.runs, ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str | None) -> RecentEnds:
        """Read it back; nothing where there is nothing."""
        runs = json.loads(text) if text else []
        return RecentEnds(tuple((str(name), int(count)) for name, count in runs))
