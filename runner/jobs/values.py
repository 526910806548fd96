"""Checks of single values of a job file: each reports what is wrong, and says whether all is well."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal

from runner.jobs.problems import Path, Report, quoted
from runner.jobs.spec import Json

MODEL = re.compile(r"[!-~]{1,256}")
MAX_USD = 1_000_000_000


def is_text(value: Json) -> bool:
    """Whether it is a text that is not blank."""
    return isinstance(value, str) and bool(value) and not value.isspace()


def check_model(value: Json, report: Report, path: Path) -> None:
    if not isinstance(value, str) or not MODEL.fullmatch(value):
        report(path, f"{quoted(value)} is no model name", "Write one such as `claude-haiku-4-5`.")


def check_int(
    value: Json, report: Report, path: Path, least: int, most: int, *, or_else: str = ""
) -> bool:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return True
    either = f", or {or_else}" if or_else else ""
    fix = f"Write a whole number from {least} to {most}{either}."
    report(path, f"this is {quoted(value)}", fix)
    return False


def check_mapping(value: Json, report: Report, path: Path) -> bool:
    if isinstance(value, Mapping):
        return True
    report(path, f"this is {quoted(value)}", f"Write a mapping: `{path[-1]}: {{key: value}}`.")
    return False


def check_money(
    value: Json,
    report: Report,
    path: Path,
    *,
    zero: bool = False,
    or_else: str = "",
    most: int = MAX_USD,
) -> bool:
    """Whether it is an amount of dollars."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        least = 0 if zero else Decimal("0.000000001")
        if least <= Decimal(str(value)) <= most:  # false for nan and infinity, too
            return True
    either = f", or {or_else}" if or_else else ""
    fix = f"Write an amount of dollars without a sign, such as `12.50`{either}."
    report(path, f"this is {quoted(value)}", fix)
    return False


def check_one_of(value: Json, report: Report, path: Path, words: Collection[str]) -> bool:
    """Whether it is one of these words."""
    if isinstance(value, str) and value in words:
        return True
    report(path, f"this is {quoted(value)}", f"Write {' or '.join(f'`{w}`' for w in words)}.")
    return False
