"""What can be wrong in a database file, and how it is found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from sqlalchemy import Executable, Row, text

from runner.store.database import thorough

# The kept counts that are wrong, and those that are missing.
COUNTS_DIFFER: Final = """\
WITH counted AS (
  SELECT batch_key, model, state, coalesce(finish, '') AS finish, count(*) AS jobs
  FROM job GROUP BY 1, 2, 3, 4
), kept AS (
  SELECT batch_key, model, state, finish, jobs FROM job_count WHERE jobs <> 0
)
SELECT 'kept' AS side, * FROM (SELECT * FROM kept EXCEPT SELECT * FROM counted) AS kept_only
UNION ALL
SELECT 'counted', * FROM (SELECT * FROM counted EXCEPT SELECT * FROM kept) AS counted_only
"""
TOTALS_DIFFER: Final = """\
SELECT batch.name FROM batch
LEFT JOIN (
  SELECT job.batch_key, count(*) AS calls, sum(call.input_tokens) AS input_tokens,
    sum(call.cache_creation_input_tokens) AS cache_creation_input_tokens,
    sum(call.cache_read_input_tokens) AS cache_read_input_tokens,
    sum(call.output_tokens) AS output_tokens
  FROM call JOIN job ON job.key = call.job_key WHERE call.ended_ms IS NOT NULL GROUP BY 1
) AS counted ON counted.batch_key = batch.key
WHERE (batch.calls, batch.input_tokens, batch.cache_creation_input_tokens,
    batch.cache_read_input_tokens, batch.output_tokens)
  <> (coalesce(counted.calls, 0), coalesce(counted.input_tokens, 0),
    coalesce(counted.cache_creation_input_tokens, 0),
    coalesce(counted.cache_read_input_tokens, 0), coalesce(counted.output_tokens, 0))
"""
# What is set aside stands for the calls that run; anything else would never be given back.
RESERVED_DIFFERS: Final = """\
SELECT batch.name FROM batch
LEFT JOIN (
  SELECT job.batch_key, sum(call.reserved_nano_usd) AS nano_usd,
    sum(call.reserved_output_tokens) AS output_tokens
  FROM call JOIN job ON job.key = call.job_key WHERE call.ended_ms IS NULL GROUP BY 1
) AS running ON running.batch_key = batch.key
WHERE (batch.reserved_nano_usd, batch.reserved_output_tokens)
  <> (coalesce(running.nano_usd, 0), coalesce(running.output_tokens, 0))
"""

Read = Callable[[Executable], Awaitable[Sequence[Row[Any]]]]


async def problems_found(rows: Read, *, in_file: bool) -> list[str]:
    """What is wrong; empty is well. Reads all of the database.

    Args:
        in_file: the database is a file of SQLite, which may be damaged; a server looks after its
            files and foreign keys itself.
    """
    problems = await _file_problems(rows) if in_file else []
    problems += [
        f"batch {row.batch_key}, {row.model}, {row.state} {row.finish}: "
        f"{row.side} as {row.jobs} jobs, which does not agree"
        for row in await rows(thorough(text(COUNTS_DIFFER)))
    ]
    problems += [
        f"batch '{row.name}': its kept token sums are not those of its calls"
        for row in await rows(thorough(text(TOTALS_DIFFER)))
    ]
    problems += [
        f"batch '{row.name}': what is set aside of its budget is not what its open calls reserved"
        for row in await rows(thorough(text(RESERVED_DIFFERS)))
    ]
    return problems


async def _file_problems(rows: Read) -> list[str]:
    damaged = [
        row.integrity_check
        for row in await rows(text("PRAGMA integrity_check"))
        if row.integrity_check != "ok"
    ]
    orphaned = [
        f"table {row.table}, row {row.rowid}: its row in {row.parent} is missing"
        for row in await rows(text("PRAGMA foreign_key_check"))
    ]
    return damaged + orphaned
