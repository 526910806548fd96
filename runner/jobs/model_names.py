"""What a model's name tells: its maker, its line, its version."""

from __future__ import annotations

import re

_DATE = re.compile(r"(?:-v\d+)?(?:[-@]\d{8})?(?:-v\d+)?(?::\d+)?(?:-latest)?$")
_WINDOW = re.compile(r"\[[^\]]*\]$")  # "[1m]", as some tools write the wide window
_LINE_FIRST = re.compile(r"claude-([a-z]+)-(\d)(?:-(\d{1,2}))?$")  # claude-opus-4-5
_VERSION_FIRST = re.compile(r"claude-(\d)(?:-(\d{1,2}))?-([a-z]+)$")  # claude-3-5-sonnet
_NUMBERED = frozenset({"opus", "sonnet", "haiku"})
_LAST_WITH_SAMPLING = (4, 6)
# Source: Messages API documentation, extended thinking; by line and version.
_THINKING: dict[tuple[str, tuple[int, int]], frozenset[str]] = {
    ("opus", (5, 5)): frozenset({"adaptive"}),
    ("opus", (5, 0)): frozenset({"adaptive", "disabled"}),
    ("opus", (4, 8)): frozenset({"adaptive", "disabled"}),
    ("opus", (4, 7)): frozenset({"adaptive", "disabled"}),
    ("opus", (4, 5)): frozenset({"enabled", "disabled"}),
    ("sonnet", (4, 5)): frozenset({"enabled", "disabled"}),
    ("haiku", (4, 5)): frozenset({"enabled", "disabled"}),
}


def plain_name(model: str) -> str:
    """A model's name without a date, an alias's `-latest`, or what a platform puts around it.

    `us.anthropic.claude-sonnet-4-5-20250929-v1:0`, `claude-sonnet-4-5@20250929` and
    `anthropic/claude-sonnet-4.5` are all `claude-sonnet-4-5`. Names of other makers stay.
    """
    name = model.strip().lower()
    start = name.rfind("claude-")
    if start < 0:
        return model
    name = _WINDOW.sub("", name[start:]).replace(".", "-")
    return _DATE.sub("", name)


def is_claude(model: str) -> bool:
    """Whether the name is one of Claude's."""
    return plain_name(model).startswith("claude-")


def line_and_version(plain: str) -> tuple[str, tuple[int, int]] | None:
    """Line and version that a plain name tells: `claude-opus-4-5` is `("opus", (4, 5))`."""
    if found := _LINE_FIRST.match(plain):
        line, major, minor = found.groups()
    elif found := _VERSION_FIRST.match(plain):
        major, minor, line = found.groups()
    else:
        return None
    return line, (int(major), int(minor or 0))


def takes_sampling(model: str) -> bool:
    """Whether `temperature`, `top_p` and `top_k` may be sent to the model.

    The API's current version knows them no more, and models since 4.7 are served by no other on
    every platform; older ones take them in the version before, which is then asked for. Models of
    other makers are served by who knows what: they take them.
    Source: Messages API documentation, versioning.
    """
    name = plain_name(model)
    if not name.startswith("claude-"):
        return True
    if name.startswith(("claude-2", "claude-instant-")):
        return True
    known = line_and_version(name)
    return known is not None and known[0] in _NUMBERED and known[1] <= _LAST_WITH_SAMPLING


def thinking_refused(model: str, kind: str) -> frozenset[str] | None:
    """The types of thinking the model takes, where it is known to refuse `kind`."""
    known = line_and_version(plain_name(model))
    takes = None if known is None else _THINKING.get(known)
    return takes if takes is not None and kind not in takes else None
