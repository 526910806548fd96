"""How long to wait before a call is tried again: pure arithmetic."""

from __future__ import annotations

from random import Random

from runner.messages.errors import CallError, ErrorKind

BASE_S = 1.0
CAP_S = 300.0
# A limit that named no time still wants more than a moment.
RATE_LIMIT_LEAST_S = 5.0
# The longest wait a server can impose. A fault on its side (a day named where a minute was meant)
# must not stop a night's run; a rate limit is believed longer, for asking early would be hammering.
RETRY_AFTER_CAP_S = 3_600.0
RATE_LIMIT_CAP_S = 86_400.0

_JITTER = 0.1  # so that all who were told the same time do not come back together
_DOUBLINGS = 16  # 2 ** 16 s is beyond any cap; keeps the power small


def delay_s(attempt: int, error: CallError, random: Random) -> float:
    """Seconds to wait before the next try.

    Exponential with full jitter: anything between 0 and the doubled bound, which spreads those who
    failed together best. Never less than what the server asked for, within a cap of
    `RETRY_AFTER_CAP_S` (`RATE_LIMIT_CAP_S` for a rate limit), plus up to a tenth.

    Args:
        attempt: tries that failed in a row before this one; 0 for the first failure.
        error: what went wrong this time.
        random: where the jitter comes from.
    """
    bound = min(CAP_S, BASE_S * 2.0 ** min(max(attempt, 0), _DOUBLINGS))
    delay = random.uniform(0.0, bound)
    limited = error.kind is ErrorKind.RATE_LIMIT
    least = error.retry_after_s
    if least is None:
        least = RATE_LIMIT_LEAST_S if limited else 0.0
    least = min(max(least, 0.0), RATE_LIMIT_CAP_S if limited else RETRY_AFTER_CAP_S)
    return max(delay, least * (1.0 + random.uniform(0.0, _JITTER)))
