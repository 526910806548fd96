"""A thousand random runs with crashes: what a batch spent never passes its budget.

Each run is a batch with a small budget, a handful of jobs, and three processes that claim, begin,
save, end and settle as they please; the API bills anything up to the most that a call can cost.
Processes die before a commit, after it, and in the middle of a call; others rescue what they held;
zombies write with claims that are long over; the owner cancels, retries, replaces, prunes and
raises the budget. The store's own operations do the work, on a database in memory.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, make_url

from runner.errors import ClaimLost
from runner.jobs.call import CallOutcome, Charge, Usage
from runner.jobs.price import Price, Rates
from runner.jobs.spec import BatchLimits, BatchSpec
from runner.jobs.states import Finish, State
from runner.store import calls, claims, migrate, orders, rescue, settle, submit
from runner.store.records import (
    CallStart,
    Claim,
    Counted,
    Lane,
    OnConflict,
    PauseCause,
    Refusal,
    Reservation,
    Selection,
    Settlement,
)
from runner.store.schema import batch
from runner.store.server import PostgresServer
from tests.store.hands import make_spec, postgres_only

RUNS = 1_000
STEPS = 32
WORKERS = ("w0", "w1", "w2")
RATES = Rates(1_000_000_000, 5_000_000_000, 1_250_000_000, 2_000_000_000, 100_000_000)
DEARER = Rates(5_000_000_000, 25_000_000_000, 6_250_000_000, 10_000_000_000, 500_000_000)
PRICES = (Price(RATES), Price(RATES, ((150, DEARER),)))
LOOK = """\
SELECT batch.cost_nano_usd, batch.reserved_nano_usd, batch.reserved_output_tokens,
  coalesce(sum(call.reserved_nano_usd), 0), coalesce(sum(call.reserved_output_tokens), 0)
FROM batch LEFT JOIN call ON ended_ms IS NULL GROUP BY batch.key
"""
SETTLEMENTS = (
    Settlement(State.AVAILABLE),
    Settlement(State.COMPLETED, Finish.END_TURN),
    Settlement(State.COMPLETED, Finish.MAX_CALLS),
    Settlement(State.DISCARDED, error="cannot work"),
    Settlement(State.RETRYABLE, error="529"),
    Settlement(State.SCHEDULED, error="waits"),
)


class Died(Exception):
    """The process died in the middle of a transaction."""


@dataclass
class OpenCall:
    claim: Claim
    key: int
    start: CallStart
    price: Price
    most_input: int


@dataclass
class Worker:
    id: str
    held: list[Claim] = field(default_factory=list)
    open: list[OpenCall] = field(default_factory=list)


@dataclass
class Run:
    """One run; `random` decides everything."""

    connection: Connection
    ask: Callable[[str], Sequence[Any]]  # the same, bare
    random: Random
    max_nano_usd: int = 0
    batch_key: int = 0
    workers: list[Worker] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    zombies: list[tuple[Claim, OpenCall | None]] = field(default_factory=list)
    now_ms: int = 1_750_000_000_000
    started: int = 0
    refused: int = 0
    spent: int = 0
    numbers: int = 0

    def transaction(self, *operations: Callable[[], Any]) -> list[Any]:
        """What the writer does: operations of several tasks in one commit. One that is refused
        does not spoil its neighbours; where the process dies before the commit, all are undone."""
        dies = self.random.random() < 0.04
        answers: list[Any] = []
        with self.connection.begin() as transaction:
            for operation in operations:
                try:
                    answers.append(operation())
                except ClaimLost as lost:
                    answers.append(lost)
            if dies:
                transaction.rollback()
                raise Died
        self.look()
        return answers

    def look(self) -> None:
        """What must hold after every commit."""
        cost, reserved, reserved_output, *running = self.looked()
        assert [reserved, reserved_output] == running
        assert cost + reserved <= self.max_nano_usd
        assert cost >= self.spent, "money that was spent is forgotten"
        self.spent = cost

    def looked(self) -> tuple[int, ...]:
        (row,) = self.ask(LOOK)
        return tuple(map(int, row))

    # the owner

    def submit(self, *, conflict: OnConflict = OnConflict.KEEP, stop: str = "") -> None:
        limits = BatchLimits(max_cost_nano_usd=self.max_nano_usd)
        spec = BatchSpec("b", limits)
        jobs = [make_spec(f"j{n}", stop_sequences=(stop,) if stop else ()) for n in range(5)]

        def put() -> None:
            self.batch_key = submit.put_batch(self.connection, spec, False, self.now_ms)
            (portion,) = submit.slices(iter(jobs))
            submit.put_slice(self.connection, spec, self.batch_key, portion, conflict, self.now_ms)

        with self.connection.begin():
            put()

    def order(self) -> None:
        everything = Selection(batch="b")
        match self.random.randrange(6):
            case 0:
                self.transaction(lambda: orders.cancel(self.connection, everything, 0, self.now_ms))
            case 1:
                afresh = self.random.random() < 0.5
                self.transaction(
                    lambda: orders.retry(self.connection, everything, 0, self.now_ms, afresh=afresh)
                )
            case 2:
                self.transaction(lambda: orders.prune(self.connection, everything, 0))
            case 3:
                self.submit(conflict=OnConflict.REPLACE, stop=f"s{self.random.randrange(99)}")
            case 4:
                self.max_nano_usd += self.random.randrange(self.max_nano_usd)
                self.submit()
            case _:
                self.lift()

    def lift(self) -> None:
        def lifted() -> None:
            self.connection.execute(
                batch.update()
                .where(batch.c.paused == PauseCause.BUDGET)
                .values(paused=None, pause_reason=None)
            )

        self.transaction(lifted)

    # processes

    def start_worker(self) -> None:
        worker = Worker(f"w{self.started}")
        self.started += 1
        self.transaction(
            lambda: rescue.register(self.connection, worker.id, "here", 1, self.now_ms, 60_000)
        )
        self.workers.append(worker)

    def die(self, worker: Worker) -> None:
        """A process that is gone; its calls of old may still reach the database."""
        self.workers.remove(worker)
        self.dead.append(worker.id)
        self.zombies += [(call.claim, call) for call in worker.open]
        calling = [call.claim for call in worker.open]
        self.zombies += [(claim, None) for claim in worker.held if claim not in calling]

    def rescue(self) -> None:
        if self.dead:
            victim = self.random.choice(self.dead)
            self.transaction(lambda: rescue.rescue(self.connection, victim, 9, self.now_ms, None))
            self.dead.remove(victim)

    def claim(self, worker: Worker) -> None:
        lanes = [Lane(self.batch_key, "m", 3)]
        (found,) = self.transaction(
            lambda: claims.claim(self.connection, worker.id, lanes, 3, self.now_ms)
        )
        worker.held += found

    def begin(self, worker: Worker) -> None:
        """The calls of several tasks of the process, in one commit."""
        some = [c for c in worker.held if all(o.claim != c for o in worker.open)]
        starts = [(claim, *self.start()) for claim in some]
        answers = self.transaction(
            *(
                lambda claim=claim, start=start: calls.begin(
                    self.connection, claim, start, self.now_ms
                )
                for claim, start, _, _ in starts
            )
        )
        waiting = []
        for (claim, start, price, most), answer in zip(starts, answers, strict=True):
            if isinstance(answer, int):
                worker.open.append(OpenCall(claim, answer, start, price, most))
                continue
            worker.held.remove(claim)
            if isinstance(answer, Refusal):
                self.refused += 1
                waiting.append((claim, answer.reason))
        for claim, reason in waiting:
            self.settle(claim, Settlement(State.SCHEDULED, error=reason))

    def start(self) -> tuple[CallStart, Price, int]:
        random = self.random
        price = random.choice(PRICES)
        most, max_tokens = random.randrange(1, 300), random.randrange(1, 120)
        rates = price.dearest(most)
        dearest = max(rates.input, rates.cache_write_5m, rates.cache_write_1h)
        worst = -(-(most * dearest + max_tokens * rates.output) // 1_000_000)
        expected = random.randrange(most + 1)
        start = CallStart(
            number=self.next(),
            strategy=None,
            resume_at=0,
            max_tokens=max_tokens,
            model="m",
            rates=price.rates(expected),
            reservation=Reservation(worst, max_tokens),
            input_tokens=expected,
        )
        return start, price, most

    def next(self) -> int:
        """A number that none had before."""
        self.numbers += 1
        return self.numbers

    def usage(self, call: OpenCall) -> Usage:
        """What the API bills: anything up to the most."""
        random = self.random
        total = call.most_input if random.random() < 0.3 else random.randrange(call.most_input + 1)
        written = random.randrange(total + 1)
        hour = random.randrange(written + 1)
        read = random.randrange(total - written + 1)
        most = call.start.max_tokens
        output = most if random.random() < 0.3 else random.randrange(most + 1)
        return Usage(
            input_tokens=total - written - read,
            cache_creation_input_tokens=written,
            cache_creation_1h_input_tokens=hour,
            cache_read_input_tokens=read,
            output_tokens=output,
        )

    def save(self, call: OpenCall) -> None:
        if self.random.random() < 0.5:
            usage = self.usage(call)
            rates = call.price.rates(usage.total_input_tokens)
            counted = Counted(usage, rates=rates)
            seq = self.next()
            self.transaction(
                lambda: calls.count(self.connection, call.claim, call.key, counted),
                lambda: calls.save(self.connection, call.claim, call.key, seq, "word " * 60),
            )

    def outcome(self, call: OpenCall) -> CallOutcome:
        usage = self.usage(call)
        reason = self.random.choice(("end_turn", "max_tokens", None))
        cost = call.price.rates(usage.total_input_tokens).cost(usage)
        characters = self.random.choice((1, usage.output_tokens * 4))  # a pattern may mislead
        return CallOutcome(reason, usage=usage, charge=Charge(cost), text_characters=characters)

    def end(self, worker: Worker, call: OpenCall) -> None:
        outcome = self.outcome(call)
        (answer,) = self.transaction(
            lambda: calls.end(self.connection, call.claim, call.key, outcome, self.now_ms)
        )
        worker.open.remove(call)
        if isinstance(answer, ClaimLost):
            worker.held.remove(call.claim)

    def settle(self, claim: Claim, settlement: Settlement, call: OpenCall | None = None) -> None:
        ended = None if call is None else (call.key, self.outcome(call))
        self.transaction(
            lambda: settle.settle(self.connection, claim, settlement, self.now_ms, ended)
        )

    def let_go(self, worker: Worker, claim: Claim) -> None:
        call = next((call for call in worker.open if call.claim == claim), None)
        worker.held.remove(claim)
        worker.open = [call for call in worker.open if call.claim != claim]
        self.settle(claim, self.random.choice(SETTLEMENTS), self.random.choice((call, None)))

    def haunt(self) -> None:
        """A dead process's writes that come late."""
        claim, call = self.random.choice(self.zombies)
        if call is None:
            self.zombies.remove((claim, call))  # each begins but one call at a time
            start, _, _ = self.start()
            self.transaction(lambda: calls.begin(self.connection, claim, start, self.now_ms))
        else:
            outcome = self.outcome(call)
            self.transaction(
                lambda: calls.end(self.connection, claim, call.key, outcome, self.now_ms)
            )

    def work(self, worker: Worker) -> None:
        chance = self.random.random()
        if not worker.held:
            self.claim(worker)
        elif worker.open and chance < 0.25:
            self.save(self.random.choice(worker.open))
        elif worker.open and chance < 0.6:
            self.end(worker, self.random.choice(worker.open))
        elif chance < 0.75:
            self.let_go(worker, self.random.choice(worker.held))
        else:
            self.begin(worker)

    def step(self) -> None:
        self.now_ms += self.random.randrange(2_000)
        chance = self.random.random()
        if len(self.workers) < len(WORKERS) and chance < 0.5:
            self.start_worker()
        elif chance < 0.07:
            self.order()
        elif self.dead and chance < 0.2:
            self.rescue()
        elif self.zombies and chance < 0.25:
            self.haunt()
        elif chance < 0.28:
            self.lift()
        elif chance < 0.31:
            self.transaction(lambda: claims.promote(self.connection, self.now_ms + 9_999))
        elif self.workers:
            worker = self.random.choice(self.workers)
            try:
                self.work(worker)
            except Died:
                self.die(worker)
            else:
                if self.random.random() < 0.06:
                    self.die(worker)

    def finish(self) -> None:
        """Everybody is gone, and what they held is freed."""
        for worker in list(self.workers):
            self.die(worker)
        with self.connection.begin():
            for victim in self.dead:
                rescue.rescue(self.connection, victim, 9, self.now_ms, None)
            rescue.rescue_orphans(self.connection, 9, self.now_ms)
        self.look()
        cost, reserved, reserved_output, *_ = self.looked()
        assert (reserved, reserved_output) == (0, 0)
        assert cost <= self.max_nano_usd


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, sqlite3.Connection]]:
    """An engine on a database in memory, and a template to begin each run with."""
    path: Path = tmp_path_factory.mktemp("template") / "runner.db"
    migrate.upgrade(path)
    live = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    engine = create_engine("sqlite://", creator=lambda: live, poolclass=StaticPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with closing(sqlite3.connect(path)) as template:
        yield engine, template
    engine.dispose()


def live_through(
    connection: Connection,
    ask: Callable[[str], Sequence[Any]],
    begin: Callable[[], object],
    runs: int,
) -> None:
    """
    Args:
        ask: reads outside of any transaction.
        begin: empties the database.
    """
    spent = refused = deaths = 0
    for seed in range(runs):
        begin()
        random = Random(seed)  # so that each can be had again
        run = Run(connection, ask, random, max_nano_usd=random.randrange(1, 4_000_000))
        run.submit()
        for _ in range(STEPS):
            try:
                run.step()
            except Died:
                continue  # the owner's command died, or one that looked after others
        run.finish()
        spent += run.spent
        refused += run.refused
        deaths += run.started - len(WORKERS)
    # The runs are worth something only where money was spent, refused, and processes died.
    assert spent > runs * 200_000
    assert refused > runs / 2
    assert deaths > runs


def test_in_a_thousand_runs_with_crashes_no_budget_is_passed(
    memory: tuple[Engine, sqlite3.Connection],
) -> None:
    engine, template = memory
    with engine.connect() as connection:
        live = connection.connection.dbapi_connection
        assert isinstance(live, sqlite3.Connection)

        def begin() -> None:
            template.backup(live)
            live.execute("PRAGMA foreign_keys = ON")

        live_through(connection, lambda sql: live.execute(sql).fetchall(), begin, RUNS)


@postgres_only
def test_nor_is_it_on_a_server(database: str) -> None:
    """The same statements; how they were arrived at is tried in memory."""

    async def connected() -> None:
        engine = PostgresServer(make_url(database)).engine("opens")
        async with engine.connect() as connection:
            await connection.run_sync(on_the_server)
        await engine.dispose()

    def on_the_server(connection: Connection) -> None:
        def ask(sql: str) -> Sequence[Any]:
            with connection.begin():
                return connection.exec_driver_sql(sql).all()

        def begin() -> None:
            with connection.begin():
                connection.exec_driver_sql("TRUNCATE batch, worker CASCADE")

        live_through(connection, ask, begin, RUNS // 40)

    asyncio.run(connected())
