"""Reads one line of JSON: fast where it is right, with places where it is not."""

from __future__ import annotations

import contextlib
import json
import math
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # public, though typeshed omits it

from runner.jobs.files import Line
from runner.jobs.nodes import MAX_DEPTH, Node, Place
from runner.jobs.problems import quoted
from runner.jobs.spec import Json

_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[^\s,\]}]+")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class BadJson(Exception):
    """A line is not the JSON we can take: what is wrong, at which column, and the fix."""

    def __init__(self, message: str, fix: str, column: int) -> None:
        super().__init__(message)
        self.message, self.fix, self.column = message, fix, column


class _DuplicateKey(ValueError):
    pass


class _BadNumber(ValueError):
    pass


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _DuplicateKey
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _BadNumber(f"the number {text[:40]} is too large")
    return value


def _no_constant(name: str) -> None:
    raise _BadNumber(f"{name} is not JSON")


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant
)


def parse_line(line: Line) -> Json:
    """The JSON value of a line.

    Raises:
        BadJson: it is not JSON, holds a key twice or half a character, or is nested too deeply.
    """
    text = line.text
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise BadJson(
            f"lists and objects are nested more than {MAX_DEPTH} deep", "Flatten the value.", 1
        )
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise BadJson(
            f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}",
            "Each line must be one whole JSON object.",
            error.pos + 1,
        ) from None
    except _DuplicateKey:
        raise _duplicate(line) from None
    except _BadNumber as error:
        raise BadJson(str(error), "Write a smaller number, or a text.", 1) from None
    except ValueError:  # Python's own bound on the digits of a whole number
        raise BadJson("a number has thousands of digits", "Write it as a text.", 1) from None
    if _SURROGATE_ESCAPE.search(text):
        _refuse_half_characters(line)
    return value


def node_of(line: Line) -> Node:
    """The same value with the place of every part, for a line that `parse_line` has accepted."""
    return _Reader(line).read()[0]


def _duplicate(line: Line) -> BadJson:
    reader = _Reader(line)
    # The decoder stopped at the duplicate; what comes after it need not be JSON at all.
    with contextlib.suppress(ValueError, IndexError, RecursionError):
        reader.read()
    key, place = reader.duplicate or ("", Place(line.number, 1))
    return BadJson(f"the key {quoted(key)} stands twice", "Take one of them out.", place.column)


def _refuse_half_characters(line: Line) -> None:
    """A lone surrogate is half a character: it has no UTF-8 form, so it can never be sent."""
    nodes = [node_of(line)]
    while nodes:
        node = nodes.pop()
        texts = [(node.scalar, node.place)] if isinstance(node.scalar, str) else []
        for key, (place, child) in (node.keys or {}).items():
            texts.append((key, place))
            nodes.append(child)
        nodes.extend(node.items or ())
        for text, place in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                code = ord(text[error.start])
                raise BadJson(
                    f"the text holds half a character (\\u{code:04x}), which cannot be sent",
                    "Write the whole character, or take it out.",
                    place.column,
                ) from None


def _depth(text: str) -> int:
    depth = deepest = 0
    inside, escaped = False, False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


class _Reader:
    """Walks through valid JSON and notes where each key and value begins."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.duplicate: tuple[str, Place] | None = None

    def read(self, at: int = 0) -> tuple[Node, int]:
        text = self._line.text
        at = self._skip(at)
        node = Node(self._place(at))
        if text[at] == "{":
            return self._mapping(node, at + 1)
        if text[at] == "[":
            return self._list(node, at + 1)
        if text[at] == '"':
            node.scalar, at = scanstring(text, at + 1)
            return node, at
        match = _SCALAR.match(text, at)
        if match is None:
            raise ValueError(f"no JSON value at {at}")
        # A duplicate key is looked for before the numbers of the line are known to be sound.
        if match[0] in ("true", "false", "null"):
            node.scalar = json.loads(match[0])
        return node, match.end()

    def _mapping(self, node: Node, at: int) -> tuple[Node, int]:
        text = self._line.text
        node.keys = {}
        at = self._skip(at)
        while text[at] != "}":
            place = self._place(at)
            key, at = scanstring(text, at + 1)
            child, at = self.read(self._skip(at) + 1)
            if key in node.keys and self.duplicate is None:
                self.duplicate = (key, place)
            node.keys[key] = (place, child)
            at = self._after(at)
        return node, at + 1

    def _list(self, node: Node, at: int) -> tuple[Node, int]:
        node.items = []
        at = self._skip(at)
        while self._line.text[at] != "]":
            child, at = self.read(at)
            node.items.append(child)
            at = self._after(at)
        return node, at + 1

    def _after(self, at: int) -> int:
        at = self._skip(at)
        return self._skip(at + 1) if self._line.text[at] == "," else at

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._line.text, at)
        return at if match is None else match.end()

    def _place(self, at: int) -> Place:
        return Place(self._line.number, at + 1)
