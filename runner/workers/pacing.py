"""When calls may start: the rate limits that the calls of this process share with others."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

import anyio

from runner.errors import CoolingDown, StoreError
from runner.jobs.call import Usage
from runner.messages import backoff
from runner.messages.errors import CallError, ErrorKind
from runner.messages.headers import RateLimits
from runner.messages.pace import (
    Flight,
    Limit,
    Member,
    PerMinute,
    batch_limit_key,
    limit_key,
    rate_class,
    share,
)
from runner.store.pace import DOWN
from runner.store.records import BatchRow, Claim, LimitSeen, LimitUse
from runner.store.store import Store
from runner.workers.caching import Marked
from runner.workers.gate import Cap, Gate, Waiter
from runner.workers.needs import Need

log = logging.getLogger(__name__)

BEAT_S: Final = 1.0  # between two looks at the other processes and the batches' limits
# Claimed jobs may stand ready for what can start within so long; others stay in the queue.
AHEAD_S: Final = 1.0
TOLD_EVERY_S: Final = 0.1  # between two looks at what a stream brought
NOT_SENT: Final = "not_sent"
_ACCELERATION: Final = "ramp_limit_exceeded"
# These are never a job's doing.
_SERVERS_OWN_STATUSES: Final = frozenset({502, 503, 504, 529})
_SERVERS_OWN_TYPES: Final = frozenset({"overloaded_error", "unreachable"})


@dataclass(slots=True)
class Permit:
    """Leave to make one call. Closed once, when the call is over or was never made.

    Args:
        limit_key: the rate limits it falls under.
        probe_ms: the API is down, and this call tries it: others wait for so long.
    """

    limit_key: str
    gate: Gate
    waiter: Waiter
    flight: Flight
    probe_ms: int = 0
    _untold_characters: int = 0
    _told_s: float = -math.inf

    def check(self) -> None:
        """The last look before the request is sent.

        Raises:
            CallError: the limit must rest since the leave was given.
        """
        rest_s = self.gate.limit.cooling_s(self.gate.now_s())
        if rest_s > 0:
            raise CallError(
                ErrorKind.RATE_LIMIT,
                f"The rate limit was met by another call just before this one was sent "
                f"[{NOT_SENT}]",
                type=NOT_SENT,
                retry_after_s=rest_s,
            )

    def failed(self, error: CallError) -> None:
        """The call failed; said at once, before another takes its place."""
        if error.kind is ErrorKind.RATE_LIMIT and error.type != NOT_SENT:
            asked_s = error.retry_after_s
            rest_s = backoff.RATE_LIMIT_LEAST_S
            if asked_s is not None:
                rest_s = min(asked_s, backoff.RATE_LIMIT_CAP_S)
            self.gate.limit.cool_down(rest_s, self.gate.now_s())
        elif error.kind is not ErrorKind.RETRY and error.type != NOT_SENT:
            self.gate.answers()

    def began(self, rate_limits: RateLimits) -> None:
        """The answer's headers came."""
        self.gate.answered(self.flight, rate_limits)

    def counted(self, usage: Usage) -> None:
        """The API has told how the input is billed."""
        self.gate.read(self.waiter, usage.input_tokens + usage.cache_creation_input_tokens)

    def wrote(self, characters: int) -> None:
        """So many more characters were written."""
        self._untold_characters += characters
        now_s = self.gate.now_s()
        # Hundreds of streams, dozens of pieces a second each: all that is counted ten times.
        if now_s - self._told_s >= TOLD_EVERY_S:
            self._told_s = now_s
            self.gate.wrote(self.waiter, self._untold_characters)
            self._untold_characters = 0

    def close(self, usage: Usage | None) -> None:
        """The call is over; None: it was never made."""
        if usage is None:
            self.gate.cancel(self.waiter)
        else:
            self.gate.end(self.waiter, usage.output_tokens, exact=not usage.estimated)


@dataclass(frozen=True, slots=True)
class Rest:
    """No call may start for so long: longer than a job is worth holding."""

    seconds: float


class Pacing:
    """Gives leave to make calls, at the pace that rate limits allow.

    Args:
        endpoint, credential: whose limits they are; of the credential a fingerprint.
        notice: told what the user should know, in words.
        room: called when more calls may start than before.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        endpoint: str,
        credential: str,
        *,
        notice: Callable[[str], None],
        room: Callable[[], None],
        random: Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._endpoint = endpoint
        self._credential = credential
        self._notice = notice
        self._room = room
        self._random = random
        self._clock = clock
        self._gates: dict[str, Gate] = {}
        self._keys: dict[str, str] = {}
        self._caps: dict[int, Cap] = {}
        self._wished: dict[str, int] = {}
        self._last: dict[int, tuple[Gate, Flight]] = {}  # each job's last call
        self._new = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()

    # for whoever claims jobs

    def key(self, model: str) -> str:
        """The limit that calls to `model` fall under."""
        if model not in self._keys:
            name = rate_class(model)
            self._keys[model] = limit_key(self._credential, self._endpoint, name)
        return self._keys[model]

    def room(self, batch_key: int, model: str, running: int) -> int:
        """How many more jobs may be claimed, so that their calls start soon.

        Args:
            running: jobs of this process whose calls fall under the same limit, those left out that
                make no more calls.
        """
        gate = self._gate(model)
        soon = gate.soon(AHEAD_S, self._caps.get(batch_key))
        return max(0, soon - (running - gate.limit.in_flight))

    def wish(self, wished: Mapping[str, int]) -> None:
        """Say, by limit, how many jobs would run if the limits were all this process's own."""
        self._wished = dict(wished)

    # for whoever makes calls

    async def enter(
        self,
        claim: Claim,
        need: Need,
        marked: Marked,
        *,
        begun: bool,
        let_go: Callable[[], bool],
    ) -> Permit | Rest:
        """Leave for one call, when its time has come; may be cancelled at any time.

        Args:
            begun: its document was begun, so it goes before others.
            let_go: whether it need not wait any more; then it gets a rest of no time.
        """
        gate = self._gate(claim.model)
        waiter = Waiter(
            input_tokens=max(0, need.input_tokens - marked.cached_tokens),
            output_tokens=need.output_tokens,
            begun=begun,
            let_go=let_go,
            cap=self._caps.get(claim.batch_key),
        )
        granted = gate.wait(waiter)
        try:
            flight = await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                gate.cancel(waiter)
            raise
        finally:
            gate.leave(waiter)
        if isinstance(flight, float):
            return Rest(flight)
        self._last[claim.job_key] = (gate, flight)
        probe_s = gate.limit.outage.distance_s(self._clock()) if gate.limit.outage.on else 0.0
        return Permit(gate.key, gate, waiter, flight, round(1000 * probe_s))

    def left(self, claim: Claim) -> None:
        """Nobody works on the job any more."""
        gate, flight = self._last.pop(claim.job_key, (None, None))
        if gate is not None and flight is not None and flight.succeeded:
            gate.job_ended()

    def cooling(self, claim: Claim, cooling: CoolingDown) -> None:
        """The database knows of a rest that this process does not know of yet."""
        gate = self._gate(claim.model)
        self._hear_rest(gate, cooling.seconds, str(cooling))

    async def limited(self, claim: Claim, error: CallError, seconds: float) -> bool:
        """The API refused a call for its rate: all that share the limit rest for so long, in every
        process. Whether it is the first of those that were refused together."""
        gate, flight = self._last_call(claim)
        if error.type == NOT_SENT or flight is None:
            return False
        first = gate.limit.limited(
            flight,
            error.rate_limits,
            min(seconds, 1.1 * backoff.RATE_LIMIT_CAP_S),
            self._clock(),
            acceleration=error.type == _ACCELERATION,
        )
        gate.pump()
        await self._store.cool_down(gate.key, gate.limit.name, seconds, str(error))
        return first

    async def failed(self, claim: Claim, error: CallError) -> float | None:
        """A call came to nothing for a reason that another try may mend. Where that says nothing
        of the job, because the API is down for all, the seconds after which to try again."""
        gate, flight = self._last_call(claim)
        if flight is None:
            return None
        limit, now_s = gate.limit, self._clock()
        servers_own = error.status in _SERVERS_OWN_STATUSES or error.type in _SERVERS_OWN_TYPES
        begins = limit.failed(flight, str(error), now_s, servers_own=servers_own)
        rest_s = limit.outage.rest_s(now_s)
        if begins:
            self._notice(
                f"{limit.name}: the API is down, so all calls wait and it is tried now and then "
                f"({error})"
            )
        gate.pump()
        if limit.outage.on and not flight.succeeded:
            await self._store.cool_down(gate.key, limit.name, rest_s, DOWN + str(error))
        if flight.succeeded:
            return None
        # A server that takes requests and says nothing may be choking on this one; not while it
        # says nothing to anybody.
        silent = error.type == "timeout" and limit.outage.on
        return rest_s if silent or (servers_own and limit.outage.stormy) else None

    # what the processes tell each other

    async def keep(self, worker_id: str, batches: Callable[[], Awaitable[list[BatchRow]]]) -> None:
        """Share the limits with the other processes, for as long as this one works.

        Args:
            batches: gives the batches that are worked on, as they are in the database now.
        """
        while True:
            self._new.clear()
            self.set_batches(await batches())
            await self.beat(worker_id)
            with anyio.move_on_after(BEAT_S):
                await self._new.wait()

    def set_batches(self, batches: Iterable[BatchRow]) -> None:
        """Take the batches' own limits over, as they are now."""
        now_s = self._clock()
        for batch in batches:
            key, limits = batch.key, batch.limits
            caps = PerMinute(
                limits.requests_per_minute,
                limits.input_tokens_per_minute,
                limits.output_tokens_per_minute,
            )
            cap = self._caps.get(key)
            if cap is None:
                cap = self._caps[key] = Cap(batch_limit_key(key), f"batch {batch.name}", now_s)
                self._new.set()
            if cap.per_minute != caps:
                cap.change(caps, now_s)
                for gate in self._gates.values():
                    gate.pump()

    async def beat(self, worker_id: str) -> None:
        """Tell what this process uses, hear what the others tell."""
        uses = [self._use(gate) for gate in self._gates.values()]
        uses += [
            LimitUse(
                cap.key,
                cap.name,
                self._wished.get(cap.key, 0),
                cap.in_flight,
                cap.per_minute.requests,
                cap.per_minute.input_tokens,
                cap.per_minute.output_tokens,
            )
            for cap in self._caps.values()
            if cap.per_minute
        ]
        try:
            seen = await self._store.share_limits(worker_id, uses) if uses else []
        except StoreError as error:
            log.warning("limits could not be shared: %s", error)
            return
        by_key = {limit.limit_key: limit for limit in seen}
        for gate in self._gates.values():
            if (limit := by_key.get(gate.key)) is not None:
                self._hear(gate, limit, worker_id)
            gate.pump()
        for cap in self._caps.values():
            if (limit := by_key.get(cap.key)) is not None:
                cap.rates.set_share(_share(limit, worker_id), self._clock())
        self._room()

    def _use(self, gate: Gate) -> LimitUse:
        known = gate.limit.rates.per_minute
        in_flight = gate.limit.in_flight
        return LimitUse(
            gate.key,
            gate.limit.name,
            max(in_flight + gate.waiting, self._wished.get(gate.key, 0)),
            in_flight,
            known.requests,
            known.input_tokens,
            known.output_tokens,
        )

    def _hear(self, gate: Gate, seen: LimitSeen, worker_id: str) -> None:
        limit, now_s = gate.limit, self._clock()
        told = PerMinute(
            seen.requests_per_minute, seen.input_tokens_per_minute, seen.output_tokens_per_minute
        )
        if not limit.rates.per_minute:
            limit.rates.set_limits(told, now_s)
        limit.rates.set_share(_share(seen, worker_id), now_s)
        if seen.cooled_s > 0:
            self._hear_rest(gate, seen.cooled_s, seen.cause or "")
        elif limit.outage.age_s(now_s) > 2 * BEAT_S and not (seen.cause or "").startswith(DOWN):
            # (A younger one may not have been written down when this was read.)
            self._tell_end(gate, limit.end_outage(now_s), shared=False)

    def _hear_rest(self, gate: Gate, seconds: float, cause: str) -> None:
        if cause.startswith(DOWN):
            gate.limit.join_outage(cause.removeprefix(DOWN), seconds, self._clock())
        else:
            # Not all processes come back in the same moment.
            jitter_s = self._random.uniform(0.0, min(1.0, 0.1 * seconds))
            gate.limit.cool_down(seconds + jitter_s, self._clock(), slack_s=1.0)
        gate.pump()

    def _tell_end(self, gate: Gate, lasted_s: float | None, *, shared: bool = True) -> None:
        if lasted_s is None:
            return
        self._notice(f"{gate.limit.name}: the API answers again, after {lasted_s:,.0f} s")
        if shared:
            task = asyncio.ensure_future(self._store.end_outage(gate.key))
            self._tasks.add(task)
            task.add_done_callback(self._told)
        self._room()

    def _told(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the end of an outage could not be told: %s", error)

    def _gate(self, model: str) -> Gate:
        key = self.key(model)
        gate = self._gates.get(key)
        if gate is None:
            limit = Limit(rate_class(model), self._clock(), self._random)
            gate = self._gates[key] = Gate(
                key, limit, self._clock, room=self._room, answers_again=self._tell_end
            )
            self._new.set()  # others may share it
        return gate

    def _last_call(self, claim: Claim) -> tuple[Gate, Flight | None]:
        gate, flight = self._last.pop(claim.job_key, (self._gate(claim.model), None))
        return gate, flight


def _share(seen: LimitSeen, worker_id: str) -> float:
    members = {name: Member(*counts) for name, counts in seen.members.items()}
    return share(members, worker_id)
