"""What each model can take, as a shipped table; the API has no field that tells of prefill.

Sources: Messages API documentation: models overview (context windows, output limits), errors
("prefill not supported": Claude 4.6 and later models and Claude Mythos Preview do not take it).
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from runner.jobs.traits import ModelTraits

# (line, version) -> (output tokens of one call, context window). The version is (major, minor).
_LIMITS: dict[tuple[str, tuple[int, int]], tuple[int, int]] = {
    ("fable", (5, 1)): (128_000, 1_000_000),
    ("opus", (5, 5)): (128_000, 1_000_000),
    ("opus", (5, 0)): (128_000, 1_000_000),
    ("opus", (4, 8)): (128_000, 1_000_000),
    ("opus", (4, 7)): (128_000, 1_000_000),
    ("opus", (4, 6)): (128_000, 1_000_000),
    ("sonnet", (5, 5)): (128_000, 1_000_000),
    ("sonnet", (5, 0)): (128_000, 1_000_000),
    ("sonnet", (4, 6)): (128_000, 1_000_000),
    ("haiku", (5, 5)): (128_000, 1_000_000),
    ("opus", (4, 5)): (64_000, 200_000),
    ("sonnet", (4, 5)): (64_000, 200_000),
    ("haiku", (4, 5)): (64_000, 200_000),
    ("opus", (4, 1)): (32_000, 200_000),
    ("opus", (4, 0)): (32_000, 200_000),
    ("sonnet", (4, 0)): (64_000, 200_000),
    ("sonnet", (3, 7)): (64_000, 200_000),
    ("sonnet", (3, 5)): (8_192, 200_000),
    ("haiku", (3, 5)): (8_192, 200_000),
    ("opus", (3, 0)): (4_096, 200_000),
    ("sonnet", (3, 0)): (4_096, 200_000),
    ("haiku", (3, 0)): (4_096, 200_000),
}
_LAST_PREFILL = (4, 5)
_OLD_LINES = frozenset({"opus", "sonnet", "haiku"})

# A Claude model nobody told us of: taken for a new one, which refuses prefill, with limits that
# every model of the last years keeps. Asking for too little costs a call, for too much a 400.
_UNKNOWN_CLAUDE = (64_000, 200_000)
# A model behind somebody else's server. Its window is set where it is started; the guess is high,
# for ending a document early is worse than an error that says what the window is.
_UNKNOWN_OTHER = (4_096, 131_072)

_DATE = re.compile(r"(?:-v\d+)?(?:[-@]\d{8})?(?:-v\d+)?(?::\d+)?(?:-latest)?$")
_WINDOW = re.compile(r"\[[^\]]*\]$")  # "[1m]", as some tools write the wide window
_LINE_FIRST = re.compile(r"claude-([a-z]+)-(\d)(?:-(\d{1,2}))?$")  # claude-opus-4-5
_VERSION_FIRST = re.compile(r"claude-(\d)(?:-(\d{1,2}))?-([a-z]+)$")  # claude-3-5-sonnet


def is_anthropic(base_url: str) -> bool:
    """Whether the endpoint is Anthropic's own, by its host name."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    return host == "anthropic.com" or host.endswith(".anthropic.com")


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


def traits(model: str, base_url: str, *, one_block: bool | None = None) -> ModelTraits:
    """What `model` behind `base_url` can take, as far as the shipped table knows.

    Args:
        model: as requests name it; dates, aliases and platforms' prefixes do not matter.
        base_url: the endpoint: servers that are not Anthropic's may join text blocks with
            something between them, so they get one block.
        one_block: what is known of the endpoint against that guess; None takes the guess.
    """
    own = is_anthropic(base_url)
    name = plain_name(model)
    prefill, (max_output_tokens, context_window) = _known(name, own)
    return ModelTraits(
        prefill=prefill,
        max_output_tokens=max_output_tokens,
        context_window=context_window,
        one_block=not own if one_block is None else one_block,
    )


def _known(name: str, own: bool) -> tuple[bool, tuple[int, int]]:
    if not name.startswith("claude-"):
        return (False, _UNKNOWN_CLAUDE) if own else (True, _UNKNOWN_OTHER)
    if name.startswith(("claude-2", "claude-instant-")):
        return True, (4_096, 100_000)
    if found := _LINE_FIRST.match(name):
        line, major, minor = found.groups()
    elif found := _VERSION_FIRST.match(name):
        major, minor, line = found.groups()
    else:
        return False, _UNKNOWN_CLAUDE
    version = (int(major), int(minor or 0))
    limits = _LIMITS.get((line, version))
    # A line nobody told us of is new, whatever number it bears.
    return line in _OLD_LINES and version <= _LAST_PREFILL, limits or _UNKNOWN_CLAUDE
