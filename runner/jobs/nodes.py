"""Values that know the place in the file where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from runner.jobs.problems import Path
from runner.jobs.spec import Json

MAX_DEPTH = (
    100  # lists and mappings within each other; JSON writers recurse, so must stop somewhere
)


class Place(NamedTuple):
    """Line and column, both counted from 1, the column in characters."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """A value with its place.

    Args:
        place: where the value begins.
        scalar: the value, when it is neither a mapping nor a list.
        keys: a mapping's entries, each with the place of its key.
        items: a list's entries.
        size: what it costs to write the value out, aliases included.
    """

    place: Place
    scalar: str | int | float | bool | None = None
    keys: dict[str, tuple[Place, Node]] | None = None
    items: list[Node] | None = None
    size: int = 1

    def value(self) -> Json:
        """The plain value, as json.loads would give it."""
        if self.keys is not None:
            return {key: node.value() for key, (_, node) in self.keys.items()}
        if self.items is not None:
            return [node.value() for node in self.items]
        return self.scalar

    def step(self, step: str | int) -> tuple[Place, Node] | None:
        """One step down: the place of the key (or list entry) and what stands there."""
        if isinstance(step, str):
            return None if self.keys is None else self.keys.get(step)
        if self.items is None or step >= len(self.items):
            return None
        return self.items[step].place, self.items[step]


def find(node: Node, path: Path, *, on_key: bool = False) -> Place | None:
    """The place of the value (or of the key) at `path`; None where nothing stands there."""
    place = node.place
    for step in path:
        found = node.step(step)
        if found is None:
            return None
        place, node = found
    return place if on_key else node.place


def find_nearest(node: Node, path: Path, *, on_key: bool = False) -> Place:
    """As `find`; where nothing stands there, the place of what should have held it."""
    for length in range(len(path), 0, -1):
        place = find(node, path[:length], on_key=on_key or length < len(path))
        if place is not None:
            return place
    return node.place
