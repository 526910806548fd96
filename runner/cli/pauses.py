"""What is said of a paused batch: why, and how it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.store.records import BatchRow


def pause_words(row: BatchRow) -> str:
    """That a batch is paused, in few words, for a display that is drawn over and over."""
    return f"{row.name} is paused ({row.paused})"


def pause_line(row: BatchRow) -> str:
    """One line about a batch that is paused; may quote its owner and the API."""
    from runner.store.records import PauseCause

    reason = f": {row.pause_reason}" if row.pause_reason else ""
    mend = {
        PauseCause.USER: f"`runner resume {row.name}` lets it go on",
        PauseCause.CREDENTIALS: "mend the key, then `runner run` or `runner work` goes on",
        PauseCause.SPEND_CAP: "raise the limit or wait for its end, then `runner run` or "
        "`runner work` goes on",
        PauseCause.BUDGET: "raise it in the job file, and the same `runner run` goes on; or raise "
        f"it with `runner limits {row.name} --max-cost-usd X` (or --max-output-tokens), and "
        "`runner work` goes on",
        PauseCause.BREAKER: "`runner show JOB` tells what the API said of one. Once it is mended, "
        f"`runner retry --batch {row.name} --state discarded` puts the failed ones back, and "
        f"`runner resume {row.name}` or the same `runner run` goes on",
        PauseCause.COPY: "`runner db copy --help` tells more",
    }
    return f"{pause_words(row)}{reason}; {mend[row.paused or PauseCause.USER]}"
