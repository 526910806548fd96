"""The YAML form of a job file: head, defaults, and jobs with or without rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path as FilePath

from runner.jobs.fields import ID_RULE, build_job, check_fields, check_id, check_keys
from runner.jobs.files import MAX_YAML_BYTES, Unreadable, read_text
from runner.jobs.filling import FILLED, Filling, name_unreadable
from runner.jobs.keys import KNOWN
from runner.jobs.limits import read_limits, read_prices
from runner.jobs.nodes import Node, find, find_nearest
from runner.jobs.problems import Path, Problem, Problems, Report, dotted, plain, quoted
from runner.jobs.rows import Rows
from runner.jobs.spec import ID_PATTERN, BatchLimits, JobSpec, Json
from runner.jobs.texts import TextFiles
from runner.jobs.yaml_nodes import parse_yaml

# A job's id and specification, each None where it was refused, and where to report on it.
Found = tuple[str | None, JobSpec | None, Report]

# These merge with the job's own, key by key; everything else is replaced whole.
_MERGED = ("metadata", "params", "continuation")
_LOOKS_LIKE_TEMPLATE = re.compile(r"\{\{\s*[A-Za-z_][\w.]*\s*\}\}")
MAX_WARNINGS = 20


class NodeReport(Report):
    """Reports by the places of YAML nodes."""

    def __init__(
        self,
        problems: Problems,
        file: str,
        node: Node,
        prefix: Path = (),
        *,
        defaults: Node | None = None,
        row: str | None = None,
    ) -> None:
        super().__init__()
        self._problems = problems
        self._file = file
        self._node = node
        self._prefix = prefix
        self._defaults = defaults
        self._row = row
        self.filling: Filling | None = None

    def for_row(self, row: str, filling: Filling) -> NodeReport:
        report = NodeReport(
            self._problems, self._file, self._node, self._prefix, defaults=self._defaults, row=row
        )
        report.filling = filling
        return report

    def place(self, path: Path, message: str, fix: str, on_key: bool) -> None:
        where = find(self._node, path, on_key=on_key)
        key = (*self._prefix, *path)
        if where is None and self._defaults is not None:
            where = find(self._defaults, path, on_key=on_key)
            key = key if where is None else ("defaults", *path)
        if where is None:
            where = find_nearest(self._node, path, on_key=on_key)
        # What is the same in every row is told once, without a row.
        row = self._row if self.filling is None or self.filling.depends_on_row(path) else None
        self._problems.add(
            Problem(self._file, where.line, where.column, dotted(key), message, fix, row)
        )

    def where(self, path: Path) -> str:
        line = find_nearest(self._node, path).line
        return f"line {line}" + (f", {self._row}" if self._row else "")


class YamlJobs:
    """A YAML job file, read and checked but for its jobs.

    Raises:
        Unreadable: the file cannot be read as text.
        JobFileError: it is not YAML, or not a mapping.
    """

    def __init__(self, path: FilePath, problems: Problems) -> None:
        self._path = path
        self._file = str(path)
        self.batch: str | None = None
        self.limits = BatchLimits()
        self.warnings: list[str] = []
        text = read_text(path, MAX_YAML_BYTES)
        root = parse_yaml(self._file, text, problems)
        self._defaults = Node(root.place, keys={})
        self._jobs: list[Node] = []
        self._read_head(root, problems)

    def _read_head(self, root: Node, problems: Problems) -> None:
        report = self.report = NodeReport(problems, self._file, root)
        if root.keys is None:
            report((), "this is no job file", "Begin with `version: 1` and a list of `jobs`.")
            raise problems.error()
        head = {key: node.value() for key, (_, node) in root.keys.items() if key != "jobs"}
        check_keys(dict.fromkeys(root.keys), "the top level", report)
        version = head.get("version")
        if version != 1 or not isinstance(version, int) or isinstance(version, bool):
            what = "the version is missing"
            if "version" in head:
                what = f"the version is {quoted(version)}, and this program reads version 1"
            report(("version",), what, "Write `version: 1`.")
        if "batch" in head:
            name = head["batch"]
            if isinstance(name, str) and ID_PATTERN.fullmatch(name):
                self.batch = name
            else:
                report(("batch",), f"{quoted(name)} cannot be a batch's name", ID_RULE)
        if "limits" in head:
            self.limits = read_limits(head["limits"], report)
        if "prices" in head:
            self.limits = replace(self.limits, prices=read_prices(head["prices"], report))
        if "defaults" in head:
            self._read_defaults(root.keys["defaults"][1], problems, report)
        jobs = root.keys["jobs"][1] if "jobs" in root.keys else None
        if jobs is None:
            report(("jobs",), "there are no jobs", "Write `jobs:` and a list of jobs.")
        elif not jobs.items:
            what = "the list of jobs is empty" if jobs.items is not None else "this is no list"
            report(("jobs",), what, "Write one `- id: …` for each job.")
        else:
            self._jobs = jobs.items

    def _read_defaults(self, node: Node, problems: Problems, report: Report) -> None:
        if node.keys is None:
            report(("defaults",), "this is no mapping", "Write `defaults: {model: …}`.")
            return
        inner = NodeReport(problems, self._file, node, ("defaults",))
        value = node.value()
        check_keys(value, "`defaults`", inner)
        known = {key: entry for key, entry in node.keys.items() if key in KNOWN["`defaults`"]}
        self._defaults = Node(node.place, keys=known)
        # Filled-in texts and files' texts are checked where they are used, in the jobs.
        check_fields({k: value[k] for k in known}, inner)

    def walk(self, problems: Problems) -> Iterator[Found]:
        """Every job of the file in order; what is wrong with one goes to `problems`."""
        texts = TextFiles(self._path.parent)
        defaults = self._defaults.value()
        for index, node in enumerate(self._jobs):
            report = NodeReport(
                problems, self._file, node, ("jobs", index), defaults=self._defaults
            )
            if node.keys is None:
                report((), "this is no job", "Write a mapping: `- id: …` and so on.")
                yield None, None, report
                continue
            own = node.value()
            check_keys(own, "a job", report)
            own = {key: own[key] for key in own if key in KNOWN["a job"]}
            fields = _merge(defaults, own)
            if "foreach" in fields:
                yield from self._walk_rows(fields, texts, problems, report)
            else:
                yield self._one(fields, texts, report)

    def _one(self, fields: Mapping[str, Json], texts: TextFiles, report: NodeReport) -> Found:
        self._warn_of_braces(fields, report)
        filling = Filling(fields, texts, None, report)
        filled = filling.fill({}, report)
        job_id = _read_id(filled, report)
        return job_id, build_job(job_id, filled, report), report

    def _walk_rows(
        self,
        fields: dict[str, Json],
        texts: TextFiles,
        problems: Problems,
        report: NodeReport,
    ) -> Iterator[Found]:
        name = fields.pop("foreach")
        if not isinstance(name, str) or not name.strip():
            report(("foreach",), f"this is {quoted(name)}", "Name a .csv or .jsonl file.")
            return
        # The settings do not depend on rows: told here, they are told even if no row can be read.
        check_fields({key: fields[key] for key in fields if key not in FILLED}, report)
        try:
            rows = Rows(self._path.parent / name)
            filling = Filling(fields, texts, rows.columns, report)
            if "id" in fields and ("id",) not in filling.filled_paths:
                what = "the id would be the same for every row"
                report(("id",), what, 'Take a column into it: `id: "part-{{ name }}"`.')
            if report.count:
                for _ in rows.read(problems):
                    pass  # no job comes of it, but the rows' own mistakes are told as well
                return
            for row in rows.read(problems):
                of_row = report.for_row(row.name, filling)
                filled = filling.fill(row.values, of_row)
                job_id = None if of_row.count else _read_id(filled, of_row)
                yield job_id, build_job(job_id, filled, of_row), of_row
        except Unreadable as error:
            if error.problem.line is not None:
                problems.add(error.problem)
            else:
                where, what = name_unreadable(error)
                report(("foreach",), f"{where}: {what}", error.problem.fix)

    def _warn_of_braces(self, fields: Mapping[str, Json], report: NodeReport) -> None:
        prompt = fields.get("prompt")
        match = _LOOKS_LIKE_TEMPLATE.search(prompt) if isinstance(prompt, str) else None
        if match and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(
                f"{plain(self._file)}, {report.where(('prompt',))}: the prompt holds "
                f"{quoted(match[0])} and is sent as it stands: only a job with `foreach` is "
                "filled in."
            )


def _read_id(fields: Mapping[str, Json], report: Report) -> str | None:
    if "id" not in fields:
        report(("id",), "the id is missing", "Write `id: …`, a name of your own.")
        return None
    value = fields["id"]
    if isinstance(value, str) and _LOOKS_LIKE_TEMPLATE.search(value):
        what = f"{quoted(value)} is to be filled in from rows, and this job has none"
        report(("id",), what, "Add `foreach: rows.csv`, or write a plain id.")
        return None
    return check_id(value, report, ("id",))


def _merge(defaults: Mapping[str, Json], own: Mapping[str, Json]) -> dict[str, Json]:
    fields = {**defaults, **own}
    for key in _MERGED:
        if isinstance(own.get(key), Mapping) and isinstance(defaults.get(key), Mapping):
            fields[key] = {**defaults[key], **own[key]}
    return fields
