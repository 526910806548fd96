"""Reads files as UTF-8 text, and says in words what keeps one from being read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from runner.jobs.problems import Problem

MEGABYTE = 1_000_000
# The Messages API takes 32 MB a request (source: Messages API documentation, errors); whatever is
# longer can never be sent, so a line or a text of twice that is a mistake in the file.
MAX_LINE_BYTES = 64 * MEGABYTE
MAX_TEXT_BYTES = 32 * MEGABYTE
MAX_YAML_BYTES = 200 * MEGABYTE
BLOCK_BYTES = 1 << 18

_UTF8_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


class Line(NamedTuple):
    """One line of a text file, without its line end."""

    number: int
    text: str


class Unreadable(Exception):
    """A file cannot be read as text. Carries the problem without the key that named the file."""

    def __init__(
        self, file: str, message: str, fix: str, *, line: int | None = None, column: int = 1
    ) -> None:
        super().__init__(message)
        place = None if line is None else column
        self.problem = Problem(file, line, place, "", message, fix)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes.

    Raises:
        Unreadable: it is missing, a folder, a pipe, or not permitted.
    """
    file = str(path)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - Path.stat cannot take a name with a NUL in it
        if stat.S_ISDIR(mode):
            raise Unreadable(file, "this is a folder", "Name the file in it.")
        if not stat.S_ISREG(mode):
            # It is read more than once: to check everything, then to queue.
            raise Unreadable(
                file, "this is a pipe or a device", "Save it to a file first and name that."
            )
        return path.open("rb")
    except FileNotFoundError:
        raise Unreadable(file, "there is no such file", "Check the name and the folder.") from None
    except PermissionError:
        raise Unreadable(
            file, "the file may not be read", "Give yourself permission to read it."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreadable(
            file, f"the file cannot be read: {reason}", "Check the name and the disk."
        ) from None


def read_text(path: Path, max_bytes: int) -> str:
    """The whole of a UTF-8 file, without a byte order mark.

    Raises:
        Unreadable: it cannot be opened, is longer than `max_bytes`, or is not UTF-8.
    """
    with open_file(path) as source:
        data = _read(source, path, max_bytes + 1)
    if len(data) > max_bytes:
        raise Unreadable(
            str(path), f"the file is longer than {max_bytes // MEGABYTE} MB", "Make it shorter."
        )
    return _decode(str(path), data.removeprefix(_UTF8_BOM), first_line=1, offset=0)


class RawLine(NamedTuple):
    """One line of a file as it stands there, without the `\\n` at its end.

    Args:
        offset: of its first byte in the file.
    """

    number: int
    offset: int
    data: bytes


def read_raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file one by one, in flat memory, not looked at yet, without `\\n`.

    Raises:
        Unreadable: it cannot be opened, or a line is far too long.
    """
    with open_file(path) as source:
        number = 0
        rest: list[bytes] = []  # of a line of which not all is read yet
        length = 0
        # By blocks: to ask for each line by itself takes four times as long.
        while block := _read(source, path, BLOCK_BYTES):
            first, *lines = block.split(b"\n")
            rest.append(first)
            length += len(first)
            if length > MAX_LINE_BYTES:
                raise Unreadable(
                    str(path),
                    f"the line is longer than {MAX_LINE_BYTES // MEGABYTE} MB",
                    "Put each row on a line of its own.",
                    line=number + 1,
                )
            if not lines:
                continue
            yield b"".join(rest)
            last = lines.pop()
            yield from lines
            number += 1 + len(lines)
            rest, length = [last], len(last)
        if length:
            yield b"".join(rest)


def text_of(path: Path, raw: RawLine) -> Line:
    """A line as text.

    Raises:
        Unreadable: it is not UTF-8.
    """
    number, offset, data = raw
    text = data.removeprefix(_UTF8_BOM) if number == 1 else data
    try:
        line = text.decode()
    except UnicodeDecodeError:
        line = _decode(str(path), text, first_line=number, offset=offset)
    if number == 1 and "\0" in line:
        _decode(str(path), text, first_line=1, offset=0)
    return Line(number, line.rstrip("\r\n"))


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a UTF-8 file one by one, in flat memory.

    Raises:
        Unreadable: it cannot be opened, a line is far too long, or it is not UTF-8.
    """
    offset = 0
    for number, data in enumerate(read_raw_lines(path), 1):
        yield text_of(path, RawLine(number, offset, data))
        offset += len(data) + 1


def _read(source: BinaryIO, path: Path, size: int) -> bytes:
    try:
        return source.read(size)
    except OSError as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: OSError) -> Unreadable:
    return Unreadable(
        str(path), f"the file cannot be read: {error.strerror}", "Check the disk it is on."
    )


def _decode(file: str, data: bytes, *, first_line: int, offset: int) -> str:
    save_as_utf8 = "Save the file as UTF-8."
    for bom, name in _OTHER_BOMS:
        if first_line == 1 and data.startswith(bom):
            raise Unreadable(file, f"the file is {name}, not UTF-8", save_as_utf8, line=1)
    if first_line == 1 and b"\0" in data[:4]:
        raise Unreadable(file, "the file is UTF-16 or binary, not UTF-8", save_as_utf8, line=1)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        raise Unreadable(
            file,
            f"not UTF-8: byte 0x{data[error.start]:02x} at offset {offset + error.start:,}",
            save_as_utf8,
            line=first_line + before.count(b"\n"),
            column=len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1,
        ) from None
