"""Which jobs a command means, as SQL."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, func, select

from runner.jobs.states import State
from runner.store.records import Selection
from runner.store.schema import batch, job


def conditions(selection: Selection, allowed: frozenset[State]) -> list[ColumnElement[bool]]:
    """What a job must be to be meant; never in another state than the allowed ones."""
    states = (selection.states or frozenset(State)) & allowed
    # Bound, so that no partial index applies: in the order of keys nothing needs sorting.
    found: list[ColumnElement[bool]] = [job.c.state.in_(sorted(states))]
    if selection.job_keys is not None:
        found.append(job.c.key.in_(selection.job_keys))
    if selection.batch is not None:
        key = select(batch.c.key).where(batch.c.name == selection.batch).scalar_subquery()
        found.append(job.c.batch_key == key)
    if selection.finishes:
        found.append(job.c.finish.in_(sorted(selection.finishes)))
    if selection.final_before_ms is not None:
        found.append(job.c.finalized_ms < selection.final_before_ms)
    return found


def count_statement(selection: Selection) -> Select[int]:
    """How many jobs are meant."""
    return select(func.count()).select_from(job).where(*conditions(selection, frozenset(State)))
