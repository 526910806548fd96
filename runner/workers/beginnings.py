"""Jobs that share a long beginning: one call goes ahead and writes it to the cache, others follow.

An entry can be read once the answer to the request that writes it has begun (Source: Messages API
documentation, prompt caching). So the first job goes ahead, and the others of its beginning wait
until its answer begins, or it fails and the next goes ahead. Processes tell each other by a lease
in the store, short, so that one that died keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from runner.jobs.beginnings import Beginning, beginnings
from runner.jobs.spec import JobSpec
from runner.messages.caching import Ttl
from runner.messages.thrift import Bet
from runner.store.prefixes import SharedPrefix
from runner.store.store import Store

FRESH_S: Final = 2.0  # what the store tells is asked for anew after so long
KNOWN_AT_ONCE: Final = 1_000  # beginnings of a batch that are read together
MOST_KEPT: Final = 10_000  # of a batch in memory; a million jobs may share half a million
# A job that finds a cold beginning looks so long whether others turn up that would read it.
COMPANY_S: Final = 0.03
FOLLOW_S: Final = 20.0  # nobody waits longer for another's answer to begin
LEASE_MS: Final = 20_000
POLL_S: Final = 0.25
# An entry is not counted on in its last moments, nor for longer than our clock is sure of.
_TRUST: Final = 0.9
SHARED_MARKS: Final = 2


# Of so many tokens, so many other jobs, and so many that wait.
Worth = Callable[[float, int, int], Bet | None]


@dataclass(slots=True)
class _Prefix:
    """A beginning that jobs of a batch share, as this process knows it."""

    batch_key: int
    hash: bytes
    jobs: int = 0
    warm_until_ms: int = 0
    warming_until_ms: int = 0
    told_warm_until_ms: int = 0  # what the store was told last
    ttl: Ttl = Ttl.MINUTES
    useless: bool = False  # it was marked and not cached
    present: int = 0  # jobs of this process that look at it now
    leader: object | None = None  # the call, or the look into the store, that all wait for
    led_since_s: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self, row: SharedPrefix) -> None:
        self.jobs = row.jobs
        self.warm_until_ms = max(self.warm_until_ms, row.warm_until_ms)
        self.told_warm_until_ms = row.warm_until_ms
        self.warming_until_ms = row.warming_until_ms

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(slots=True)
class Shared:
    """A beginning of one request that others have too, and that is to be marked.

    Args:
        tokens: how long it is, by estimate.
        warm: the cache holds it.
        ttl: how long it is, or is to be, kept.
    """

    beginning: Beginning
    tokens: float
    warm: bool
    ttl: Ttl
    prefix: _Prefix
    home: Beginnings
    lease_until_ms: int | None = None  # this call goes ahead
    stake: float = 0.0  # lost if no other job reads it; 0: some are sure to

    def began(self, cached_tokens: int) -> None:
        """The answer begins, and the API has told what of the request is in the cache now."""
        self.home.answered(self, cached_tokens)

    def close(self) -> None:
        """The call is over, or never was made: whoever waits for it waits no longer."""
        self.home.over(self)


@dataclass(slots=True)
class _Batch:
    prefixes: dict[bytes, _Prefix] = field(default_factory=dict)
    read_at_s: float | None = None
    all_known: bool = True
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Beginnings:
    """The long beginnings of this process's batches."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._batches: dict[int, _Batch] = {}

    async def of(self, batch_key: int, spec: JobSpec) -> tuple[Beginning, ...]:
        """Those of a job's beginnings that other jobs of its batch have, shortest first."""
        found = beginnings(spec)
        if not found:
            return ()
        home = self._batches.setdefault(batch_key, _Batch())
        async with home.reading:  # who comes meanwhile needs not ask
            await self._read(batch_key, home, [one.hash for one in found])
        return tuple(one for one in found if one.hash in home.prefixes)

    async def prepare(
        self,
        batch_key: int,
        found: Sequence[Beginning],
        *,
        first: bool,
        tokens: Callable[[Beginning], float],
        worth: Worth,
    ) -> list[Shared]:
        """What to mark of a request's beginnings, the longest first; waits for one that another
        call is just writing.

        Args:
            first: it is the job's first call.
            tokens: how long a beginning is, by estimate.
            worth: whether a beginning of so many tokens, which so many other jobs have, and for
                which so many wait, is to be written to the cache.
        """
        shared: list[Shared] = []
        for one in reversed(found):
            prefix = self._prefix(batch_key, one.hash)
            if prefix.useless:
                continue
            if shared:
                # A longer one is read or written: whatever is within it costs nothing more.
                warm = self._is_warm(prefix)
                shared.append(Shared(one, tokens(one), warm, prefix.ttl, prefix, self))
            else:
                prefix.present += 1
                prefix.wake()
                try:
                    made = await self._turn(prefix, one, tokens(one), worth, first=first)
                finally:
                    prefix.present -= 1
                if made is not None:
                    shared.append(made)
            if len(shared) == SHARED_MARKS:
                break
        return shared

    def begun(self, batch_key: int, hashes: Sequence[bytes]) -> None:
        """A job's first call is about to be made; the store counts for itself."""
        for one in hashes:
            prefix = self._prefix(batch_key, one)
            prefix.jobs = max(0, prefix.jobs - 1)

    async def _turn(
        self, prefix: _Prefix, one: Beginning, size: float, worth: Worth, *, first: bool
    ) -> Shared | None:
        """How a request stands to its longest beginning: it reads it, goes ahead to write it, or
        (None) is sent without a mark there."""
        until_s = time.monotonic() + FOLLOW_S
        while not prefix.useless:
            if self._is_warm(prefix):
                return Shared(one, size, True, prefix.ttl, prefix, self)
            if prefix.leader is not None:
                # Whoever comes when it is late already does not wait for it all over again.
                until_s = min(until_s, prefix.led_since_s + FOLLOW_S)
            if (left_s := until_s - time.monotonic()) <= 0:
                return None
            if prefix.leader is not None:
                await _wait(prefix.changed, left_s)
                continue
            bet = worth(size, prefix.jobs - first, prefix.present - 1)
            if prefix.present < 2 and (bet is None or bet.stake):
                await _wait(prefix.changed, COMPANY_S)
                if prefix.leader is not None or self._is_warm(prefix):
                    continue
                bet = worth(size, prefix.jobs - first, prefix.present - 1)
            if bet is None:
                return None
            if (until_ms := await self._lead(prefix)) is not None:
                prefix.ttl = bet.ttl
                return Shared(one, size, False, bet.ttl, prefix, self, until_ms, bet.stake)
        return None

    async def _lead(self, prefix: _Prefix) -> int | None:
        """Go ahead: until when others wait, at most. None: another process does."""
        prefix.leader = me = object()
        prefix.led_since_s = time.monotonic()
        until_ms = self._now_ms() + LEASE_MS
        try:
            if await self._store.lead_beginning(prefix.batch_key, prefix.hash, until_ms):
                me = None
                return until_ms
            await asyncio.sleep(POLL_S)
            rows = await self._store.shared_prefixes(prefix.batch_key, [prefix.hash])
            for row in rows:
                prefix.told(row)
            if not rows:
                prefix.useless = True  # its batch was pruned
            return None
        finally:
            if me is not None:
                prefix.leader = None
                prefix.wake()

    async def _read(self, batch_key: int, home: _Batch, hashes: Sequence[bytes]) -> None:
        """Ask the store, unless what it told is fresh or does not matter now."""
        now_s = time.monotonic()
        mine = [home.prefixes[one] for one in hashes if one in home.prefixes]
        if any(map(self._is_warm, mine)) and home.all_known:
            return
        if home.all_known and home.read_at_s is not None and now_s - home.read_at_s < FRESH_S:
            return
        if home.all_known:
            rows = await self._store.shared_prefixes(batch_key, limit=KNOWN_AT_ONCE + 1)
            home.all_known = len(rows) <= KNOWN_AT_ONCE
        else:
            rows = await self._store.shared_prefixes(batch_key, hashes)
        home.read_at_s = now_s
        if len(home.prefixes) > MOST_KEPT:
            self._forget_some(home)
        for row in rows:
            self._prefix(batch_key, row.hash).told(row)

    def _prefix(self, batch_key: int, hash: bytes) -> _Prefix:
        """What is known of a beginning, which may be as good as nothing: it may be forgotten."""
        return self._batches[batch_key].prefixes.setdefault(hash, _Prefix(batch_key, hash))

    def _forget_some(self, home: _Batch) -> None:
        """Forget the older half of the beginnings, but for those that are in use or in the cache.
        What the store tells of them can be asked again."""
        for prefix in list(home.prefixes.values())[: MOST_KEPT // 2]:
            if not (prefix.present or prefix.leader is not None or self._is_warm(prefix)):
                del home.prefixes[prefix.hash]

    def _is_warm(self, prefix: _Prefix) -> bool:
        spare_ms = (1 - _TRUST) * 1000 * prefix.ttl.seconds
        return prefix.warm_until_ms - spare_ms > self._now_ms()

    def answered(self, shared: Shared, cached_tokens: int) -> None:
        """The answer to a marked request begins."""
        prefix = shared.prefix
        if cached_tokens:
            now_ms = self._now_ms()
            prefix.warm_until_ms = max(prefix.warm_until_ms, now_ms + 1000 * shared.ttl.seconds)
            late_ms = prefix.warm_until_ms - prefix.told_warm_until_ms
            leads = shared.lease_until_ms is not None
            if leads or late_ms > 250 * shared.ttl.seconds:
                prefix.told_warm_until_ms = prefix.warm_until_ms
                self._store.beginning_warmed(prefix.batch_key, prefix.hash, prefix.warm_until_ms)
            if leads:
                shared.lease_until_ms = None
                prefix.leader = None
                prefix.wake()
        elif shared.lease_until_ms is not None:
            prefix.useless = True  # it is too short, or this endpoint has no cache

    def over(self, shared: Shared) -> None:
        """A marked request is over, or never was made."""
        if shared.lease_until_ms is None:
            return
        prefix = shared.prefix
        self._store.beginning_given_up(prefix.batch_key, prefix.hash, shared.lease_until_ms)
        shared.lease_until_ms = None
        prefix.leader = None
        prefix.wake()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
