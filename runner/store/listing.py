"""Lists of jobs, filtered: read page by page in the order of submission, by an index that fits.

Neither what is finished nor what waits may make a list of a few others slow. So the kept counts say
first how many jobs there are to find: none is found without looking, few are found by the partial
indexes of their states, and a list ends with the last of them rather than at the end of the table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, func, literal, literal_column, select, text, union_all
from sqlalchemy.sql.elements import TextClause

from runner.jobs.states import COMPLETE, FINAL, Finish, State
from runner.store.portable import beyond, unguessed
from runner.store.rows import with_totals
from runner.store.schema import INCOMPLETE, WAITING, job, job_count, sql_list

# So many jobs are looked up by the indexes of their states, whose orders are not that of the list.
FEW: Final = 5_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a list shows.

    Args:
        batch_key: of this batch; None: of all.
        states: in these states; none: in any.
        finishes: whose documents ended so; none: however they did, or have not.
    """

    batch_key: int | None = None
    states: frozenset[State] = frozenset()
    finishes: frozenset[Finish] = frozenset()

    @staticmethod
    def of(
        batch_key: int | None, states: Collection[State], finishes: Collection[Finish]
    ) -> Filter | None:
        """None: no job can be meant."""
        wanted = frozenset(states)
        if finishes:
            wanted = (wanted or FINAL) & FINAL
            if not wanted:
                return None
        return Filter(batch_key, wanted, frozenset(finishes))

    @property
    def incomplete(self) -> bool:
        """Whether only jobs that ended without a complete document are meant."""
        if not self.states or not self.states <= FINAL:
            return False
        if State.COMPLETED in self.states:
            return bool(self.finishes) and not self.finishes & COMPLETE
        return True


def counts(wanted: Filter) -> Select[Any]:
    """How many jobs are meant, and how many of all batches are in the same states."""
    matching = _counted(wanted).scalar_subquery()
    among = _counted(Filter(states=wanted.states)).scalar_subquery()
    return select(matching.label("matching"), among.label("among"))


def page_statement(wanted: Filter, after: int, size: int, *, few: bool = False) -> Select[Any]:
    """The first jobs of a list whose key is beyond `after`.

    Args:
        few: there are few jobs in these states, over all batches.
    """
    # The size as a literal, for a server takes a bound one for a tenth of the table.
    page = select(job).limit(literal_column(f"{size}"))
    if wanted.batch_key is None:
        page = page.where(job.c.key > after).order_by(job.c.key)
    else:
        group, place = job.c.batch_key, job.c.key
        page = page.where(beyond(group, place, literal(wanted.batch_key), literal(after)))
        page = page.order_by(group, place)
    if wanted.states:
        # Bound, so that no partial index applies by itself: in the order of keys nothing needs
        # sorting.
        page = page.where(unguessed(job.c.state.in_(sorted(wanted.states))))
    if wanted.finishes:
        page = page.where(unguessed(job.c.finish.in_(sorted(wanted.finishes))))
    if wanted.incomplete:
        page = page.where(text(f"({INCOMPLETE})"))
    elif few and (parts := _by_state(wanted.states)):
        keys = union_all(*(select(job.c.key).where(part) for part in parts))
        found = keys.cte("few").prefix_with("MATERIALIZED")
        page = page.where(job.c.key.in_(select(found.c.key)))
    first = page.subquery("job")
    # As many as there are: a list ends with the last of them, not at the end of the table.
    there = _counted(wanted).scalar_subquery()
    return with_totals(select(first).limit(there))


def _counted(wanted: Filter) -> Select[Any]:
    counted = select(func.coalesce(func.sum(job_count.c.jobs), 0))
    if wanted.batch_key is not None:
        counted = counted.where(job_count.c.batch_key == wanted.batch_key)
    if wanted.states:
        counted = counted.where(job_count.c.state.in_(sorted(wanted.states)))
    if wanted.finishes:
        counted = counted.where(job_count.c.finish.in_(sorted(wanted.finishes)))
    return counted


def _by_state(states: frozenset[State]) -> list[TextClause]:
    """The states in the words of the partial indexes; empty: there is none for some of them."""
    if not states or State.COMPLETED in states:
        return []
    groups = (
        ({State.AVAILABLE}, f"state = '{State.AVAILABLE}'"),
        ({State.EXECUTING}, f"state = '{State.EXECUTING}'"),
        (WAITING, f"state IN ({sql_list(WAITING)})"),
        (FINAL - {State.COMPLETED}, INCOMPLETE),
    )
    return [text(words) for group, words in groups if states & group]
