"""The log of what happened to jobs. Each row is written in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from runner.store.engine import driver, storable
from runner.store.records import EventKind

# Bare SQL: claims and settles are frequent, and this is half of what they would cost otherwise.
ADD: Final = (
    "INSERT INTO job_event (job_key, at_ms, kind, claim, worker_id, detail) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
ADD_OF_JOB: Final = """\
INSERT INTO job_event (job_key, at_ms, kind, claim, worker_id, detail)
SELECT key, ?2, ?3, claim, ?4, ?5 FROM job WHERE key = ?1
"""
ADD_BROKEN: Final = """\
INSERT INTO job_event (job_key, at_ms, kind, claim, detail)
SELECT job_key, ?2, 'call_broken', claim, 'call ' || number || coalesce(': ' || ?3, '')
FROM call WHERE key = ?1
"""


def note(
    connection: Connection,
    job_key: int,
    now_ms: int,
    kind: EventKind,
    claim: int,
    worker_id: str | None = None,
    detail: str | None = None,
) -> None:
    """Write down what happened to a job.

    Args:
        worker_id: who claimed it, or from whom it was rescued.
        detail: why, in words.
    """
    values = (job_key, now_ms, kind.value, claim, worker_id, detail and storable(detail))
    driver(connection).execute(ADD, values)


def note_all(
    connection: Connection,
    jobs: Iterable[tuple[int, int]],
    now_ms: int,
    kind: EventKind,
    worker_id: str | None = None,
) -> None:
    """The same for several jobs, given by key and claim number."""
    driver(connection).executemany(
        ADD, [(key, now_ms, kind.value, claim, worker_id, None) for key, claim in jobs]
    )


def note_of_jobs(
    connection: Connection,
    job_keys: Iterable[int],
    now_ms: int,
    kind: EventKind,
    detail: str | None = None,
) -> None:
    """The same for jobs whose claim number is looked up."""
    values = [(key, now_ms, kind.value, None, detail) for key in job_keys]
    driver(connection).executemany(ADD_OF_JOB, values)


def note_broken_call(connection: Connection, call_key: int, now_ms: int, error: str | None) -> None:
    """Write down that a call ended without a stop reason."""
    driver(connection).execute(ADD_BROKEN, (call_key, now_ms, error and storable(error)))
