"""What the prompt cache makes of a document's planned calls.

A beginning that jobs share is read by all but the first of them. A document's own text is marked
where it is sure to be read again; all other marks are bets, of which nobody knows beforehand how
many are placed and won (`runner.messages.thrift`), so the expected figure counts none of them, and
the low one all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from runner.estimating.arithmetic import PlannedCall
from runner.jobs.call import Usage

# An entry for 5 minutes is not trusted to outlast a call that takes longer than this.
LONGEST_CALL_S: Final = 0.85 * 300


def usages(
    calls: Sequence[PlannedCall],
    *,
    shared_tokens: int,
    minimum_tokens: int | None,
    chained: bool,
    call_s: float,
) -> Iterator[Usage]:
    """How each call is billed.

    Args:
        shared_tokens: of the prompt's beginning that other jobs share.
        minimum_tokens: a shorter beginning is not cached; None: nothing is.
        chained: each call leaves what it read in the cache for the next one.
        call_s: how long one call takes.
    """
    least = minimum_tokens or 0
    caching = minimum_tokens is not None
    warm = shared_tokens if caching and shared_tokens >= least else 0
    for number, call in enumerate(calls, start=1):
        end = call.prompt_tokens + call.document_tokens
        read = min(warm, end)
        goes_on = number < len(calls)
        marked = caching and chained and goes_on and end >= least and end > read
        written = end - read if marked else 0
        yield Usage(
            input_tokens=call.input_tokens - read - written,
            cache_creation_input_tokens=written,
            cache_read_input_tokens=read,
            output_tokens=call.output_tokens,
            cache_creation_1h_input_tokens=written if call_s > LONGEST_CALL_S else 0,
        )
        if marked:
            warm = end
