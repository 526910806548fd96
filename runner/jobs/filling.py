"""Fills in a job's texts: templates from a row, and `file://` names from the files they name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from runner.jobs.files import Unreadable
from runner.jobs.problems import Path, Report, quoted
from runner.jobs.spec import Json
from runner.jobs.templates import BadTemplate, Template, is_template
from runner.jobs.texts import PREFIX, TEMPLATE_SUFFIXES, BadReference, TextFiles

Row = Mapping[str, Json]
Fill = Callable[[Row], Json]

# The keys whose texts are filled in. The rest are settings, the same for every row.
FILLED = ("id", "prompt", "system", "messages", "metadata", "model", "stop_sequences", "until")
# The keys, at any depth, whose text may stand in a file of its own.
_TEXTS = ("prompt", "system", "content", "text")
_HOLD_TEXTS = ("prompt", "system", "messages")
# Passes every check of a text, so that what was refused is not refused again for being empty.
PLACEHOLDER = "-"


class Filling:
    """A job's fields, ready to be filled in row by row.

    Args:
        fields: the job's fields as they stand in the file, `defaults` merged in.
        texts: where `file://` names are looked up.
        columns: the names that rows have; None for a job without `foreach`, whose texts stay as
            they are written, braces and all.
        report: told what is wrong with the templates themselves; `count` tells whether any was.
    """

    def __init__(
        self,
        fields: Mapping[str, Json],
        texts: TextFiles,
        columns: Collection[str] | None,
        report: Report,
    ) -> None:
        self._texts = texts
        self._columns = columns
        self._report = report
        self._fields = fields
        self.filled_paths: list[Path] = []
        self._fills = {
            key: fill
            for key, value in fields.items()
            if key in FILLED and (fill := self._compile(value, (key,))) is not None
        }

    def fill(self, row: Row, report: Report) -> Mapping[str, Json]:
        """The fields for one row. What cannot be filled in is reported, and a placeholder stands
        in its stead, so that the other fields can be checked all the same."""
        self._report = report
        fields = dict(self._fields)
        for key, fill in self._fills.items():
            fields[key] = fill(row)
        return fields

    def depends_on_row(self, path: Path) -> bool:
        """Whether the value at `path` may differ from row to row."""
        return bool(path) and any(
            filled[: len(path)] == path or path[: len(filled)] == filled
            for filled in self.filled_paths
        )

    def _compile(self, value: Json, path: Path) -> Fill | None:
        """How to make the value for a row; None where it is the same for all."""
        if isinstance(value, str):
            return self._compile_text(value, path)
        if isinstance(value, dict):
            by_key = {key: self._compile(child, (*path, key)) for key, child in value.items()}
            if not any(by_key.values()):
                return None
            return lambda row: {
                key: value[key] if fill is None else fill(row) for key, fill in by_key.items()
            }
        if isinstance(value, list):
            by_index = [self._compile(child, (*path, i)) for i, child in enumerate(value)]
            if not any(by_index):
                return None
            return lambda row: [
                child if fill is None else fill(row)
                for child, fill in zip(value, by_index, strict=True)
            ]
        return None

    def _compile_text(self, text: str, path: Path) -> Fill | None:
        # Whether a text is a file's name is decided by what the job file says, never by what a
        # row holds: data must not be able to read files.
        if path[0] in _HOLD_TEXTS and path[-1] in _TEXTS and text.startswith(PREFIX):
            return self._compile_file(text.removeprefix(PREFIX).strip(), path)
        if self._columns is None or not is_template(text):
            return None
        return self._compile_template(text, path)

    def _compile_template(self, text: str, path: Path) -> Fill:
        self.filled_paths.append(path)
        assert self._columns is not None  # noqa: S101 - only jobs with rows have templates
        try:
            template = Template(text)
        except BadTemplate as error:
            self._report(path, str(error), "Correct the template.")
            return _placeholder
        unknown = sorted(template.names - set(self._columns))
        if unknown:
            names = ", ".join(quoted(name) for name in unknown)
            self._report(path, f"no row has {names}", f"The rows have {_listed(self._columns)}.")
            return _placeholder

        def fill(row: Row) -> Json:
            try:
                return template.fill(row)
            except BadTemplate as error:
                what = f"the template cannot be filled in: {quoted(str(error).rstrip('.'))[1:-1]}"
                self._report(path, what, "Correct the template or the row.")
                return PLACEHOLDER

        return fill

    def _compile_file(self, name: str, path: Path) -> Fill:
        by_row = self._columns is not None and is_template(name)
        if name.endswith(TEMPLATE_SUFFIXES):
            return self._compile_template_file(name, path, by_row=by_row)
        if not by_row:
            return lambda _: self._read(name, path, from_row=False)
        fill_name = self._compile_template(name, path)

        def fill(row: Row) -> Json:
            before = self._report.count
            filled = fill_name(row)
            if self._report.count != before:
                return PLACEHOLDER
            return self._read(filled, path, from_row=True)

        return fill

    def _compile_template_file(self, name: str, path: Path, *, by_row: bool) -> Fill:
        if self._columns is None:
            what = f"{quoted(name)} is a template by its name, and this job has no rows"
            self._report(path, what, "Add `foreach`, or give the file another ending.")
        elif by_row:
            what = "a template in a file of its own needs a fixed name"
            self._report(path, what, "Take the braces out of the name.")
        else:
            before = self._report.count
            text = self._read(name, path, from_row=False)
            if self._report.count == before:
                return self._compile_template(text, path)
        return _placeholder

    def _read(self, name: str, path: Path, *, from_row: bool) -> str:
        try:
            return self._texts.read(name, from_row=from_row)
        except BadReference as error:
            self._report(path, str(error), "Write `file://` and a name, such as file://style.md.")
        except Unreadable as error:
            where, what = name_unreadable(error)
            self._report(path, f"{where}: {what}", error.problem.fix)
        return PLACEHOLDER


def name_unreadable(error: Unreadable) -> tuple[str, str]:
    """The file (with line and column, where known) and what is wrong with it."""
    problem = error.problem
    place = "" if problem.line is None else f":{problem.line}:{problem.column}"
    return quoted_name(problem.file) + place, problem.message


def quoted_name(file: str) -> str:
    """A file's name as messages show it."""
    return quoted(file if len(file) <= 60 else "…" + file[-58:])[1:-1]


def _placeholder(row: Row) -> Json:  # noqa: ARG001 - stands where a filler stands
    return PLACEHOLDER


def _listed(columns: Collection[str]) -> str:
    shown = sorted(columns)[:20]
    more = len(columns) - len(shown)
    return ", ".join(quoted(name)[1:-1] for name in shown) + (f" and {more} more" if more else "")
