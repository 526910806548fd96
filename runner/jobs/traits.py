"""What a model, behind a given endpoint, can take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """The facts the continuation loop needs to know of a model and its endpoint.

    Args:
        prefill: the model goes on from a final assistant message.
        max_output_tokens: the most one call may ask for.
        context_window: tokens of prompt and answer together.
        one_block: the endpoint joins text blocks with something between them, so an assistant
            message must be sent as a single block. False for the real API.
    """

    prefill: bool
    max_output_tokens: int
    context_window: int
    one_block: bool = False
