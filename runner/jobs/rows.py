"""Rows of a `foreach` file, one job each: CSV with a header, or JSON objects line by line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from runner.jobs.files import MAX_LINE_BYTES, Line, Unreadable, read_lines
from runner.jobs.json_rows import BadJson, parse_line
from runner.jobs.problems import Problem, Problems, quoted
from runner.jobs.spec import Json

MAX_COLUMNS = 10_000
_SUFFIXES = (".csv", ".jsonl", ".ndjson")


class Row(NamedTuple):
    """One row: where it begins, how messages name it, and its values by column."""

    line: int
    name: str
    values: Mapping[str, Json]


class Rows:
    """The rows of one file. Every reading streams the file anew.

    Raises:
        Unreadable: when constructed or read, as the file cannot be read or is no rows file.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in _SUFFIXES:
            raise Unreadable(
                str(path), "the name tells no kind of rows", "Use a .csv or a .jsonl file."
            )
        self._path = path
        self._is_csv = path.suffix.lower() == ".csv"
        self.columns = self._csv_columns() if self._is_csv else self._json_columns()

    def read(self, problems: Problems) -> Iterator[Row]:
        """The good rows in order; what is wrong with the others goes to `problems`."""
        return self._read_csv(problems) if self._is_csv else self._read_json(problems)

    def _csv_columns(self) -> frozenset[str]:
        for _, record in self._records():
            self._check_header(record)
            return frozenset(record)
        raise self._empty()

    def _check_header(self, header: list[str]) -> None:
        for index, name in enumerate(header):
            if not name.strip():
                raise self._at_header(f"column {index + 1} has no name")
            if name in header[:index]:
                raise self._at_header(f"two columns have the name {quoted(name)}")
        if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
            raise self._at_header("the columns are not parted by commas")

    def _at_header(self, message: str) -> Unreadable:
        fix = "The first line names each column once, with commas between them."
        return Unreadable(str(self._path), message, fix, line=1)

    def _read_csv(self, problems: Problems) -> Iterator[Row]:
        records = self._records()
        _, header = next(records)
        number = 0
        for line, record in records:
            number += 1
            if len(record) != len(header):
                what = f"the row has {_fields(len(record))} where the header has {len(header)}"
                problems.add(
                    Problem(
                        str(self._path), line, 1, f"row {number}", what,
                        "Put quotes around a value that holds a comma, or add what is missing.",
                    )
                )  # fmt: skip
                continue
            name = f"{self._path.name} row {number} (line {line})"
            yield Row(line, name, dict(zip(header, record, strict=True)))
        if not number:
            raise self._empty()

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Each record that is not an empty line, with the line it begins on."""
        # The module's own bound is 128 kB a field and is set for the whole process; texts may be
        # longer than that.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        # The reader needs the line ends, for fields that hold some.
        reader = csv.reader((line.text + "\n" for line in read_lines(self._path)), strict=True)
        while True:
            line = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise Unreadable(
                    str(self._path),
                    f"not CSV: {error}",
                    "Close each quote, and write a quote inside a quoted value twice.",
                    line=line,
                ) from None
            if record:
                yield line, record

    def _json_columns(self) -> frozenset[str]:
        """The names that any row has. Takes a reading of its own: a name no row has is a mistake
        in the template, and is to be told there, once."""
        columns: set[str] = set()
        for row in self._read_json(Problems()):
            columns.update(row.values)
            if len(columns) > MAX_COLUMNS:
                raise Unreadable(
                    str(self._path),
                    f"the rows have more than {MAX_COLUMNS:,} different keys",
                    "Rows of one kind have the same keys.",
                    line=row.line,
                )
        return frozenset(columns)

    def _read_json(self, problems: Problems) -> Iterator[Row]:
        empty = True
        for line in read_lines(self._path):
            if not line.text or line.text.isspace():
                continue
            empty = False
            values = self._object(line, problems)
            if values is not None:
                yield Row(line.number, f"{self._path.name} line {line.number}", values)
        if empty:
            raise self._empty()

    def _object(self, line: Line, problems: Problems) -> Mapping[str, Json] | None:
        try:
            value = parse_line(line)
            if isinstance(value, dict):
                return value
            bad = BadJson(f"this is {quoted(value)}", "Each row is an object: `{…}`.", 1)
        except BadJson as error:
            bad = error
        problems.add(Problem(str(self._path), line.number, bad.column, "", bad.message, bad.fix))
        return None

    def _empty(self) -> Unreadable:
        return Unreadable(str(self._path), "there are no rows", "Add one row for each job.")


def _fields(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"
