"""docs/continuation.md tells every verdict, condition, stop reason and finish, and true figures."""

from pathlib import Path

from runner.continuation import circles, endings, turn_splice, until
from runner.jobs.call import Strategy, Verdict
from runner.jobs.conditions import MAX_PATTERN
from runner.jobs.keys import KNOWN
from runner.jobs.states import Finish

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "continuation.md").read_text()


def test_every_word_is_told() -> None:
    words = (*Strategy, *Verdict, *Finish, *filter(None, endings.RULES))
    for word in words:
        assert f"`{word}`" in PAGE, word
    for form in KNOWN["`until`"]:
        assert f"`{form}" in PAGE, form


def test_a_drawn_example_for_each_verdict() -> None:
    for verdict in Verdict:
        assert f"**`{verdict}`**" in PAGE
    assert PAGE.count("```text") >= 5


def test_figures() -> None:
    assert f"every {circles.LOOK_EVERY:,}\ncharacters" in PAGE
    assert f"the last {circles.LEAST:,} or more" in PAGE
    assert f"{turn_splice.MIN_OVERLAP} characters or\nmore" in PAGE
    assert f"more than {until.MATCH_SPAN:,} characters" in PAGE
    assert f"at most {MAX_PATTERN:,} characters" in (DOCS / "job-file.md").read_text()
