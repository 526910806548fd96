"""Long beginnings that jobs share: counted at submission, and who writes them to the prompt cache.

A row stands for a beginning that at least two jobs of one portion of a submission have, so that a
million jobs of different prompts leave none. It tells what processes must know of each other: how
many jobs with this beginning are still to come, until when the cache holds it, and until when a
call is under way that writes it there. All of it may be lost without harm: it only saves money.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from runner.store.bare import Driver, both
from runner.store.engine import driver

ADD: Final = """\
INSERT INTO shared_prefix (batch_key, hash, jobs) VALUES (?, ?, ?)
ON CONFLICT (batch_key, hash) DO UPDATE SET jobs = shared_prefix.jobs + excluded.jobs
"""
ONE_MORE: Final = "UPDATE shared_prefix SET jobs = jobs + 1 WHERE batch_key = ? AND hash = ?"
ONE_LESS: Final = """\
UPDATE shared_prefix SET jobs = jobs - 1 WHERE batch_key = ? AND hash = ? AND jobs > 0
"""
LESS: Final = both(
    "UPDATE shared_prefix SET jobs = greatest(0, jobs - ?3) WHERE batch_key = ?1 AND hash = ?2"
)
# One process at a time leads, and none where the cache holds it already.
LEAD: Final = """\
UPDATE shared_prefix SET warming_until_ms = ?3
WHERE batch_key = ?1 AND hash = ?2 AND warming_until_ms <= ?4 AND warm_until_ms <= ?4
"""
WARMED: Final = both(
    """\
UPDATE shared_prefix SET warm_until_ms = greatest(warm_until_ms, ?3), warming_until_ms = 0
WHERE batch_key = ?1 AND hash = ?2
"""
)
# Only one's own lead is given up: by then it may be another's.
GIVE_UP: Final = """\
UPDATE shared_prefix SET warming_until_ms = 0
WHERE batch_key = ?1 AND hash = ?2 AND warming_until_ms = ?3
"""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A beginning that jobs of a batch share.

    Args:
        hash: what it is known by.
        jobs: jobs that have it and whose first call is not made yet.
        warm_until_ms: until then the prompt cache holds it.
        warming_until_ms: until then a call is under way that writes it there.
    """

    hash: bytes
    jobs: int
    warm_until_ms: int
    warming_until_ms: int


def count(sql: Driver, batch_key: int, jobs: Iterable[tuple[bytes, ...]]) -> None:
    """Count the beginnings of jobs that are being queued.

    Args:
        jobs: for each job the hashes of its beginnings.
    """
    counts = Counter(one for beginnings in jobs for one in beginnings)
    shared = [(batch_key, one, times) for one, times in counts.items() if times > 1]
    single = [(batch_key, one) for one, times in counts.items() if times == 1]
    sql.executemany(ADD, shared)
    sql.executemany(ONE_MORE, single)


def begun(connection: Connection, batch_key: int, beginnings: Iterable[bytes]) -> None:
    """A job's first call is made: one job less is to come."""
    sql = driver(connection)
    for one in beginnings:
        sql.execute(ONE_LESS, (batch_key, one))


def all_begun(sql: Driver, begun: Mapping[tuple[int, bytes], int]) -> None:
    """The same for many jobs: how many have begun, by batch and beginning."""
    sql.executemany(LESS, [(key, one, times) for (key, one), times in sorted(begun.items())])


def lead(
    connection: Connection, batch_key: int, beginning: bytes, until_ms: int, now_ms: int
) -> bool:
    """Take it on to write a beginning to the cache; False where another does, or it is there."""
    cursor = driver(connection).execute(LEAD, (batch_key, beginning, until_ms, now_ms))
    return cursor.rowcount == 1


def warmed(connection: Connection, batch_key: int, beginning: bytes, until_ms: int) -> None:
    """The cache holds it, until then."""
    driver(connection).execute(WARMED, (batch_key, beginning, until_ms))


def give_up(connection: Connection, batch_key: int, beginning: bytes, until_ms: int) -> None:
    """The lead that was taken until then came to nothing: another may take it."""
    driver(connection).execute(GIVE_UP, (batch_key, beginning, until_ms))
