"""What keeps calls within rate limits: pure bookkeeping, which never sleeps and sends nothing.

`bucket` fills all the time; `rates` are the buckets of one limit, with `streamed` for output;
`level` is how many calls may be open; `outage` holds calls while the server is down; `limit` puts
them together; `shares` divides a limit among processes; `classes` says which calls share one.
"""

from runner.messages.pace.classes import batch_limit_key, fingerprint, limit_key, rate_class
from runner.messages.pace.limit import Flight, Limit
from runner.messages.pace.rates import Kind, PerMinute, Rates
from runner.messages.pace.shares import Member, share

__all__ = [
    "Flight",
    "Kind",
    "Limit",
    "Member",
    "PerMinute",
    "Rates",
    "batch_limit_key",
    "fingerprint",
    "limit_key",
    "rate_class",
    "share",
]
