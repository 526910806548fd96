"""Asks a person at a terminal before much is spent: `limits.confirm_above_usd`, `--yes`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from runner.cli.common import message
from runner.cli.estimate import about_dollars, basis, estimated, expected_nano_usd, summary
from runner.cli.harmless import one_line
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.estimating.result import BatchEstimate
    from runner.jobs.jobfile import JobFile


def ask_above(job_files: Sequence[JobFile], database: str, limit: int | None) -> None:
    """Ask whether to begin, where what is left of a batch is expected to cost more than its job
    file lets pass unasked, or nobody knows what it costs.

    Where nobody can be asked it goes on and says the figure: a run at night must not wait for an
    answer.

    Raises:
        UsageError: the answer was no; nothing was queued or spent.
        CredentialsError: there is no key, so there is nothing to ask about.
    """
    guarded = [one for one in job_files if one.batch.limits.confirm_above_nano_usd is not None]
    if not guarded:
        return
    estimates = estimated(guarded, database, simulate=False, limit=limit, needs_key=True)
    dear = [one for one in estimates if one.documents and _is_above(one)]
    for one in dear:
        message(one_line(summary(one)))
        message(one_line(f"rests on: {basis(one)}"))
        bound = about_dollars(one.batch.limits.confirm_above_nano_usd or 0)
        message(one_line(f"{one.batch.name}: this is above its confirm_above_usd of {bound}"))
    if not dear or not at_a_terminal():
        return
    if not click.confirm("Begin?", err=True):
        raise UsageError("not begun: nothing was queued or spent. --yes begins without asking.")


def at_a_terminal() -> bool:
    """Whether a person can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _is_above(one: BatchEstimate) -> bool:
    expected, bound = expected_nano_usd(one), one.batch.limits.confirm_above_nano_usd
    return expected is None or (bound is not None and expected > bound)
