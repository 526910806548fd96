"""Finds ids that stand twice in a file, however many there are, in flat memory."""

from __future__ import annotations

import itertools
from array import array

BUCKETS = 256


class IdRegister:
    """Remembers 8 bytes an id instead of the id.

    Equal ids have equal digests; the rare unequal ids that share one are told apart by whoever
    reads the file a second time, which happens only when `repeated` is not empty.
    """

    def __init__(self) -> None:
        self.count = 0
        self._buckets = [array("q") for _ in range(BUCKETS)]

    def add(self, id: str) -> None:
        self.count += 1
        # Python's own string hash: 64 bits, keyed anew in each process, and already computed.
        digest = hash(id)
        self._buckets[digest & (BUCKETS - 1)].append(digest)

    def repeated(self) -> set[int]:
        """The digests that came more than once."""
        twice: set[int] = set()
        for bucket in self._buckets:
            # Sorted bucket by bucket: a list of all digests at once would take 40 MB a million.
            ordered = sorted(bucket)
            twice.update(a for a, b in itertools.pairwise(ordered) if a == b)
        return twice
