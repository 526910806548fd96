"""Marks in a prompt that tell the simulator how to behave: `[[simulate: refusal tokens=500]]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARKER = re.compile(r"\[\[simulate:([^\]]*)\]\]")


@dataclass(frozen=True, slots=True)
class Markers:
    """What the marks of one prompt ask for.

    Args:
        tokens: length of the true document, in tokens.
        refusal: category of a refusal; None for none. `refusal` alone means `general_harms`.
        refusal_after: tokens of the document that are written before the refusal.
        fault: a fault that strikes this prompt's first request, and no other.
        always: a fault that strikes every request with this prompt.
        behaviour: how this prompt's answers are given (`behaviours.Behaviour`).
        thinks: tokens that are thought before each answer.
    """

    tokens: int | None = None
    refusal: str | None = None
    refusal_after: int = 0
    fault: str | None = None
    always: str | None = None
    behaviour: str | None = None
    thinks: int = 0

    @classmethod
    def read(cls, prompt: str) -> Markers:
        """Read all marks of a prompt's text; words that mean nothing are passed over."""
        values: dict[str, str] = {}
        for marker in _MARKER.findall(prompt):
            for word in marker.replace(",", " ").split():
                key, _, value = word.partition("=")
                values[key] = value
        return cls(
            tokens=_number(values.get("tokens")),
            refusal=(values["refusal"] or "general_harms") if "refusal" in values else None,
            refusal_after=_number(values.get("refusal_after")) or 0,
            fault=values.get("fault"),
            always=values.get("always"),
            behaviour=values.get("behaviour"),
            thinks=_number(values.get("thinks")) or 0,
        )


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdecimal() else None
