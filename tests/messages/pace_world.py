"""A world in which time is an event queue: a server with real limits, and processes that pace.

The server is the simulator's own rate limiter. Nothing here sleeps: an hour passes in seconds.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from runner.messages.headers import RateLimits
from runner.messages.pace import Flight, Limit, Member, share
from runner.simulator.limits import RateLimits as ServerLimits
from runner.simulator.problems import ApiProblem

PIECE_S = 0.05  # between two pieces of a stream
BEAT_S = 1.0  # between two looks at the other processes


@dataclass(frozen=True)
class Setting:
    """What the world is like.

    Args:
        told: the server sends rate-limit headers.
        foreign_per_s: output tokens a second that somebody else writes under the same limit.
        guess: what is expected of a call's tokens, as a factor of what comes on average.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    burst_s: float = 60.0
    processes: int = 1
    concurrency: int = 1000
    call_input: tuple[int, int] = (500, 1500)
    call_output: tuple[int, int] = (200, 600)
    tokens_per_s: tuple[float, float] = (80.0, 80.0)
    first_token_s: float = 0.5
    trip_s: float = 0.03
    begin_s: tuple[float, float] = (0.002, 0.03)
    told: bool = True
    guess: float = 1.0
    characters_per_token: float = 5.0
    used_up: bool = False  # the server's buckets hold a second's worth at first
    most_in_flight: int = 0  # the server refuses more than so many open calls; 0: it does not care
    seed: int = 0


@dataclass
class Seen:
    """What the server saw: of each second, what it took."""

    requests: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    input_tokens: dict[int, float] = field(default_factory=dict)
    output_tokens: dict[int, float] = field(default_factory=dict)
    too_early: int = 0  # requests sent although their process knew of a cool-down

    def per_minute(self, what: Mapping[int, float], start_s: int, end_s: int) -> float:
        return sum(what.get(s, 0) for s in range(start_s, end_s)) * 60 / (end_s - start_s)


def _add(what: dict[int, float], now_s: float, amount: float) -> None:
    what[int(now_s)] = what.get(int(now_s), 0) + amount


class World:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.now_s = 0.0
        self.random = Random(setting.seed)
        self.seen = Seen()
        self.server = ServerLimits(
            {
                "requests": setting.requests,
                "input-tokens": setting.input_tokens,
                "output-tokens": setting.output_tokens,
            },
            setting.burst_s,
            0.0,
        )
        for bucket in self.server._buckets.values():
            if setting.used_up:
                bucket.level = min(bucket.level, bucket.limit / 60)
        self.in_flight = 0
        self.down = False
        self.cooled_until_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.processes = [Process(self, f"p{n}") for n in range(setting.processes)]

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + seconds, next(self._count), event))

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
        self.now_s = until_s

    def headers(self) -> RateLimits:
        if not self.setting.told:
            return RateLimits()
        return RateLimits.from_headers(self.server.headers(self.now_s))


class Process:
    """One process: has always more jobs than it may begin, unless `jobs` says how many are left."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.limit = Limit(name, 0.0, Random(f"{world.setting.seed}{name}"))
        self.jobs = 10**9
        self.alive = True
        self.sent = 0
        self._pump_at = -1.0
        self._next: tuple[int, int] | None = None
        world.after(0.0, self.beat)
        world.after(0.0, self.pump)

    def _amounts(self) -> tuple[int, int]:
        if self._next is None:
            setting, random = self.world.setting, self.world.random
            self._next = (random.randint(*setting.call_input), random.randint(*setting.call_output))
        return self._next

    def beat(self) -> None:
        """Look at the other processes, as often as the real ones do."""
        if not self.alive:
            return
        members = {
            process.name: Member(process.limit.in_flight, process.wished())
            for process in self.world.processes
            if process.alive and process.wished()
        }
        self.limit.rates.set_share(share(members, self.name), self.world.now_s)
        self.world.after(BEAT_S, self.beat)

    def wished(self) -> int:
        return min(self.world.setting.concurrency, self.limit.in_flight + self.jobs)

    def pump(self) -> None:
        world, setting = self.world, self.world.setting
        while self.alive and self.jobs and self.limit.in_flight < setting.concurrency:
            amounts = self._amounts()
            mean = sum(setting.call_output) / 2
            expected_in, expected_out = amounts[0] * setting.guess, mean * setting.guess
            wait_s = self.limit.wait_s(expected_in, expected_out, world.now_s)
            if wait_s > 0:
                self._pump_after(wait_s)
                return
            self._next = None
            self.jobs -= 1
            world.seen.too_early += world.now_s < world.cooled_until_s
            flight = self.limit.start(expected_in, expected_out, world.now_s)
            self.sent += 1
            delay_s = world.random.uniform(*setting.begin_s) + setting.trip_s / 2

            def arrive(flight: Flight = flight, amounts: tuple[int, int] = amounts) -> None:
                Call(self, flight, *amounts).arrive()

            world.after(delay_s, arrive)

    def _pump_after(self, wait_s: float) -> None:
        world = self.world
        at_s = world.now_s + min(wait_s, 0.25) + 1e-9
        if not world.now_s < self._pump_at <= at_s:
            self._pump_at = at_s

            def pump() -> None:
                self._pump_at = -1.0
                self.pump()

            world.after(at_s - world.now_s, pump)


class Call:
    def __init__(self, process: Process, flight: Flight, input_tokens: int, output: int) -> None:
        self.process, self.world, self.flight = process, process.world, flight
        self.input_tokens, self.output = input_tokens, output
        self.limit = process.limit

    def arrive(self) -> None:
        world = self.world
        _add(world.seen.requests, world.now_s, 1)
        half_s = world.setting.trip_s / 2
        if world.down:
            world.after(half_s, self.failed)
            return
        try:
            if 0 < world.setting.most_in_flight <= world.in_flight:
                raise ApiProblem(429, "rate_limit_error", "busy", retry_after_s=2)  # noqa: TRY301
            world.server.admit(self.input_tokens, world.now_s)
        except ApiProblem as problem:
            _add(world.seen.refused, world.now_s, 1)
            retry_after_s = float(math.ceil(problem.retry_after_s or 0))
            headers = world.headers()
            # From when the answer is there; what is on its way by then nobody can call back.
            until_s = world.now_s + retry_after_s

            def refused() -> None:
                world.cooled_until_s = max(world.cooled_until_s, until_s)
                for process in world.processes:
                    process.limit.cool_down(retry_after_s * 1.05, world.now_s)
                self.limit.limited(self.flight, headers, retry_after_s * 1.05, world.now_s)
                self.limit.end(self.flight, 0, world.now_s, exact=False, success=False)
                self.process.jobs += 1
                self.process.pump()

            world.after(half_s, refused)
            return
        world.in_flight += 1
        _add(world.seen.input_tokens, world.now_s, self.input_tokens)
        headers, at = world.headers(), datetime.now(UTC)

        def answered() -> None:
            self.limit.answered(self.flight, headers, world.now_s, at)
            self.limit.rates.read(self.flight.taken, self.input_tokens, world.now_s)
            self.process.pump()

        world.after(half_s, answered)
        self.speed = world.random.uniform(*world.setting.tokens_per_s)
        self.left = float(self.output)
        world.after(world.setting.first_token_s, self.piece)

    def piece(self) -> None:
        world = self.world
        tokens = min(self.left, self.speed * PIECE_S)
        self.left -= tokens
        world.server.spend_output(tokens, world.now_s)  # type: ignore[arg-type]
        _add(world.seen.output_tokens, world.now_s, tokens)
        characters = round(tokens * world.setting.characters_per_token)

        def wrote() -> None:
            self.limit.wrote(self.flight, characters, world.now_s)

        world.after(world.setting.trip_s / 2, wrote)
        if self.left > 1e-9:
            world.after(PIECE_S, self.piece)
        else:
            world.in_flight -= 1
            world.after(world.setting.trip_s / 2, self.ended)

    def ended(self) -> None:
        self.limit.end(self.flight, self.output, self.world.now_s, exact=True, success=True)
        self.process.pump()

    def failed(self) -> None:
        world = self.world
        self.limit.failed(self.flight, "529", world.now_s, servers_own=True)
        self.limit.end(self.flight, 0, world.now_s, exact=False, success=False)
        self.process.jobs += 1
        self.process.pump()
