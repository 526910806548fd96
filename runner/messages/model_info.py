"""What `GET /v1/models/{id}` tells of a model, where the endpoint has it.

Source: Messages API documentation, Models API. It tells of no prefill and of no price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the endpoint tells it; None for what it does not tell, or tells unreadably.

    Args:
        max_output_tokens: the most one call may ask for.
        context_window: tokens of prompt and answer together.
        deprecated_on, retires_on: dates of its end, past or to come.
        thinking: the types of thinking it takes.
    """

    max_output_tokens: int | None = None
    context_window: int | None = None
    deprecated_on: date | None = None
    retires_on: date | None = None
    thinking: frozenset[str] | None = None

    @staticmethod
    def from_body(body: object) -> ModelInfo | None:
        """Read the endpoint's answer; None where it is about something else."""
        if not isinstance(body, Mapping) or body.get("type") != "model":
            return None
        return ModelInfo(
            max_output_tokens=_count(body.get("max_tokens")),
            context_window=_count(body.get("max_input_tokens")),
            deprecated_on=_day(body.get("deprecated_at")),
            retires_on=_day(body.get("retires_at")),
            thinking=_thinking(body.get("capabilities")),
        )


def _count(value: object) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
    return int(value) if good else None  # type: ignore[call-overload]  # it is one


def _day(value: object) -> date | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()


def _thinking(capabilities: Any) -> frozenset[str] | None:
    thinking = capabilities.get("thinking") if isinstance(capabilities, Mapping) else None
    types = thinking.get("types") if isinstance(thinking, Mapping) else None
    if not isinstance(types, Mapping):
        return None
    return frozenset(
        str(name)
        for name, support in types.items()
        if isinstance(support, Mapping) and support.get("supported") is True
    )
