"""How several processes divide one limit: equally among those that have work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_MORE = 1.1  # a process may grow a little beyond what it wishes now


@dataclass(frozen=True, slots=True)
class Member:
    """A process that shares a limit.

    Args:
        in_flight: calls it has open.
        wished: calls it would have open if the limit were all its own.
    """

    in_flight: int
    wished: int


def share(members: Mapping[str, Member], own: str) -> float:
    """The part of a limit that one process may use, above 0 and at most 1.

    Each gets an equal part; what one does not need goes to the others, equally again. All who
    look at the same members come to parts that make 1 together at most.

    Args:
        members: by process.
        own: whose part is asked for; where it is unknown it counts as one call more.
    """
    known = dict(members)
    known.setdefault(own, Member(0, 1))
    # A limit is no number of calls; what is open now tells how many calls it feeds.
    fed = float(max(len(known), sum(member.in_flight for member in known.values())))
    left, parts = fed, len(known)
    for name, member in sorted(known.items(), key=lambda item: (item[1].wished, item[0])):
        got = min(left / parts, max(1.0, _MORE * member.wished))
        if name == own:
            return got / fed
        left -= got
        parts -= 1
    raise AssertionError("a process is always among its own members")
