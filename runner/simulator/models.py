"""The models the simulator knows, with the limits the real ones have.

Source: Messages API documentation, models overview, prompt caching and rate limits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

_ADAPTIVE = frozenset({"adaptive"})
_BUDGET = frozenset({"enabled", "disabled"})


@dataclass(frozen=True, slots=True)
class Model:
    """What the simulator must know of a model.

    Args:
        context_window_tokens: input and output together.
        max_output_tokens: the most a request may ask for.
        cache_minimum_tokens: a shorter prefix is silently not cached.
        thinking: the types of thinking it takes.
        rate_class: models of one class share their rate limits.
        prefill: whether an assistant message may come last.
        restarts: it takes an assistant message that comes last, and begins its answer afresh all
            the same, as some local servers do.
    """

    id: str
    display_name: str
    created_at: str
    context_window_tokens: int
    max_output_tokens: int
    cache_minimum_tokens: int
    thinking: frozenset[str]
    rate_class: str
    prefill: bool = False
    restarts: bool = False

    def info(self) -> dict[str, Any]:
        """The model as `GET /v1/models/{id}` tells it."""
        yes, no = {"supported": True}, {"supported": False}

        def support(value: bool) -> dict[str, bool]:
            return yes if value else no

        return {
            "type": "model",
            "id": self.id,
            "display_name": self.display_name,
            "created_at": self.created_at,
            "lifecycle": "active",
            "deprecated_at": None,
            "retires_at": None,
            "line": self.id.split("-")[1],
            "max_input_tokens": self.context_window_tokens,
            "max_tokens": self.max_output_tokens,
            "capabilities": {
                "batch": yes,
                "citations": yes,
                "code_execution": no,
                "context_management": no,
                "effort": dict.fromkeys(("supported", "low", "medium", "high", "max"), no)
                | {"supported": False},
                "image_input": yes,
                "pdf_input": yes,
                "server_tools": {"supported": False, "code_execution": no, "web_search": no},
                "structured_outputs": yes,
                "thinking": {
                    "supported": True,
                    "types": {
                        kind: support(kind in self.thinking)
                        for kind in ("adaptive", "between_tools", "disabled", "enabled")
                    },
                },
            },
        }


def _large(
    name: str, created: str, minimum: int, thinking: frozenset[str], rate_class: str = ""
) -> Model:
    display = "Claude " + name.replace("-", " ").title().replace(" 4 ", " 4.").replace(" 5 ", " 5.")
    return Model(
        id=f"claude-{name}",
        display_name=display,
        created_at=f"{created}T00:00:00Z",
        context_window_tokens=1_000_000,
        max_output_tokens=128_000,
        cache_minimum_tokens=minimum,
        thinking=thinking,
        rate_class=rate_class or name,
    )


def _small(name: str, created: str, minimum: int, rate_class: str) -> Model:
    return Model(
        id=f"claude-{name}",
        display_name="Claude " + name.replace("-4-5", " 4.5").title(),
        created_at=f"{created}T00:00:00Z",
        context_window_tokens=200_000,
        max_output_tokens=64_000,
        cache_minimum_tokens=minimum,
        thinking=_BUDGET,
        rate_class=rate_class,
        prefill=True,
    )


_ALL = (
    _large("fable-5-2", "2026-11-01", 512, _ADAPTIVE),
    _large("mythos-5-2", "2026-11-01", 512, _ADAPTIVE),
    _large("haiku-5-5", "2026-10-15", 512, _ADAPTIVE | {"disabled"}),
    _large("sonnet-5-5", "2026-09-24", 512, _ADAPTIVE | {"between_tools", "disabled"}),
    _large("opus-5-5", "2026-08-20", 512, _ADAPTIVE),
    _large("fable-5-1", "2026-08-01", 512, _ADAPTIVE),
    _large("sonnet-5", "2026-06-01", 1_024, _ADAPTIVE | {"disabled"}),
    _large("opus-5", "2026-05-15", 512, _ADAPTIVE | {"disabled"}),
    _large("opus-4-8", "2026-04-15", 1_024, _ADAPTIVE | {"disabled"}, "opus-4"),
    _large("opus-4-7", "2026-03-15", 2_048, _ADAPTIVE | {"disabled"}, "opus-4"),
    _large("sonnet-4-6", "2026-02-17", 1_024, _ADAPTIVE | _BUDGET, "sonnet-4"),
    _large("opus-4-6", "2026-02-05", 4_096, _ADAPTIVE | _BUDGET, "opus-4"),
    _small("opus-4-5", "2025-11-24", 4_096, "opus-4"),
    _small("haiku-4-5", "2025-10-15", 4_096, "haiku-4-5"),
    _small("sonnet-4-5", "2025-09-29", 1_024, "sonnet-4"),
)
MODELS = {model.id: model for model in _ALL}
_DATED = {
    "claude-opus-4-5-20251101": "claude-opus-4-5",
    "claude-haiku-4-5-20251001": "claude-haiku-4-5",
    "claude-sonnet-4-5-20250929": "claude-sonnet-4-5",
}


# Names that a later model might bear, and models behind a local server.
_NEW = re.compile(r"claude-[a-z]+-(?:[6-9]|\d\d)(?:-\d{1,2})?(?:-\d{8})?")
_LOCAL = "local-"


def find_model(name: str, *, prefill_restarts: bool = False) -> Model | None:
    """The model of that name or dated name; None where there is none.

    Names of a sixth generation and later are new models: like all since 4.6, they take no prefill.
    Names that begin with `local-` are models of a local server, which take it; with
    `prefill_restarts`, or where the name has "restart" in it, they begin afresh all the same.
    """
    if _NEW.fullmatch(name):
        return replace(_large(name.removeprefix("claude-"), "2026-11-20", 512, _ADAPTIVE), id=name)
    if name.startswith(_LOCAL):
        local = _small(name, "2026-01-01", 1_000_000, name)
        return replace(local, id=name, restarts=prefill_restarts or "restart" in name)
    return MODELS.get(_DATED.get(name, name))


def is_local(name: str) -> bool:
    """Whether it is a model of a local server, which knows no list of models."""
    return name.startswith(_LOCAL)
