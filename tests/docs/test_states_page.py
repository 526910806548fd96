"""docs/states.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from runner.jobs.states import TRANSITIONS, Finish

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def table_of_transitions() -> str:
    rows = [
        f"| {f'`{t.before}`' if t.before else 'new'} | `{t.after}` | {t.when} "
        f"| {', '.join(t.counters)} |".replace("|  |", "| |")
        for t in TRANSITIONS
    ]
    return "\n".join(["| from | to | when | counters |", "| --- | --- | --- | --- |", *rows])


def test_the_table_of_transitions_is_the_codes_own():
    assert table_of_transitions() in PAGE.read_text()


def test_every_finish_has_its_row_the_complete_ones_first():
    rows = re.findall(
        r"^\| `(\w+)` \| .+ \| .*\|$", PAGE.read_text().split("## Finishes")[1], re.MULTILINE
    )
    assert rows == list(Finish)
    assert [Finish(row).complete for row in rows] == [True] * 3 + [False] * (len(rows) - 3)
