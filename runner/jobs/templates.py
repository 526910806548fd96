"""Templates in a sandbox: they see one row, reach nothing else, and cannot run for ever.

A job file may come from somebody else, and rows from anywhere. So templates get no files, no
Python objects beyond texts, numbers, lists and mappings, and a bound on loops and on length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

from runner.jobs.spec import Json

MAX_LOOP_ITEMS = 100_000  # of all loops of one text together
MAX_CHARACTERS = 10_000_000

_MARK = re.compile(r"\{\{|\{%|\{#")
# What is left out: filters that give another text each time (random), reach into objects (attr),
# or make long texts out of nothing (center, indent, format, slice).
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "reverse", "round", "select", "selectattr", "sort", "string", "striptags", "sum",
    "title", "tojson", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
)  # fmt: skip
_METHODS: dict[type, set[str]] = {
    str: {
        "capitalize", "casefold", "count", "endswith", "find", "isalpha", "isdigit", "islower",
        "isupper", "lower", "lstrip", "removeprefix", "removesuffix", "rstrip", "split",
        "splitlines", "startswith", "strip", "title", "upper",
    },
    dict: {"get", "items", "keys", "values"},
    list: {"count", "index"},
}  # fmt: skip
_REFUSED_NODES = {
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Include: "include",
    nodes.Extends: "extends",
    nodes.Block: "block",
}


class BadTemplate(Exception):
    """A template cannot be used, or could not be filled in from a row."""


def is_template(text: str) -> bool:
    """Whether the text holds anything for a template to fill in or to do."""
    return _MARK.search(text) is not None


class Template:
    """A compiled template.

    Args:
        names: what it takes from a row.
    """

    def __init__(self, source: str) -> None:
        """Compile `source`.

        Raises:
            BadTemplate: it is not a template, or uses what a job file's templates may not.
        """
        environment = _Environment()
        try:
            tree = environment.parse(source)
            _refuse_unbounded(tree)
            self.names = frozenset(find_undeclared_variables(tree)) - set(environment.globals)
            for concat in list(tree.find_all(nodes.Concat)):
                concat.nodes = [nodes.Filter(n, "_text", [], [], None, None) for n in concat.nodes]
            for loop in list(tree.find_all(nodes.For)):
                loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None)
            self._template = environment.template_class.from_code(
                environment, environment.compile(tree), dict(environment.globals)
            )
        except TemplateSyntaxError as error:
            raise BadTemplate(
                f"not a template: {error.message} (line {error.lineno} of the text)"
            ) from None
        except (TemplateError, RecursionError, ValueError, OverflowError) as error:
            raise BadTemplate(f"not a template: {error}") from None
        self._environment = environment

    def fill(self, row: Mapping[str, Json]) -> str:
        """The text for one row.

        Raises:
            BadTemplate: a name is not in the row, an expression fails, or a bound is passed.
        """
        self._environment.loop_items = 0
        pieces: list[str] = []
        length = 0
        try:
            context = self._template.new_context(dict(row))
            for piece in self._template.root_render_func(context):
                length += len(piece)
                _check_length(length)
                pieces.append(piece)
        except BadTemplate:
            raise
        except MemoryError:
            raise BadTemplate("the template takes too much memory") from None
        except Exception as error:  # whatever an expression of a stranger may raise
            raise BadTemplate(str(error) or type(error).__name__) from None
        return "".join(pieces)


def _refuse_unbounded(tree: nodes.Template) -> None:
    for kind, word in _REFUSED_NODES.items():
        if next(tree.find_all(kind), None) is not None:
            raise BadTemplate(f"`{word}` is not available in a job file's templates")
    if any(loop.recursive for loop in tree.find_all(nodes.For)):
        raise BadTemplate("`recursive` loops are not available in a job file's templates")


class _Environment(SandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            # A text ends as it was written: a block scalar keeps its line end.
            keep_trailing_newline=True,
            optimized=False,
            cache_size=0,
        )
        self.loop_items = 0
        self.filters: dict[str, Any] = {name: self.filters[name] for name in _FILTERS}
        self.filters |= {
            "join": _join,
            "replace": _replace,
            "_counted": self._counted,
            "_text": _bounded_text,
        }
        self.globals = {"range": self._range, "namespace": self.globals["namespace"]}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str | list):
            _check_length(len(left) + len(right))
        elif operator == "*" and not (_is_number(left) and _is_number(right)):
            raise BadTemplate("`*` is for numbers")
        elif operator == "%" and not _is_number(left):
            raise BadTemplate("`%` is for numbers")
        elif operator == "**":
            raise BadTemplate("`**` is not available in a job file's templates")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:  # noqa: ARG002
        """`str.format` makes long texts out of nothing: leave it to `is_safe_attribute`, which
        refuses it, in place of the sandbox's own version of it."""
        return

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.loop_items += 1
            if self.loop_items > MAX_LOOP_ITEMS:
                raise BadTemplate(f"the loops go round more than {MAX_LOOP_ITEMS:,} times")
            yield item

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        if len(numbers) > MAX_LOOP_ITEMS:
            raise BadTemplate(f"a range holds at most {MAX_LOOP_ITEMS:,} numbers")
        return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 10**100


def _check_length(characters: int) -> None:
    if characters > MAX_CHARACTERS:
        raise BadTemplate(f"the text grows past {MAX_CHARACTERS:,} characters")


def _bounded_text(value: Any) -> str:
    text = str(value)
    # Half, so that what two of them make stays within bounds in a loop that doubles a text.
    _check_length(2 * len(text))
    return text


def _join(values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    parts: list[str] = []
    length = 0
    for value in values:
        part = str(value if attribute is None else value[attribute])
        length += len(part) + len(separator)
        _check_length(length)
        parts.append(part)
    return separator.join(parts)


def _replace(text: str, old: str, new: str) -> str:
    text, old, new = str(text), str(old), str(new)
    _check_length(len(text) + text.count(old) * len(new))
    return text.replace(old, new)
