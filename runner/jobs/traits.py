"""What a model, behind a given endpoint, can take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PrefillAnswer(StrEnum):
    """How a model, behind a given endpoint, answered a prefill."""

    TAKEN = "taken"  # it went on from it
    REFUSED = "refused"  # by an error
    RESTARTED = "restarted"  # it began the answer afresh, as if there were none


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """The facts the continuation loop needs to know of a model and its endpoint.

    Args:
        prefill: the model goes on from a final assistant message.
        max_output_tokens: the most one call may ask for.
        context_window: tokens of prompt and answer together.
        one_block: the endpoint joins text blocks with something between them, so an assistant
            message must be sent as a single block. False for the real API.
        may_restart: the endpoint may take a prefill and begin its answer afresh, as some local
            servers do, so each answer's opening is looked at. False for the real API.
        cache_minimum_tokens: a shorter beginning of a request is silently not cached; None: the
            endpoint has no prompt cache that requests could be marked for.
    """

    prefill: bool
    max_output_tokens: int
    context_window: int
    one_block: bool = False
    may_restart: bool = False
    cache_minimum_tokens: int | None = None
