"""`runner validate`, and reading job files for the commands that submit them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli.common import files_argument, message
from runner.cli.harmless import one_line

if TYPE_CHECKING:
    from runner.jobs.jobfile import JobFile

batch_option = click.option(
    "--batch", metavar="NAME", help="The batch to put the jobs under, in place of the file's own."
)


@click.command()
@files_argument
@batch_option
def validate(files: tuple[Path, ...], batch: str | None) -> None:
    """Check job files; queue and spend nothing.

    Reads every row of every file and says what is wrong with file, line, key and fix.

    \b
    Example:
      runner validate jobs.yaml

    Exit status: 0 if all are well, 2 if not.
    """
    for job_file in read_job_files(files, batch):
        click.echo(one_line(f"ok: {jobs(job_file.job_count)} in batch {job_file.batch.name}"))


def read_job_files(files: Sequence[Path], batch: str | None) -> list[JobFile]:
    """Read and check all job files before anything is done with the first.

    Raises:
        ExceptionGroup: of the JobFileErrors of those that are wrong.
    """
    from runner.jobs.jobfile import JobFileError, read_job_file
    from runner.messages import prices, retirement

    good: list[JobFile] = []
    errors: list[JobFileError] = []
    for path in files:
        try:
            good.append(read_job_file(path, batch=batch, is_priced=prices.is_priced))
        except JobFileError as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("job files were refused", errors)
    today = datetime.now(UTC).date()
    for job_file in good:
        ends = [retirement.warning(model, today) for model in sorted(job_file.models)]
        for warning in (*job_file.warnings, *filter(None, ends)):
            message(one_line(f"warning: {warning}"))
    return good


def jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"
