"""The job file: read and checked whole, then streamed job by job.

Nothing is half-accepted: a file with one mistake is refused with every mistake that was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from runner.errors import UsageError
from runner.jobs.fields import ID_RULE
from runner.jobs.files import Unreadable, open_file
from runner.jobs.ids import IdRegister
from runner.jobs.price import Rates
from runner.jobs.problems import JobFileError, Problem, Problems, Report, quoted
from runner.jobs.request_lines import RequestLines
from runner.jobs.spec import ID_PATTERN, BatchSpec, JobSpec
from runner.jobs.yaml_jobs import YamlJobs

__all__ = ["JobFile", "JobFileError", "Problem", "read_job_file"]

_YAML_SUFFIXES = (".yaml", ".yml")
_JSONL_SUFFIXES = (".jsonl", ".ndjson")

IsPriced = Callable[[JobSpec, Mapping[str, Rates]], bool]


@dataclass(frozen=True, slots=True)
class JobFile:
    """A job file that was read once from end to end and found right.

    Args:
        path: the file.
        batch: the name and limits its jobs stand under.
        job_count: jobs in it, rows included.
        models: the models its jobs name.
        warnings: what is allowed and yet may not be meant, in words for the reader.
    """

    path: Path
    batch: BatchSpec
    job_count: int
    models: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    def jobs(self) -> Iterator[JobSpec]:
        """The jobs in order. Each call reads the file anew and holds one job at a time.

        Raises:
            JobFileError: the file has changed since it was checked, and is wrong now.
        """
        problems = Problems(at_once=True)
        try:
            for _, spec, _ in _open(self.path, problems).walk(problems):
                if spec is not None:
                    yield spec
        except Unreadable as error:
            raise problems.refuse(error.problem) from None

    def first(self, limit: int | None) -> Iterator[JobSpec]:
        """The first so many jobs, in the order of the file; None means all."""
        return self.jobs() if limit is None else islice(self.jobs(), limit)


def read_job_file(
    path: Path, *, batch: str | None = None, is_priced: IsPriced | None = None
) -> JobFile:
    """Read a job file and check everything in it.

    Args:
        path: a .yaml file, or a .jsonl file of Message Batches requests.
        batch: a name for the batch, in place of the one in the file or of the file's own.
        is_priced: whether a job's price is known, given the prices of the file's own: without it
            no budget in money can be kept. None leaves that unchecked.

    Raises:
        JobFileError: something in it is wrong; carries the first twenty problems.
        UsageError: `batch` cannot be a batch's name.
    """
    if batch is not None and not ID_PATTERN.fullmatch(batch):
        raise UsageError(f"{quoted(batch)} cannot be a batch's name. {ID_RULE}")
    problems = Problems()
    ids = IdRegister()
    count = 0
    models: set[str] = set()
    try:
        source = _open(path, problems)
        for job_id, spec, report in source.walk(problems):
            count += 1
            if spec is not None:
                models.add(spec.model)
                if is_priced is not None and _has_budget(source, spec):
                    _check_budget(source, spec, is_priced, report)
            if job_id is not None:
                ids.add(job_id)
        repeated = ids.repeated()
        if repeated:
            _report_repeated(source, repeated, problems)
    except Unreadable as error:
        raise problems.refuse(error.problem) from None
    problems.raise_if_any()
    name = batch or source.batch or _safe_name(path)
    limits, warnings = source.limits, tuple(source.warnings)
    return JobFile(path, BatchSpec(name, limits), count, frozenset(models), warnings)


def _has_budget(source: YamlJobs | RequestLines, spec: JobSpec) -> bool:
    return (
        source.limits.max_cost_nano_usd is not None
        or spec.continuation.max_cost_nano_usd is not None
    )


def _check_budget(
    source: YamlJobs | RequestLines, spec: JobSpec, is_priced: IsPriced, report: Report
) -> None:
    """Report a budget in money that cannot be kept, for nobody knows the price of the job."""
    limits = source.limits
    own = spec.continuation.max_cost_nano_usd is not None
    if is_priced(spec, limits.prices):
        return
    what = f"the price of {quoted(spec.model)} is not known, so this budget cannot be kept"
    fix = (
        "Give its price in dollars a million tokens: "
        f"`prices: {{{spec.model}: {{input: …, output: …}}}}`."
    )
    if limits.max_cost_nano_usd is not None and isinstance(source, YamlJobs):
        source.report(("limits", "max_cost_usd"), what, fix)
    if own:
        report(("continuation", "max_cost_usd"), what, fix)


def _open(path: Path, problems: Problems) -> YamlJobs | RequestLines:
    suffix = path.suffix.lower()
    if suffix in _YAML_SUFFIXES:
        return YamlJobs(path, problems)
    if suffix not in _JSONL_SUFFIXES:
        open_file(path).close()  # a missing file is the nearer reason
        raise Unreadable(
            str(path),
            "the name does not tell what kind of job file this is",
            "Name it .yaml, or .jsonl for Message Batches requests.",
        )
    return RequestLines(path)


def _report_repeated(
    source: YamlJobs | RequestLines, repeated: set[int], problems: Problems
) -> None:
    """Read once more, to name both places of each id that stands twice."""
    first: dict[str, str] = {}
    problems.muted = True  # what else is wrong was told in the first reading
    for job_id, _, report in source.walk(problems):
        if job_id is None or hash(job_id) not in repeated:
            continue
        key = "custom_id" if isinstance(source, RequestLines) else "id"
        where = report.where((key,))
        if job_id not in first:
            first[job_id] = where
            continue
        problems.muted = False
        what = f"the id {quoted(job_id)} is taken already ({first[job_id]})"
        report((key,), what, "Give each job an id of its own.")
        problems.muted = True
    problems.muted = False


def _safe_name(path: Path) -> str:
    """The file's own name as a batch's name."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "-", path.stem).strip("-")[:64] or "batch"
