"""Reads YAML into values that know their place: no tags, no surprises, no bombs.

Only texts, numbers, true, false and null exist. `yes`, `no`, `on`, `off`, dates and times stay
the texts they look like. Source of the scalar forms: YAML 1.2, core schema.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from runner.jobs.nodes import MAX_DEPTH, Node, Place
from runner.jobs.problems import Problem, Problems, quoted

# What aliases may add to a file, in values (and hundreds of characters of text). Reuse of a few
# settings comes nowhere near it; the "billion laughs" goes past it after a few lines.
MAX_ALIASED_SIZE = 1_000_000
SIZED_CHARACTERS = 100

_TAG = "tag:yaml.org,2002:"
_CORE_TAGS = {"str", "int", "float", "bool", "null", "map", "seq"}
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]{0,30})")
_FLOAT = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Refused(Exception):
    def __init__(self, place: Place, message: str, fix: str) -> None:
        super().__init__(message)
        self.place, self.message, self.fix = place, message, fix


def parse_yaml(file: str, text: str, problems: Problems) -> Node:
    """The one document in `text`.

    Raises:
        JobFileError: it is empty, not YAML, or holds what a job file may not hold. Duplicate keys
            are only added to `problems`, since reading can go on after them.
    """
    try:
        _refuse_control_characters(text)
        return _Composer(file, text, problems).document()
    except _Refused as refused:
        line, column = refused.place
        problem = Problem(file, line, column, "", refused.message, refused.fix)
    except yaml.MarkedYAMLError as error:
        problem = _syntax_problem(file, text, error)
    except yaml.YAMLError as error:
        problem = Problem(file, 1, 1, "", f"not YAML: {quoted(str(error))}", "Correct the text.")
    raise problems.refuse(problem)


def _refuse_control_characters(text: str) -> None:
    match = _CONTROL.search(text)
    if match:
        before = text[: match.start()]
        raise _Refused(
            Place(before.count("\n") + 1, match.start() - before.rfind("\n")),
            f"a control character (U+{ord(match[0]):04X}) stands here",
            "Take it out, or write it as an escape in double quotes.",
        )


def _syntax_problem(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = error.problem or error.context or "not YAML"
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    indent = here[: len(here) - len(here.lstrip())]
    if "\t" in indent or here[column - 1 : column] == "\t":
        fix = "Indent with spaces: YAML takes no tabs."
    elif here[column - 1 : column] in ("@", "`", "%"):
        fix = f"Put quotes around a text that begins with {here[column - 1]}."
    elif "mapping values" in what:
        fix = 'Put quotes around a text that contains ": ", or check the indentation.'
    elif "undefined alias" in what:
        fix = "Put quotes around a text that begins with *."
    elif "end of stream" in what or "quoted scalar" in (error.context or ""):
        fix = "Close the quotes or brackets that stand open."
    else:
        fix = "Check the indentation here, and quotes and brackets just before."
    return Problem(file, line, column, "", f"not YAML: {what}", fix)


class _Composer:
    """Builds nodes from parser events, so that nothing is built before it is looked at."""

    def __init__(self, file: str, text: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems
        self._loader = _Loader(text)
        self._anchors: dict[str, Node | None] = {}  # None: its value is still being read
        self._aliased_size = 0

    def document(self) -> Node:
        try:
            self._next()
            if isinstance(self._next(), yaml.StreamEndEvent):
                raise _Refused(
                    Place(1, 1), "the file is empty", "Write `version: 1` and a list of `jobs`."
                )
            root = self._node(self._next(), 1)
            self._next()
            event = self._next()
            if not isinstance(event, yaml.StreamEndEvent):
                raise _Refused(
                    _place(event),
                    "a second YAML document begins here",
                    "Keep one document a file: take out the line `---`.",
                )
            return root
        finally:
            self._loader.dispose()

    def _next(self) -> Any:
        return self._loader.get_event()

    def _node(self, event: Any, depth: int) -> Node:
        place = _place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, place)
        if depth > MAX_DEPTH:
            raise _Refused(
                place, f"lists and mappings are nested more than {MAX_DEPTH} deep", "Flatten them."
            )
        tag = _core_tag(event.tag, place)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.MappingStartEvent):
            _expect(tag in (None, "map"), tag, place)
            node = self._mapping(place, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            _expect(tag in (None, "seq"), tag, place)
            node = self._list(place, depth)
        else:
            scalar = _scalar(event, tag, place)
            size = len(scalar) // SIZED_CHARACTERS if isinstance(scalar, str) else 0
            node = Node(place, scalar, size=1 + size)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _list(self, place: Place, depth: int) -> Node:
        node = Node(place, items=[])
        assert node.items is not None  # noqa: S101 - for the type checker
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            child = self._node(event, depth + 1)
            node.items.append(child)
            node.size += child.size
        return node

    def _mapping(self, place: Place, depth: int) -> Node:
        keys: dict[str, tuple[Place, Node]] = {}
        merged: dict[str, tuple[Place, Node]] = {}
        size = 1
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            key_place = _place(event)
            value = self._node(self._next(), depth + 1)
            size += key.size + value.size
            name = key.scalar
            if name == "<<":
                _merge(merged, key_place, value)
            elif not isinstance(name, str):
                self._complain(
                    key_place,
                    f"the key {quoted(key.value())} is not a text",
                    "Put quotes around it."
                    if key.keys is None and key.items is None
                    else "Keys are plain words.",
                )
            elif name in keys:
                self._complain(
                    key_place,
                    f"the key {quoted(name)} stands twice (first on line {keys[name][0].line})",
                    "Take one of them out.",
                )
            else:
                keys[name] = (key_place, value)
        return Node(place, keys={**merged, **keys}, size=size)

    def _alias(self, name: Any, place: Place) -> Node:
        if name not in self._anchors:
            raise _Refused(
                place,
                f"the alias {quoted('*' + name)} has no anchor before it",
                "Put quotes around a text that begins with *.",
            )
        node = self._anchors[name]
        if node is None:
            raise _Refused(
                place,
                f"the alias {quoted('*' + name)} stands inside its own value",
                "Write the value out.",
            )
        self._aliased_size += node.size
        if self._aliased_size > MAX_ALIASED_SIZE:
            raise _Refused(
                place,
                "aliases blow this file up to more than a million values",
                "Write the values out, or use `defaults` or `foreach`.",
            )
        return node

    def _complain(self, place: Place, message: str, fix: str) -> None:
        self._problems.add(Problem(self._file, place.line, place.column, "", message, fix))


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _core_tag(tag: str | None, place: Place) -> str | None:
    if tag is None or tag == "!":
        return tag
    name = tag.removeprefix(_TAG)
    if name == tag or name not in _CORE_TAGS:
        written = f"!!{name}" if name != tag else tag
        raise _Refused(
            place,
            f"the tag {quoted(written)} is not allowed: a job file holds plain values only",
            "Take the tag out.",
        )
    return name


def _expect(fits: bool, tag: str | None, place: Place) -> None:
    if not fits:
        raise _Refused(place, f"the tag !!{tag} does not fit what follows", "Take the tag out.")


def _merge(merged: dict[str, tuple[Place, Node]], place: Place, value: Node) -> None:
    for node in value.items if value.items is not None else [value]:
        if node.keys is None:
            raise _Refused(
                place, "`<<` takes a mapping or a list of mappings", "Merge an alias of a mapping."
            )
        for key, entry in node.keys.items():
            merged.setdefault(key, entry)


def _refuse_half_characters(text: str, place: Place) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Refused(
            place,
            "the text holds half a character, which cannot be sent",
            "Write the whole character, or take it out.",
        ) from None


def _scalar(event: Any, tag: str | None, place: Place) -> str | int | float | bool | None:
    text: str = event.value
    if not text.isascii():
        _refuse_half_characters(text, place)
    if tag in ("str", "!") or (tag is None and not event.implicit[0]):
        return text  # quoted, a block, or said to be a text
    if tag in (None, "null") and text in _NULL:
        return None
    if tag in (None, "bool") and text in _BOOL:
        return _BOOL[text]
    if tag in (None, "int") and _INT.fullmatch(text):
        return int(text.rstrip("_"))
    if tag in (None, "float") and _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
        raise _Refused(place, f"the number {quoted(text)} is too large", "Write a smaller one.")
    _expect(tag is None, tag, place)
    return text
