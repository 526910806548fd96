"""Calls that nobody can end any more: their process died, or their job was taken from them.

Nobody counted their tokens, so they are estimated by what stands in their rows and by what the
calls of their batch have been like; docs/money.md tells the arithmetic.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, bindparam, func, select

from runner.jobs.call import CallOutcome, Charge
from runner.store.bare import quick
from runner.store.calls import close
from runner.store.learned import pattern
from runner.store.rows import rates_of, usage_of
from runner.store.schema import call, chunk

# A call without a checkpoint was thinking, or waited for its first token, or for the checkpoint
# behind it: half of its thinking, and what it may have written by then.
BEFORE_CHECKPOINT_MS: Final = 75

OPEN_CALL: Final = select(call).where(
    call.c.job_key == bindparam("of_job"), call.c.ended_ms.is_(None)
)
HAS_OPEN_CALL: Final = OPEN_CALL.with_only_columns(call.c.key)
SAVED_CHARACTERS: Final = select(func.coalesce(func.sum(func.length(chunk.c.text)), 0)).where(
    chunk.c.job_key == bindparam("of_job"), chunk.c.call_key == bindparam("of_call")
)


def break_open_call(
    connection: Connection, batch_key: int, job_key: int, now_ms: int, error: str
) -> None:
    """End the job's call that is still open as a broken one; no change where none is.

    Its input is what the API had told, else what was expected. Its output is the saved text, and
    what its row tells since the first checkpoint of what no text will tell: thinking, words left
    out, and what is on its way to be saved at any moment.
    """
    if not quick(connection, HAS_OPEN_CALL, {"of_job": job_key})[0]:
        return  # as nearly always
    for row in connection.execute(OPEN_CALL, {"of_job": job_key}).all():
        characters = connection.execute(
            SAVED_CHARACTERS, {"of_job": job_key, "of_call": row.key}
        ).scalar_one()
        usual = pattern(connection, batch_key, row.model)
        beside, lost = row.output_tokens, row.lost_output_tokens
        if not characters:
            beside = lost = round(
                usual.thinking_tokens / 2 + usual.tokens_per_ms * BEFORE_CHECKPOINT_MS
            )
        output = beside + round(characters * usual.tokens_per_character)
        usage = replace(usage_of(row), output_tokens=min(output, row.max_tokens), estimated=True)
        rates = rates_of(row)
        charge = Charge(
            cost_nano_usd=None if rates is None else rates.cost(usage),
            prompt_tokens=usage.total_input_tokens if row.resume_at == 0 else row.prompt_tokens,
            lost_output_tokens=min(lost, usage.output_tokens),
        )
        outcome = CallOutcome(stop_reason=None, usage=usage, error=error, charge=charge)
        close(connection, batch_key, job_key, row.key, outcome, now_ms)
