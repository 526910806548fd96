"""Prompt caching for the calls of this process: what is marked, and who writes what others read.

`runner.messages.caching` tells where marks may stand, `runner.messages.thrift` when they pay, and
`runner.workers.beginnings` who goes ahead where jobs share a long beginning. Here it is all put
together for a call, and what the API bills is learned from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runner.continuation import outlook
from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.jobs import spec as jobs
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.price import Rates
from runner.messages.caching import (
    LOOK_BACK_BLOCKS,
    Layout,
    Multiples,
    Place,
    Ttl,
    characters,
    layout,
    mark,
)
from runner.messages.thrift import Bet, Outlook, Thrift
from runner.store.records import BatchRow, Claim, SavedCall
from runner.store.store import Store, wall_clock
from runner.workers.beginnings import Beginnings, Shared
from runner.workers.needs import Need

# The API may bill what was marked as if it had never been marked so: after so many calls in a row
# that were to read and did not, no more is marked in this process.
_MISSES: Final = 3
_WHOLE: Final = 0.97  # counts and estimates of the same tokens differ


@dataclass(slots=True)
class Chain:
    """What is known of one job's own calls.

    Args:
        warm_tokens: what its last marked request has left in the cache.
        warm_until_ms: until then.
        end: characters of the document up to that mark; 0: it stands at the prompt's end.
        answered: calls that the API answered to their end.
        cut: those of them that `max_tokens` cut.
        going_on: the last answer was cut, so the document is not finished.
        spent_tokens: their input in all.
        output_tokens: their output in all.
        stream_s: how long the last answer that was cut has taken.
    """

    warm_tokens: int = 0
    warm_until_ms: int = 0
    end: int = 0
    ttl: Ttl = Ttl.MINUTES
    answered: int = 0
    cut: int = 0
    going_on: bool = True
    spent_tokens: int = 0
    output_tokens: int = 0
    stream_s: float | None = None

    def ended(self, outcome: CallOutcome, stream_s: float) -> None:
        """A call ended."""
        self.spent_tokens += outcome.usage.total_input_tokens
        self.output_tokens += outcome.usage.output_tokens
        if outcome.stop_reason is None:
            return
        self.answered += 1
        self.going_on = outcome.stop_reason == "max_tokens"
        if self.going_on:
            self.cut += 1
            self.stream_s = stream_s

    def warmed(self, tokens: int, end: int, ttl: Ttl, now_ms: int) -> None:
        """A marked request has left so much in the cache."""
        self.warm_tokens, self.end, self.ttl = tokens, end, ttl
        self.warm_until_ms = now_ms + 1000 * ttl.seconds

    @classmethod
    def of(cls, calls: Sequence[SavedCall]) -> Chain:
        """What earlier calls have left, those of other processes too."""
        chain = cls()
        for call in calls:
            if call.outcome is None:
                continue
            stream_ms = (call.ended_ms or call.started_ms) - call.started_ms
            chain.ended(call.outcome, stream_ms / 1000)
            usage = call.outcome.usage
            cached = usage.cache_creation_input_tokens + usage.cache_read_input_tokens
            if cached:
                hour = usage.cache_creation_1h_input_tokens > 0
                ttl = Ttl.HOUR if hour else chain.ttl
                chain.warmed(cached, call.resume_at, ttl, call.started_ms)
        return chain


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
    _desk: _Desk | None = None

    def began(self, usage: Usage) -> None:
        """The answer begins: what was to be written stands in the cache now."""
        if self._desk is not None:
            self._desk.began(usage, self)

    def ended(self, outcome: CallOutcome) -> None:
        """The call is over."""
        if self._desk is not None:
            self._desk.ended(outcome)
        self.close()

    def close(self) -> None:
        """The call is over, or never was made."""
        if self._desk is not None:
            self._desk.close()


@dataclass(slots=True)
class _Desk:
    """Learns from one call what it was billed for."""

    lane: Lane
    chain: Chain
    now_ms: Callable[[], int]
    shared: Sequence[Shared]
    stake: float
    end: int | None  # characters of the document up to the last mark; None: nothing is marked
    ttl: Ttl
    warm_before: bool  # something that is marked should be there already
    input_characters: int
    number: int
    _started_s: float = field(default_factory=time.monotonic)
    _open: bool = True

    def began(self, usage: Usage, marked: Marked) -> None:
        thrift, lane = self.lane.thrift, self.lane
        self._release()
        thrift.purse.billed(usage, thrift.multiples)
        if self.input_characters and usage.total_input_tokens:
            lane.tokens_per_character = usage.total_input_tokens / self.input_characters
        if self.end is None:
            return
        read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        if self.warm_before:
            lane.misses = 0 if read or not written else lane.misses + 1
        if read + written:
            self.chain.warmed(read + written, self.end, self.ttl, self.now_ms())
        for one in self.shared:
            one.began(cached_tokens=read + written)

    def ended(self, outcome: CallOutcome) -> None:
        stream_s = time.monotonic() - self._started_s
        self.chain.ended(outcome, stream_s)
        if outcome.stop_reason is not None:
            cut = outcome.stop_reason == "max_tokens"
            self.lane.thrift.ended(self.number, cut=cut, stream_s=stream_s)

    def close(self) -> None:
        if self._open:
            self._open = False
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
        rates: what a batch's calls to a model cost; None where nobody knows.
    """

    def __init__(
        self,
        store: Store,
        *,
        batch: Callable[[int], BatchRow],
        slots: Callable[[int], int],
        rates: Callable[[int, str], Rates | None],
        now_ms: Callable[[], int] = wall_clock,
    ) -> None:
        self._store = store
        self._batch = batch
        self._slots = slots
        self._rates = rates
        self._now_ms = now_ms
        self._lanes: dict[tuple[int, str], Lane] = {}
        self._chains: dict[int, Chain] = {}
        self._beginnings = Beginnings(store, now_ms)

    def resumed(self, claim: Claim, calls: Sequence[SavedCall]) -> None:
        """A job was claimed that may have had calls before."""
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
        request = _Request(loop, send, body, need, lane.tokens_per_character)
        shared: list[Shared] = []
        if not request.plan.marked_by_user(len(loop.spec.messages)):
            shared = await self._beginnings.prepare(
                claim,
                loop.spec,
                first=send.number == 1,
                thrift=lane.thrift,
                tokens=request.tokens_of,
                call_s=lane.thrift.call_s(send.max_tokens),
                slots=self._slots(claim.batch_key),
                unfinished=self._batch(claim.batch_key).unfinished,
            )
        return self._mark(lane, chain, request, shared, first=send.number == 1)

    def _mark(
        self, lane: Lane, chain: Chain, request: _Request, shared: list[Shared], *, first: bool
    ) -> Marked:
        now_ms, thrift = self._now_ms(), lane.thrift
        before = request.at(chain.end) if chain.warm_until_ms > now_ms else None
        own = chain.warm_tokens if before is not None else 0
        warm = max([own, *(one.tokens for one in shared if one.warm)])
        places = request.places(chain)
        tokens = [request.tokens[place.behind] for place in places]
        number = chain.cut + 1
        gap_s = chain.stream_s or thrift.call_s(request.send.max_tokens)
        bet = thrift.go_on(request.outlook(chain), gap_s, tokens, warm)
        ttl = bet.ttl if bet is not None else chain.ttl
        wanted: list[tuple[Place, Ttl]] = []
        if bet is not None:
            wanted.append((places[bet.at], ttl))
        if before is not None and _needed(before, wanted):
            wanted.append((before, ttl))
        for one in shared:
            place = request.plan.of(one.beginning.message, one.beginning.block)
            longest = Ttl.HOUR if Ttl.HOUR in (one.ttl, ttl) and wanted else one.ttl
            if place is not None and (one.marked or wanted):
                wanted.append((place, longest))
        body, made = mark(request.body, wanted)
        marks = dict(made)
        used = [one for one in shared if request.place_of(one) in marks]
        for one in shared:
            if one not in used:
                one.close()
        if not made:
            return Marked(request.body, beginnings=_hashes(shared, first=first), _desk=self._desk(
                lane, chain, request, [], 0.0, None, ttl, False, number))
        last = max(marks, key=lambda place: place.behind)
        reach = request.tokens[last.behind]
        read = min(warm, reach)
        placed = bet is not None and places[bet.at] in marks
        stake = bet.stake if bet is not None and placed else 0.0
        thrift.purse.staked += stake
        return Marked(
            body,
            cached_tokens=min(request.need.input_tokens, round(read)),
            written_tokens=min(request.need.input_tokens, max(0, round(reach - read))),
            for_an_hour=Ttl.HOUR in marks.values(),
            beginnings=_hashes(shared, first=first),
            _desk=self._desk(
                lane, chain, request, used, stake, request.end_of(last), marks[last], read > 0, number
            ),
        )
