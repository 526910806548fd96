"""Prompt caching for the calls of this process: which parts of a request are marked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.jobs.call import Usage
from runner.store.records import Claim
from runner.workers.needs import Need


@dataclass(slots=True)
class Marked:
    """A request that is marked for the prompt cache, as far as that pays.

    Args:
        body: the request.
        cached_tokens: input expected to be read from the cache.
        written_tokens: input expected to be written to it.
        for_an_hour: it is written for an hour, else for 5 minutes.
    """

    body: Mapping[str, Any]
    cached_tokens: int = 0
    written_tokens: int = 0
    for_an_hour: bool = False

    def began(self, usage: Usage) -> None:
        """The answer begins: what was to be written stands in the cache now."""

    def close(self) -> None:
        """The call is over, or never was made."""


class Caching:
    """Marks requests for the prompt cache."""

    async def prepare(
        self, claim: Claim, loop: ContinuationLoop, send: Send, body: Mapping[str, Any], need: Need
    ) -> Marked:
        """The request as it is to be sent. Waits where another call writes what this one can read;
        may be cancelled at any time."""
        return Marked(body)
