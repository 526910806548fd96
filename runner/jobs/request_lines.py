"""The JSONL form of a job file: Message Batches requests, one a line.

Source of the form: Message Batches API documentation, create a Message Batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

import jiter

from runner.jobs.fields import MAX_TOKENS, build_job, check_id, check_keys
from runner.jobs.files import Line, RawLine, read_raw_lines, text_of
from runner.jobs.filling import PLACEHOLDER
from runner.jobs.json_rows import BadJson, node_of, parse_line
from runner.jobs.nodes import find_nearest
from runner.jobs.problems import Path, Problem, Problems, Report, dotted, quoted
from runner.jobs.spec import ID_PATTERN, BatchLimits, JobSpec, Json
from runner.jobs.values import MODEL

_FIELDS = frozenset(
    {"model", "max_tokens", "messages", "system", "stop_sequences", "thinking", "output_config"}
)
_KEYS = {"custom_id", "params"}
_ROLES = {"user", "assistant"}
_is_id = ID_PATTERN.fullmatch
_FORM = 'Write `{"custom_id": "…", "params": {"model": …, "messages": …}}`.'


class LineReport(Report):
    """Reports by the places within the line that is being read.

    Fields are reported by their names in a job; in the line they all stand under `params`.
    """

    def __init__(self, problems: Problems, path: FilePath) -> None:
        super().__init__()
        self._problems = problems
        self._path = path
        self._file = str(path)
        # The line that is being read; see `RawLine`.
        self.number = self.offset = 0
        self.data = b""

    @property
    def line(self) -> Line:
        """The line that is being read, as text."""
        return text_of(self._path, RawLine(self.number, self.offset, self.data))

    def place(self, path: Path, message: str, fix: str, on_key: bool) -> None:
        if path[:1] not in (("custom_id",), ("params",)):
            path = ("params", *path)
        self._add(path, message, fix, on_key)

    def top(self, path: Path, message: str, fix: str, *, on_key: bool = False) -> None:
        """Report on the request itself rather than on what stands in its `params`."""
        self.count += 1
        self._add(path, message, fix, on_key)

    def bad_line(self, bad: BadJson) -> None:
        self.count += 1
        self._problems.add(Problem(self._file, self.number, bad.column, "", bad.message, bad.fix))

    def where(self, path: Path) -> str:  # noqa: ARG002 - a line is place enough
        return f"line {self.number}"

    def _add(self, path: Path, message: str, fix: str, on_key: bool) -> None:
        place = find_nearest(node_of(self.line), path, on_key=on_key)
        self._problems.add(
            Problem(self._file, place.line, place.column, dotted(path), message, fix)
        )


class _TopReport(Report):
    def __init__(self, lines: LineReport) -> None:
        super().__init__()
        self._lines = lines

    def place(self, path: Path, message: str, fix: str, on_key: bool) -> None:
        self._lines.top(path, message, fix, on_key=on_key)

    def where(self, path: Path) -> str:
        return self._lines.where(path)


class RequestLines:
    """A JSONL job file. It has no head: name and limits are the defaults."""

    batch = None
    limits = BatchLimits()

    def __init__(self, path: FilePath) -> None:
        self._path = path
        self.warnings: list[str] = []

    def walk(self, problems: Problems) -> Iterator[tuple[str | None, JobSpec | None, LineReport]]:
        """Every job of the file in order; what is wrong with one goes to `problems`.

        Raises:
            Unreadable: the file cannot be read as text.
        """
        file = str(self._path)
        report = LineReport(problems, self._path)
        top = _TopReport(report)
        empty = True
        number, offset = 0, 0
        for data in read_raw_lines(self._path):
            number += 1
            report.number, report.offset, report.data = number, offset, data
            offset += len(data) + 1
            # The first line may begin with a byte order mark, or tell that this is no UTF-8.
            if number > 1 and (plain := _plain(data)) is not None:
                empty = False
                yield plain.id, plain, report
                continue
            line = report.line
            if not line.text or line.text.isspace():
                continue
            empty = False
            try:
                request = parse_line(line)
            except BadJson as bad:
                report.bad_line(bad)
                yield None, None, report
                continue
            job_id, fields = _read_request(request, report, top)
            if fields is None:
                yield job_id, None, report
            else:
                yield job_id, build_job(job_id, fields, report), report
        if empty:
            problems.add(Problem(file, 1, 1, "", "the file is empty", _FORM))


def _plain(data: bytes) -> JobSpec | None:
    """The job of a line that is a prompt and nothing else, and in which nothing is wrong.

    None says nothing: the line is then read with care. What is taken here, in a fifth of the time,
    is taken there as the same.
    """
    try:
        request = jiter.from_json(
            data, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=True
        )
    except ValueError:
        return None
    if type(request) is not dict or len(request) != 2:
        return None
    try:
        job_id, params = request["custom_id"], request["params"]
        if type(job_id) is not str or type(params) is not dict:
            return None
        model, max_tokens, messages = params["model"], params["max_tokens"], params["messages"]
    except KeyError:
        return None
    system = params.get("system")
    if len(params) != 3 and (len(params) != 4 or not _is_text(system)):
        return None
    if (
        type(model) is not str
        or type(messages) is not list
        or not messages
        or not (type(max_tokens) is int and 1 <= max_tokens <= MAX_TOKENS)
        or not _is_model(model)
        or not _is_id(job_id)
    ):
        return None
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return None
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or role not in _ROLES:
            return None
        if type(content) is not str or not content or content.isspace():
            return None
    if messages[-1]["role"] != "user":
        return None
    return JobSpec.plain(job_id, model, tuple(messages), max_tokens, system)


def _is_text(value: Json) -> bool:
    return type(value) is str and bool(value) and not value.isspace()


@lru_cache(maxsize=64)
def _is_model(name: str) -> bool:
    return MODEL.fullmatch(name) is not None


def _read_request(
    request: Any, report: LineReport, top: Report
) -> tuple[str | None, Mapping[str, Json] | None]:
    if not isinstance(request, dict):
        report.top((), f"this is {quoted(request)}, not a request", _FORM)
        return None, None
    if "prompt" in request and "params" not in request:
        report.top(
            (),
            "this is not a Message Batches request",
            f"{_FORM} For jobs of one shape, write a YAML job file with `foreach` over this file.",
        )
        return None, None
    if request.keys() != _KEYS:
        check_keys(request, "a request", top)
    job_id = None
    if "custom_id" in request:
        job_id = check_id(request["custom_id"], top, ("custom_id",))
    else:
        report.top(("custom_id",), "the custom_id is missing", _FORM)
    params = request.get("params")
    if not isinstance(params, dict):
        what = f"this is {quoted(params)}" if "params" in request else "the params are missing"
        report.top(("params",), what, _FORM)
        return job_id, None
    fields: dict[str, Json] = {key: value for key, value in params.items() if key in _FIELDS}
    if len(fields) != len(params):
        further = {key: value for key, value in params.items() if key not in _FIELDS}
        if further.get("stream") is False:
            del further["stream"]
        fields["params"] = further
    # A job's own words for these would speak of `defaults` and `prompt`, which requests do not have.
    if "model" not in fields:
        report((), "no model is named", 'Write `"model": "…"` in the params.')
        fields["model"] = PLACEHOLDER
    if "messages" not in fields:
        what = "the messages are missing"
        report((), what, 'Write `"messages": [{"role": "user", "content": "…"}]` in the params.')
        fields["prompt"] = PLACEHOLDER
    return job_id, fields
