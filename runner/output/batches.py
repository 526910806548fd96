"""The batches a reader asked for by name."""

from __future__ import annotations

from collections.abc import Collection

from runner.errors import NotFound
from runner.store.reading import ReadingStore
from runner.store.records import BatchRow


async def known_batches(store: ReadingStore, names: Collection[str] | None) -> list[BatchRow]:
    """The batches of these names; None takes all.

    Raises:
        NotFound: one of the names is not in the database.
    """
    rows = await store.batches()
    if names is None:
        return rows
    if missing := sorted(set(names) - {row.name for row in rows}):
        known = ", ".join(row.name for row in rows) or "none"
        raise NotFound(f"no batch {', '.join(missing)} in the database; there are: {known}")
    return [row for row in rows if row.name in names]
