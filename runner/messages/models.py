"""What each model can take: a shipped table, and above it what the endpoint tells of a model.

The API has no field that tells of prefill.

Sources: Messages API documentation: models overview (context windows, output limits), errors
("prefill not supported": Claude 4.6 and later models and Claude Mythos Preview do not take it),
prompt caching (the least tokens that are cached, by model).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from runner.jobs.model_names import line_and_version, plain_name
from runner.jobs.traits import ModelTraits
from runner.messages.model_info import ModelInfo

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
# (line, version) -> tokens of the shortest beginning that is cached. A model that is not here is
# taken for one that asks for the most.
_CACHE_MINIMUM: dict[tuple[str, tuple[int, int]], int] = {
    ("fable", (5, 2)): 512,
    ("fable", (5, 1)): 512,
    ("mythos", (5, 2)): 512,
    ("mythos", (5, 1)): 512,
    ("opus", (5, 5)): 512,
    ("opus", (5, 0)): 512,
    ("sonnet", (5, 5)): 512,
    ("haiku", (5, 5)): 512,
    ("opus", (4, 8)): 1_024,
    ("sonnet", (5, 0)): 1_024,
    ("sonnet", (4, 6)): 1_024,
    ("sonnet", (4, 5)): 1_024,
    ("opus", (4, 7)): 2_048,
    ("opus", (4, 6)): 4_096,
    ("opus", (4, 5)): 4_096,
    ("haiku", (4, 5)): 4_096,
}
_UNKNOWN_CACHE_MINIMUM = 4_096
_LAST_PREFILL = (4, 5)
_OLD_LINES = frozenset({"opus", "sonnet", "haiku"})

# A Claude model nobody told us of: taken for a new one, which refuses prefill, with limits that
# every model of the last years keeps. Asking for too little costs a call, for too much a 400.
_UNKNOWN_CLAUDE = (64_000, 200_000)
# A model behind somebody else's server. Its window is set where it is started; the guess is high,
# for ending a document early is worse than an error that says what the window is.
_UNKNOWN_OTHER = (4_096, 131_072)


def is_anthropic(base_url: str) -> bool:
    """Whether the endpoint is Anthropic's own, by its host name."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    return host == "anthropic.com" or host.endswith(".anthropic.com")


def traits(
    model: str, base_url: str, *, one_block: bool | None = None, info: ModelInfo | None = None
) -> ModelTraits:
    """What `model` behind `base_url` can take, as far as the endpoint or the shipped table knows.

    Args:
        model: as requests name it; dates, aliases and platforms' prefixes do not matter.
        base_url: the endpoint: servers that are not Anthropic's may join text blocks with
            something between them, so they get one block.
        one_block: what is known of the endpoint against that guess; None takes the guess.
        info: what the endpoint told of the model; it is believed before the table.
    """
    own = is_anthropic(base_url)
    name = plain_name(model)
    prefill, (max_output_tokens, context_window) = _known(name, own)
    info = info or ModelInfo()
    one_block = not own if one_block is None else one_block
    return ModelTraits(
        prefill=prefill,
        max_output_tokens=info.max_output_tokens or max_output_tokens,
        context_window=info.context_window or context_window,
        may_restart=not own,
        one_block=one_block,
        cache_minimum_tokens=None if one_block else cache_minimum(name),
    )


def cache_minimum(name: str) -> int | None:
    """Tokens of the shortest beginning that a model caches; of a model nobody told us of, the most
    that any asks for. None: it is none of Claude's.

    Source: Messages API documentation, prompt caching.
    """
    if not name.startswith("claude-"):
        return None
    known = line_and_version(name)
    return (
        _UNKNOWN_CACHE_MINIMUM
        if known is None
        else _CACHE_MINIMUM.get(known, _UNKNOWN_CACHE_MINIMUM)
    )


def _known(name: str, own: bool) -> tuple[bool, tuple[int, int]]:
    if not name.startswith("claude-"):
        return (False, _UNKNOWN_CLAUDE) if own else (True, _UNKNOWN_OTHER)
    if name.startswith(("claude-2", "claude-instant-")):
        return True, (4_096, 100_000)
    known = line_and_version(name)
    if known is None:
        return False, _UNKNOWN_CLAUDE
    line, version = known
    limits = _LIMITS.get((line, version))
    # A line nobody told us of is new, whatever number it bears.
    return line in _OLD_LINES and version <= _LAST_PREFILL, limits or _UNKNOWN_CLAUDE
