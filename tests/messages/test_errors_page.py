"""The page for users shows the very table that the program reads."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from runner.messages.backoff import CAP_S, RATE_LIMIT_CAP_S, RATE_LIMIT_LEAST_S, RETRY_AFTER_CAP_S
from runner.messages.classify import RULES, RUNNER_DOES, UNKNOWN, Rule
from runner.messages.client import THINKING_PATIENCE

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


def numbers(statuses: Collection[int]) -> str:
    """`408, 409, 500 to 599`"""
    ordered = sorted(statuses)
    runs: list[list[int]] = [ordered[:1]]
    for before, status in pairwise(ordered):
        if status == before + 1:
            runs[-1].append(status)
        else:
            runs.append([status])
    return ", ".join(
        f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def told(rule: Rule) -> str:
    parts = [numbers(rule.statuses)] if rule.statuses else []
    parts += [f"`{name}`" for name in sorted(rule.types)]
    words = ", ".join(parts)
    if rule.pattern is not None:
        pattern = rule.pattern.pattern.replace("|", "\\|")
        words = f"{words} saying `{pattern}`" if words else f"saying `{pattern}`"
    codes = ", ".join(f"`{name}`" for name in sorted(rule.codes))
    return "; ".join(filter(None, (words, f"code {codes}" if codes else ""))) or "anything else"


def table() -> str:
    rows = [
        "| what happened | how it is told | what runner does | what you do |",
        "| --- | --- | --- | --- |",
    ]
    rows += [
        f"| {rule.happened} | {told(rule)} | {RUNNER_DOES[rule.kind]} | {rule.do} |"
        for rule in (*RULES, UNKNOWN)
    ]
    return "\n".join(rows)


def test_the_table_is_the_programs_own() -> None:
    assert table() in PAGE, f"docs/errors.md should hold:\n\n{table()}"


def test_the_figures_are_the_programs_own() -> None:
    assert (CAP_S, RETRY_AFTER_CAP_S, RATE_LIMIT_CAP_S) == (300, 3600, 86400)
    assert "at most 5 minutes" in PAGE
    assert "one hour for an error" in PAGE
    assert "a day for a rate limit" in PAGE
    assert f"at least {RATE_LIMIT_LEAST_S:g} seconds" in PAGE
    assert THINKING_PATIENCE == 5
    assert "five times as long" in PAGE
