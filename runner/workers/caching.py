"""Prompt caching for the calls of this process: what is marked, and what the bills then teach.

`runner.messages.caching` tells where marks may stand, `runner.messages.thrift` when they pay,
`runner.workers.chain` knows a job's own calls and `runner.workers.beginnings` who goes ahead where
jobs share a long beginning. Here they are put together for one call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.jobs import spec as jobs
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.price import Rates
from runner.messages.caching import LOOK_BACK_BLOCKS, Multiples, Place, Ttl, mark
from runner.messages.thrift import Bet, Thrift
from runner.store.records import BatchRow, Claim, SavedCall
from runner.store.store import Store
from runner.workers.beginnings import Beginnings, Shared
from runner.workers.chain import Chain, Request
from runner.workers.needs import Need

# After so many calls in a row that were to read and only wrote, nothing is marked any more: this
# endpoint does not keep what it is paid for keeping.
_MISSES: Final = 3


# A job that was not gone on with for so long was stopped: that says nothing of the batch's rhythm.
_STOPPED_S: Final = 3_600


@dataclass(slots=True)
class Lane:
    """One model in one batch: what was learned of it."""

    thrift: Thrift
    tokens_per_character: float | None = None
    misses: int = 0


@dataclass(slots=True)
class Marked:
    """A request that is marked for the prompt cache, as far as that pays.

    Args:
        body: the request.
        cached_tokens: input expected to be read from the cache.
        written_tokens: input expected to be written to it.
        for_an_hour: it is written for an hour, else for 5 minutes.
        beginnings: before a job's first call, the hashes of the beginnings it shares with others.
    """

    body: Mapping[str, Any]
    cached_tokens: int = 0
    written_tokens: int = 0
    for_an_hour: bool = False
    beginnings: tuple[bytes, ...] = ()
    bill: Bill | None = None

    def began(self, usage: Usage) -> None:
        """The answer begins: what was to be written stands in the cache now."""
        if self.bill is not None:
            self.bill.began(usage)

    def ended(self, outcome: CallOutcome) -> None:
        """The call is over."""
        if self.bill is not None:
            self.bill.ended(outcome)
        self.close()

    def close(self) -> None:
        """The call is over, or never was made."""
        if self.bill is not None:
            self.bill.close()


@dataclass(slots=True)
class Bill:
    """Learns from what one call is billed for, and from how it ends.

    Args:
        shared: the beginnings that are marked.
        stake: what the marks may cost in vain.
        end: characters of the document up to the last mark; None: it stands within the prompt, or
            there is none.
        reads: something that is marked is in the cache already.
        number: the call's, where only calls count that were cut.
    """

    lane: Lane
    chain: Chain
    now_ms: Callable[[], int]
    input_characters: int
    number: int
    shared: Sequence[Shared] = ()
    stake: float = 0.0
    end: int | None = None
    ttl: Ttl = Ttl.MINUTES
    reads: bool = False
    _started_s: float = field(default_factory=time.monotonic)

    def began(self, usage: Usage) -> None:
        lane = self.lane
        self._release()
        lane.thrift.purse.billed(usage, lane.thrift.multiples)
        if self.input_characters and usage.total_input_tokens:
            lane.tokens_per_character = usage.total_input_tokens / self.input_characters
        read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        if self.reads:
            lane.misses = lane.misses + 1 if written and not read else 0
        if self.end is not None and read + written:
            self.chain.warmed(read + written, self.end, self.ttl, self.now_ms())
        for one in self.shared:
            one.began(read + written)

    def ended(self, outcome: CallOutcome) -> None:
        stream_s = time.monotonic() - self._started_s
        self.chain.ended(outcome)
        if outcome.stop_reason is not None:
            cut = outcome.stop_reason == "max_tokens"
            self.lane.thrift.ended(self.number, cut=cut, stream_s=stream_s)

    def close(self) -> None:
        self._release()
        for one in self.shared:
            one.close()

    def _release(self) -> None:
        self.lane.thrift.purse.staked -= self.stake
        self.stake = 0.0


class Caching:
    """Marks requests for the prompt cache.

    Args:
        batch: a batch by its key, as it was read last.
        slots: how many calls of a batch may be open at once.
        rates: what calls of a batch to a model cost; None where nobody knows.
        now_ms: the clock, in milliseconds since 1970; None: the database's.
    """

    def __init__(
        self,
        store: Store,
        *,
        batch: Callable[[int], BatchRow],
        slots: Callable[[int], int],
        rates: Callable[[int, str], Rates | None],
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._store = store
        self._batch = batch
        self._slots = slots
        self._rates = rates
        self._now_ms = now_ms or store.now_ms
        self._lanes: dict[tuple[int, str], Lane] = {}
        self._chains: dict[int, Chain] = {}
        self._beginnings = Beginnings(store, self._now_ms)

    def resumed(self, claim: Claim, calls: Sequence[SavedCall]) -> None:
        """A job was claimed, which may have had calls before."""
        self._chains[claim.job_key] = Chain.of(calls)

    def left(self, claim: Claim) -> None:
        """A job is worked on no more."""
        self._chains.pop(claim.job_key, None)

    async def prepare(
        self, claim: Claim, loop: ContinuationLoop, send: Send, body: Mapping[str, Any], need: Need
    ) -> Marked:
        """The request as it is to be sent. Waits where another call writes what this one can read;
        may be cancelled at any time."""
        minimum = loop.traits.cache_minimum_tokens
        if minimum is None or loop.spec.caching is jobs.Caching.OFF:
            return Marked(body)
        lane = await self._lane(claim, minimum)
        if lane.misses >= _MISSES:
            return Marked(body)
        chain = self._chains.setdefault(claim.job_key, Chain())
        request = Request(loop, send, body, need, lane.tokens_per_character)
        first = send.number == 1
        found = await self._beginnings.of(claim.batch_key, loop.spec)
        shared: list[Shared] = []
        if found and not request.users:
            others = self._batch(claim.batch_key).unfinished - 1
            slots = self._slots(claim.batch_key)
            call_s = lane.thrift.call_s(send.max_tokens)

            def worth(tokens: float, jobs: int, company: int) -> Bet | None:
                return lane.thrift.share(
                    tokens=tokens,
                    jobs=min(jobs, others),
                    others=others,
                    company=company,
                    slots=slots,
                    call_s=call_s,
                )

            shared = await self._beginnings.prepare(
                claim.batch_key, found, first=first, tokens=request.tokens_before, worth=worth
            )
        try:
            marked = self._mark(lane, chain, request, shared)
        except BaseException:
            for one in shared:  # nobody must wait for a call that will never be made
                one.close()
            raise
        if first:
            marked.beginnings = tuple(one.hash for one in found)
            self._beginnings.begun(claim.batch_key, marked.beginnings)
        return marked

    def _mark(self, lane: Lane, chain: Chain, request: Request, shared: Sequence[Shared]) -> Marked:
        thrift = lane.thrift
        now_ms = self._now_ms()
        before = request.at(chain.end) if chain.warm_until_ms > now_ms else None
        warm = max(
            [one.tokens for one in shared if one.warm],
            default=0.0,
        )
        if before is not None:
            warm = max(warm, chain.warm_tokens)
        look = request.outlook(chain)
        gap_s = None
        if chain.began_ms is not None:
            gap_s = max(0, now_ms - chain.began_ms) / 1000
            if gap_s < _STOPPED_S:
                thrift.went_on(gap_s)
        chain.began_ms = now_ms
        places = request.own_places()
        bet = thrift.go_on(look, gap_s, [request.tokens(place) for place in places], warm)
        ttl = chain.ttl if bet is None else bet.ttl
        own: list[tuple[Place, Ttl]] = [] if bet is None else [(places[bet.at], ttl)]
        if before is not None and _apart(before, own):
            own.append((before, ttl))
        ours = [(one, request.place(one.beginning)) for one in shared]
        # An entry for an hour may not stand behind one for 5 minutes.
        hour = bool(own) and ttl is Ttl.HOUR
        within = [(place, Ttl.HOUR if hour else one.ttl) for one, place in ours if place]
        body, made = mark(request.body, request.plan, [*own, *within])
        marks = dict(made)
        bill = Bill(lane, chain, self._now_ms, request.need.input_characters, look.number)
        if not marks:
            for one in shared:
                one.close()
            return Marked(request.body, bill=bill)
        last = max(marks, key=lambda place: place.behind)
        reach = request.tokens(last)
        bill.shared = [one for one, place in ours if place in marks]
        for one, place in ours:
            if place not in marks:
                one.close()
        bill.stake = sum(one.stake for one in bill.shared)
        if bet is not None and places[bet.at] in marks:
            bill.stake += bet.stake
        thrift.purse.staked += bill.stake
        bill.end, bill.ttl, bill.reads = request.end(last), marks[last], warm > 0
        most = request.need.input_tokens
        read = min(round(min(warm, reach)), most)
        return Marked(
            body,
            cached_tokens=read,
            written_tokens=max(0, min(round(reach), most) - read),
            for_an_hour=Ttl.HOUR in marks.values(),
            bill=bill,
        )

    async def _lane(self, claim: Claim, minimum_tokens: int) -> Lane:
        key = (claim.batch_key, claim.model)
        if key not in self._lanes:
            learned = await self._store.learned(*key)
            batch = self._batch(claim.batch_key)
            multiples = Multiples.of(self._rates(*key))
            thrift = Thrift(multiples, minimum_tokens)
            for row in learned:
                thrift.ended(
                    row.number, cut=True, times=row.cut_calls, stream_s=row.stream_ms / 1000
                )
                thrift.ended(row.number, cut=False, times=row.calls - row.cut_calls, stream_s=0)
            # What earlier processes have lost counts; what they have won is not staked again.
            thrift.purse.billed(batch.usage, multiples)
            thrift.purse.saved = min(0.0, thrift.purse.saved)
            self._lanes.setdefault(key, Lane(thrift))
        return self._lanes[key]


def _apart(before: Place, marks: Sequence[tuple[Place, Ttl]]) -> bool:
    """Whether a read would not find an earlier mark by looking back from the new one."""
    return all(place.behind - before.behind >= LOOK_BACK_BLOCKS for place, _ in marks)
