"""Prompt caching: where breakpoints may stand, and the rule by which a mark pays.

What ends at a breakpoint is written to the cache at a surcharge, and later requests that begin the
same read it at a fraction of the price. With `w` for what a write costs and `r` for what a read
costs, both as multiples of an input token's price, and `n` further reads expected before the entry
is gone, a mark pays where

    w + n × r < 1 + n

that is, where writing once and reading n times is cheaper than sending the same n + 1 times. For
most models w = 1.25 (5 minutes) or 2 (an hour) and r = 0.1: n > 0.28, so one read in four calls
is enough, or n > 1.11. What is warm already costs a mark nothing, so it is always marked.

Sources: Messages API documentation, prompt caching: writes happen only at breakpoints; a read looks
back over at most 20 blocks for earlier writes; at most 4 breakpoints; thinking and empty blocks
take none; an entry for an hour may not stand behind one for 5 minutes; prices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from runner.jobs.beginnings import block_characters
from runner.jobs.price import Rates

MOST_BREAKPOINTS: Final = 4
LOOK_BACK_BLOCKS: Final = 20
# Blocks that take no breakpoint.
_UNMARKABLE: Final = frozenset({"thinking", "redacted_thinking"})


class Ttl(StrEnum):
    """How long an entry lives after its last use, in the API's words."""

    MINUTES = "5m"
    HOUR = "1h"

    @property
    def seconds(self) -> int:
        return 300 if self is Ttl.MINUTES else 3600


@dataclass(frozen=True, slots=True)
class Multiples:
    """What a token costs that is written to or read from the cache, as multiples of one that is
    simply sent. The defaults are those of most models."""

    write_5m: float = 1.25
    write_1h: float = 2.0
    read: float = 0.1

    @classmethod
    def of(cls, rates: Rates | None) -> Multiples:
        """Those of a price; the usual ones where the price is unknown, or the input is free."""
        if rates is None or rates.input <= 0:
            return cls()
        return cls(
            rates.cache_write_5m / rates.input,
            rates.cache_write_1h / rates.input,
            rates.cache_read / rates.input,
        )

    def write(self, ttl: Ttl) -> float:
        return self.write_5m if ttl is Ttl.MINUTES else self.write_1h

    def pays(self, ttl: Ttl, reads: float) -> bool:
        """Whether a mark pays: the rule above.

        Args:
            reads: further reads that are expected before the entry is gone.
        """
        return self.write(ttl) + reads * self.read < 1 + reads

    def surcharge(self, ttl: Ttl) -> float:
        """What a token that is written and never read costs beyond its price."""
        return self.write(ttl) - 1

    def saving(self) -> float:
        """What a token that is read saves."""
        return 1 - self.read


@dataclass(frozen=True, slots=True)
class Place:
    """The end of a block, where a breakpoint may stand.

    Args:
        message: index of the message; None: in `system`.
        block: index of the block in it.
        behind: how many blocks stand before this one in the whole request.
        markable: whether the block takes a breakpoint.
        own: the user's own breakpoint there; None where there is none.
    """

    message: int | None
    block: int
    behind: int
    markable: bool
    own: Ttl | None


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of a request, in order.

    Args:
        tail: what a `cache_control` at the top of the request keeps for its last block.
    """

    places: tuple[Place, ...]
    tail: Ttl | None

    @property
    def free(self) -> int:
        """How many breakpoints may be added."""
        own = sum(place.own is not None for place in self.places) + (self.tail is not None)
        return max(0, MOST_BREAKPOINTS - own)

    def of(self, message: int | None, block: int) -> Place | None:
        """The place at the end of that block."""
        return next((p for p in self.places if (p.message, p.block) == (message, block)), None)

    def marked_by_user(self, messages: int) -> bool:
        """Whether the user marked the first so many messages, or `system`, or the whole request."""
        return self.tail is not None or any(
            place.own is not None and (place.message is None or place.message < messages)
            for place in self.places
        )


def layout(body: Mapping[str, Any]) -> Layout:
    """Where the blocks of a request end."""
    places: list[Place] = []
    parts: list[tuple[int | None, Any]] = [(None, body.get("system") or ())]
    parts += [(i, message.get("content", ())) for i, message in enumerate(body["messages"])]
    for message, content in parts:
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for index, block in enumerate(blocks):
            places.append(Place(message, index, len(places), _takes_mark(block), _ttl(block)))
    return Layout(tuple(places), _ttl(body))


def mark(
    body: Mapping[str, Any], plan: Layout, wanted: Sequence[tuple[Place, Ttl]]
) -> tuple[dict[str, Any], list[tuple[Place, Ttl]]]:
    """The request with breakpoints added, and which were; nothing of `body` itself is changed.

    As many as are allowed beside the user's own, the first in `wanted` first; none where the order
    of their times to live would break the API's rule, on a block that takes none, or on one that
    has one already.

    Args:
        plan: the body's own.
    """
    taken: dict[Place, Ttl] = {}
    for place, ttl in wanted:
        fits = place.markable and place.own is None and len(taken) < plan.free
        if fits and _in_order(plan, taken | {place: ttl}):
            taken[place] = ttl
    marked = dict(body)
    messages = list(body["messages"])
    for place, ttl in taken.items():
        if place.message is None:
            marked["system"] = _marked(marked["system"], place.block, ttl)
        else:
            message = messages[place.message]
            content = _marked(message["content"], place.block, ttl)
            messages[place.message] = {**message, "content": content}
    return {**marked, "messages": messages}, list(taken.items())


def _in_order(plan: Layout, added: Mapping[Place, Ttl]) -> bool:
    """Whether no entry for an hour would stand behind one for 5 minutes."""
    ttls: Iterable[Ttl | None] = (place.own or added.get(place) for place in plan.places)
    lives = [ttl.seconds for ttl in (*ttls, plan.tail) if ttl is not None]
    return lives == sorted(lives, reverse=True)


def _marked(content: Any, index: int, ttl: Ttl) -> list[Any]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    control = {"type": "ephemeral"} | ({"ttl": str(ttl)} if ttl is Ttl.HOUR else {})
    blocks[index] = {**blocks[index], "cache_control": control}
    return blocks


def _takes_mark(block: Mapping[str, Any]) -> bool:
    if block.get("type") in _UNMARKABLE:
        return False
    text = str(block.get("text") or "")
    return block.get("type") != "text" or not (text.isspace() or not text)


def _ttl(holder: Mapping[str, Any]) -> Ttl | None:
    control = holder.get("cache_control")
    if not control:
        return None
    hour = isinstance(control, Mapping) and control.get("ttl") == Ttl.HOUR
    return Ttl.HOUR if hour else Ttl.MINUTES


def characters(body: Mapping[str, Any]) -> list[int]:
    """Characters that stand before the end of each of the layout's places, that block included."""
    sums, total = [], 0
    for content in (
        body.get("system") or (),
        *(message.get("content", ()) for message in body["messages"]),
    ):
        for block in [{"text": content}] if isinstance(content, str) else content:
            total += block_characters(block)
            sums.append(total)
    return sums
