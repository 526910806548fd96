"""Several workers at one database, anything in any order, and what must hold after each step.

The workers' clocks are set back and forth, they fall asleep, die, and write with claims that are
long over. A model in memory says what the store must hold; the workers' own `Lease` and `Rescuer`
decide who trusts himself and who is rescued. docs/reliability.md tells which faults put into the
code on purpose this was seen to find.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Awaitable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runner.continuation.document import fold
from runner.errors import ClaimLost
from runner.jobs.call import CallOutcome, Usage, Verdict
from runner.jobs.price import Rates
from runner.jobs.spec import BatchSpec
from runner.jobs.states import FINAL, Finish, State
from runner.store import engine, migrate
from runner.store.records import (
    CallStart,
    Claim,
    Lane,
    OnConflict,
    PauseCause,
    Reservation,
    Selection,
    Settlement,
)
from runner.store.schema import WAITING
from runner.store.store import Store
from runner.workers.lease import Lease
from runner.workers.progress import Progress
from runner.workers.rescue import Rescuer
from runner.workers.settings import WorkerSettings
from tests.store.hands import make_spec

SETTINGS = WorkerSettings(max_rescues=2)
HOUR_S = 3600.0
IDS = ("a", "b", "c")
SETTLEMENTS = (
    Settlement(State.AVAILABLE),
    Settlement(State.COMPLETED, Finish.END_TURN),
    Settlement(State.COMPLETED, Finish.MAX_CALLS),
    Settlement(State.DISCARDED, error="cannot work"),
    Settlement(State.DISCARDED, Finish.REFUSAL),
    Settlement(State.RETRYABLE, error="529", delay_ms=20_000),
    Settlement(State.RETRYABLE, error="529", delay_ms=0, reset_attempt=True),
    Settlement(State.SCHEDULED, error="429", delay_ms=5_000),
)
RATES = Rates(1, 5, 1, 2, 0)
ENDED = CallOutcome("max_tokens", usage=Usage(input_tokens=3, output_tokens=5))
MOMENTS = st.sampled_from((0.5, 5.0, 9.0, 24.0, 41.0, 61.0))


@dataclass
class ModelCall:
    key: int
    claim: int
    resume_at: int
    chunks: list[tuple[int, str]] = field(default_factory=list)
    open: bool = True
    superseded: bool = False


@dataclass
class ModelJob:
    """What the store must hold of a job."""

    key: int
    state: State = State.AVAILABLE
    claim: int = 0
    holder: str | None = None
    attempt: int = 0
    rescues: int = 0
    finish: Finish | None = None
    due_ms: int | None = None
    calls: list[ModelCall] = field(default_factory=list)

    def holds(self, claim: Claim) -> bool:
        return self.state is State.EXECUTING and self.claim == claim.number

    def next_seq(self) -> int:
        return sum(len(call.chunks) for call in self.calls)

    def open_call(self) -> ModelCall | None:
        return next((call for call in self.calls if call.open), None)

    def text(self) -> str:
        return fold(
            (call.resume_at, "".join(text for _, text in call.chunks))
            for call in self.calls
            if not call.superseded
        )

    def let_go(self, state: State) -> None:
        self.state, self.holder = state, None
        for call in self.calls:
            call.open = False


class Process:
    """A worker's process: what it believes, by its own clocks."""

    def __init__(self, machine: Machine, number: int, offset_s: float) -> None:
        self.machine = machine
        self.id = f"w{number}"
        self.offset_s = offset_s
        self.held: list[Claim] = []
        self.alive = True
        self.lease = Lease(machine.store, self.id, SETTINGS, clock=machine.clock)
        self.rescuer = Rescuer(machine.store, self.id, SETTINGS, Progress(), clock=machine.clock)

    @property
    def at_work(self) -> bool:
        return self.alive and self.lease.trusted


class Dawdling:
    """The store, seen by one who falls asleep after he has looked at the workers."""

    def __init__(self, store: Store, sleep: Coroutine[Any, Any, None]) -> None:
        self._store = store
        self._sleep = sleep

    async def workers(self) -> Any:
        rows = await self._store.workers()
        await self._sleep
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class SlowToCommit:
    """The store, where a renewal takes its time."""

    def __init__(self, machine: Machine, seconds: float) -> None:
        self._machine = machine
        self._seconds = seconds

    async def renew_lease(self, worker_id: str, *, lease_ms: int) -> bool:
        self._machine.boot_s += self._seconds / 2
        kept = await self._machine.store.renew_lease(worker_id, lease_ms=lease_ms)
        self._machine.boot_s += self._seconds / 2  # until the answer came
        return kept


class Machine(RuleBasedStateMachine):
    template: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(dir=self.template.parent))
        self.path = self.folder / "runner.db"
        shutil.copy(self.template, self.path)
        self.boot_s = 1000.0
        self.offset_s = 0.0  # of the process whose turn it is
        self.store = self.do(Store.open(self.path, now_ms=self.wall_ms))
        self.processes: list[Process] = []
        self.started = 0
        self.old: list[Claim] = []  # every claim there ever was
        self.jobs: dict[str, ModelJob] = {}
        self.finals: dict[str, tuple[object, ...]] = {}
        self.claims: dict[str, int] = {}
        self.texts = 0

    def do(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self.runner.run(awaited())

    def clock(self) -> float:
        return self.boot_s

    def wall_ms(self) -> int:
        return 1_750_000_000_000 + round(1000 * (self.boot_s + self.offset_s))

    def turn_of(self, process: Process) -> Process:
        self.offset_s = process.offset_s
        return process

    def one(self, pick: int, processes: list[Process]) -> Process:
        return self.turn_of(processes[pick % len(processes)])

    def living(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    def at_work(self) -> list[Process]:
        return [process for process in self.processes if process.at_work]

    def holding(self) -> list[Process]:
        return [process for process in self.at_work() if process.held]

    @initialize()
    def submitted(self) -> None:
        receipt = self.do(self.store.submit(BatchSpec("b"), [make_spec(name) for name in IDS]))
        self.batch_key = receipt.batch_key
        for name in IDS:
            self.jobs[name] = ModelJob(self.do(self.store.find_job(name)).key)
            self.claims[name] = 0
        self.start_worker(0.0)
        self.start_worker(HOUR_S)

    # processes and their clocks

    @precondition(lambda self: len(self.at_work()) < 3)
    @rule(offset_s=st.sampled_from((0.0, HOUR_S, -HOUR_S)))
    def start_worker(self, offset_s: float) -> None:
        self.started += 1
        process = self.turn_of(Process(self, self.started, offset_s))
        lease_ms = round(1000 * SETTINGS.lease_s)
        host = socket.gethostname()
        self.do(self.store.register_worker(process.id, host=host, pid=1, lease_ms=lease_ms))
        self.processes.append(process)
        self.do(process.rescuer.look())
        self.rescued(process)

    @rule(seconds=MOMENTS)
    def time_passes(self, seconds: float) -> None:
        self.boot_s += seconds

    @rule(pick=st.integers(0, 9), jump_s=st.sampled_from((HOUR_S, -HOUR_S)))
    def a_clock_is_set(self, pick: int, jump_s: float) -> None:
        self.one(pick, self.processes).offset_s += jump_s

    @precondition(lambda self: self.at_work())
    @rule(pick=st.integers(0, 9), takes_s=st.sampled_from((0.0, 0.0, 24.0, 110.0)))
    def renew(self, pick: int, takes_s: float) -> None:
        self.renewed(self.one(pick, self.at_work()), takes_s)

    def renewed(self, process: Process, takes_s: float = 0.0) -> None:
        self.do(self.renewing(process, takes_s))

    async def renewing(self, process: Process, takes_s: float) -> None:
        process.lease._store = SlowToCommit(self, takes_s)  # type: ignore[assignment]
        assert await process.lease._renew(timeout_s=60), "a worker that trusts itself was rescued"

    @precondition(lambda self: len(self.at_work()) > 1)
    @rule(pick=st.integers(0, 9), dies=st.booleans())
    def leave(self, pick: int, dies: bool) -> None:
        process = self.one(pick, self.living())
        process.alive = False
        if dies:  # the kernel drops its lock, and nobody says a word
            os.close(self.store._locks._held.pop(process.id))
            return
        self.do(self.store.retire_worker(process.id))
        for job in self.jobs.values():
            if job.holder == process.id:
                job.let_go(State.AVAILABLE)

    # rescue

    @precondition(lambda self: self.living())
    @rule(pick=st.integers(0, 9))
    def look(self, pick: int) -> None:
        process = self.one(pick, self.living())
        self.do(process.rescuer.look())
        self.rescued(process)

    @precondition(lambda self: len(self.living()) > 1)
    @rule(pick=st.integers(0, 9), other=st.integers(0, 9), before=MOMENTS, after=MOMENTS)
    def look_and_fall_asleep(self, pick: int, other: int, before: float, after: float) -> None:
        """What was seen is old when the rescuer acts upon it: others renewed or finished."""
        rescuer = self.one(pick, self.living())
        awake = [process for process in self.at_work() if process is not rescuer]
        if not awake:
            return
        busy = awake[other % len(awake)]

        async def meanwhile() -> None:
            self.boot_s += before
            if busy.at_work:
                self.turn_of(busy)
                await self.renewing(busy, 0.0)
            self.boot_s += after
            self.turn_of(rescuer)

        self.do(rescuer.rescuer.look())
        self.rescued(rescuer)
        sleep = meanwhile()
        rescuer.rescuer._store = Dawdling(self.store, sleep)  # type: ignore[assignment]
        try:
            self.do(rescuer.rescuer.look())
        finally:
            rescuer.rescuer._store = self.store
        self.rescued(rescuer)

    def rescued(self, by: Process) -> None:
        """Bring the model up to date: whoever has no row any more has lost its jobs by right."""
        rows = {row.id for row in self.do(self.store.workers())}
        for process in self.processes:
            if process.id in rows or process is by:
                continue
            assert not process.at_work, f"{process.id} trusts itself and was rescued"
            for job in self.jobs.values():
                if job.holder != process.id:
                    continue
                saved = any(c.chunks for c in job.calls if c.claim == job.claim)
                job.rescues = 1 if saved else job.rescues + 1
                job.let_go(
                    State.DISCARDED if job.rescues > SETTINGS.max_rescues else State.AVAILABLE
                )

    # work

    @precondition(lambda self: self.at_work())
    @rule(pick=st.integers(0, 9), limit=st.integers(1, 2))
    def claim(self, pick: int, limit: int) -> None:
        process = self.one(pick, self.at_work())
        claims = self.do(self.store.claim(process.id, [Lane(self.batch_key, "m", 9)], limit))
        free = [name for name, job in self.jobs.items() if job.state is State.AVAILABLE]
        assert [claim.job_id for claim in claims] == free[:limit]
        for claim in claims:
            job = self.jobs[claim.job_id]
            assert claim.number > job.claim
            job.state, job.claim, job.holder = State.EXECUTING, claim.number, process.id
            process.held.append(claim)
            self.old.append(claim)
            self.attempt(claim, None)

    @precondition(lambda self: self.holding())
    @rule(pick=st.integers(0, 9), which=st.integers(0, 9), data=st.data())
    def write(self, pick: int, which: int, data: st.DataObject) -> None:
        self.written(pick, which, data)

    @precondition(lambda self: self.holding())
    @rule(pick=st.integers(0, 9), which=st.integers(0, 9), data=st.data())
    def write_more(self, pick: int, which: int, data: st.DataObject) -> None:
        self.written(pick, which, data)

    def written(self, pick: int, which: int, data: st.DataObject) -> None:
        process = self.one(pick, self.holding())
        claim = process.held[which % len(process.held)]
        for _ in range(data.draw(st.integers(1, 4))):
            if not self.attempt(claim, data):
                process.held.remove(claim)
                return

    @precondition(lambda self: any(not self.jobs[c.job_id].holds(c) for c in self.old))
    @rule(which=st.integers(0, 99), data=st.data())
    def write_with_a_claim_of_old(self, which: int, data: st.DataObject) -> None:
        over = [c for c in self.old if not self.jobs[c.job_id].holds(c)]
        for number in range(data.draw(st.integers(1, 3))):
            assert not self.attempt(over[(which + number) % len(over)], data)

    def attempt(self, claim: Claim, data: st.DataObject | None) -> bool:
        """Do something under a claim: begin a call, or what the data say.

        False: the job is not held under it any more.
        """
        job = self.jobs[claim.job_id]
        holds = job.holds(claim)
        call = job.open_call() or (job.calls[-1] if job.calls else None)
        kinds = ["save", "save", "judge", "end"]
        if call is None or not (call.open or not holds):
            kinds = ["begin"]
        kind = "begin"
        if data is not None:
            kind = data.draw(st.sampled_from([*kinds, "settle", "end_and_settle"]))
        call_key = 0 if call is None else call.key
        settlement, resume_at = None, len(job.text())
        if data is not None and "settle" in kind:
            settlement = data.draw(st.sampled_from(SETTLEMENTS))
        elif data is not None and kind == "begin":
            resume_at = data.draw(st.integers(0, resume_at))
        seq, text = job.next_seq(), f"{claim.job_id}{self.texts};"
        self.texts += 1
        work: Awaitable[Any]
        match kind:
            case "begin":
                numbers = [c for c in job.calls if not c.superseded]
                aside = Reservation(7 * len(numbers) + 7, 100)
                start = CallStart(
                    len(numbers) + 1, None, resume_at, 100, "m", rates=RATES, reservation=aside
                )
                work = self.store.begin_call(claim, start)
            case "save":
                work = self.saving(claim, call_key, seq, text)
            case "judge":
                work = self.judging(claim, call_key)
            case "end":
                work = self.store.end_call(claim, call_key, ENDED)
            case "settle":
                assert settlement is not None
                work = self.store.settle(claim, settlement)
            case _:
                assert settlement is not None
                work = self.store.end_call_and_settle(claim, call_key, ENDED, settlement)
        try:
            answer = self.do(work)
        except ClaimLost:
            assert not holds, f"{kind}: refused to the one who holds the job"
            return False
        assert holds, f"{kind}: taken from one who does not hold the job"
        if kind == "begin":
            job.calls.append(ModelCall(answer, claim.number, resume_at))
        elif kind == "save":
            assert call is not None
            assert call.claim == claim.number
            call.chunks.append((seq, text))
        elif kind == "end" and call is not None:
            call.open = False
        if settlement is not None:
            job.attempt = (0 if settlement.reset_attempt else job.attempt) + (
                settlement.state is State.RETRYABLE
            )
            job.finish = settlement.finish
            waits = settlement.state in WAITING
            job.due_ms = self.wall_ms() + settlement.delay_ms if waits else None
            job.let_go(settlement.state)
            return False
        return True

    async def saving(self, claim: Claim, call_key: int, seq: int, text: str) -> None:
        await self.store.save(claim, call_key, seq, text)
        await self.store.save(claim, call_key, seq, text)  # the answer may have been lost

    async def judging(self, claim: Claim, call_key: int) -> None:
        await self.store.judge(claim, call_key, Verdict.EXACT)

    @rule(pick=st.integers(0, 9))
    def promote(self, pick: int) -> None:
        self.one(pick, self.processes)
        due = [
            job
            for job in self.jobs.values()
            if job.due_ms is not None and job.due_ms <= self.wall_ms()
        ]
        assert self.do(self.store.promote_due()) == len(due)
        for job in due:
            job.state, job.due_ms = State.AVAILABLE, None

    # the user

    @rule()
    def pause_for_a_while(self) -> None:
        self.do(self.store.pause(self.batch_key, PauseCause.USER, "later"))
        for process in self.at_work():
            assert self.do(self.store.claim(process.id, [Lane(self.batch_key, "m", 9)], 9)) == []
        assert self.do(self.store.resume(self.batch_key))

    @rule(id=st.sampled_from(IDS))
    def replace_the_prompt(self, id: str) -> None:
        job = self.jobs[id]
        self.texts += 1
        spec = replace(make_spec(id), stop_sequences=(f"stop {self.texts}",))
        conflict = OnConflict.REPLACE
        self.do(self.store.submit(BatchSpec("b"), [spec], on_conflict=conflict))
        job.claim += job.state is State.EXECUTING
        job.let_go(State.AVAILABLE)
        job.attempt = job.rescues = 0
        job.finish = job.due_ms = None
        for call in job.calls:
            call.superseded = True
        self.finals.pop(id, None)

    @rule(id=st.sampled_from(IDS))
    def cancel(self, id: str) -> None:
        job = self.jobs[id]
        unfinished = job.state not in FINAL
        assert self.do(self.store.cancel(self.chosen(id))) == unfinished
        if unfinished:
            job.let_go(State.CANCELLED)
            job.due_ms = None

    @rule(id=st.sampled_from(IDS), afresh=st.booleans())
    def retry(self, id: str, afresh: bool) -> None:
        job = self.jobs[id]
        complete = job.finish is not None and job.finish.complete
        back = job.state in FINAL and (afresh or not complete)
        assert self.do(self.store.retry(self.chosen(id), afresh=afresh)) == back
        if back:
            job.state, job.finish = State.AVAILABLE, None
            job.attempt = job.rescues = 0
            for call in job.calls:
                call.superseded = call.superseded or afresh
            self.finals.pop(id)

    def chosen(self, id: str) -> Selection:
        return Selection(job_keys=(self.jobs[id].key,))

    # what must hold

    @invariant()
    def the_store_holds_what_the_model_says(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            for name, job in self.jobs.items():
                row = connection.execute(
                    "SELECT state, claim, worker_id, attempt, rescues, finish FROM job WHERE key=?",
                    (job.key,),
                ).fetchone()
                expected = (job.state, job.claim, job.holder, job.attempt, job.rescues, job.finish)
                assert row == expected, name
                chunks = connection.execute(
                    "SELECT call.claim, chunk.call_key, chunk.seq, chunk.text FROM chunk"
                    " JOIN call ON call.key = chunk.call_key"
                    " WHERE chunk.job_key = ? ORDER BY chunk.key",
                    (job.key,),
                ).fetchall()
                # Every chunk's author is the claim that held when it was taken, in that order.
                assert chunks == [(c.claim, c.key, *chunk) for c in job.calls for chunk in c.chunks]
                assert [claim for claim, *_ in chunks] == sorted(claim for claim, *_ in chunks)
                assert [seq for _, _, seq, _ in chunks] == list(range(len(chunks)))
                assert job.claim >= self.claims[name]
                self.claims[name] = job.claim

    @invariant()
    def what_is_set_aside_stands_for_the_open_calls(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            kept = connection.execute(
                "SELECT reserved_nano_usd, reserved_output_tokens FROM batch"
            ).fetchone()
            running = connection.execute(
                "SELECT coalesce(sum(reserved_nano_usd), 0),"
                " coalesce(sum(reserved_output_tokens), 0) FROM call WHERE ended_ms IS NULL"
            ).fetchone()
        assert kept == running

    @invariant()
    def a_final_job_stays_as_it_is(self) -> None:
        for name, job in self.jobs.items():
            now = (job.state, job.finish, job.claim, job.text())
            if name in self.finals:
                assert self.finals[name] == now
            if job.state in FINAL:
                self.finals[name] = now

    def teardown(self) -> None:
        try:
            for job in self.jobs.values():
                calls = self.do(self.store.calls(job.key))
                assert fold((call.resume_at, call.text) for call in calls) == job.text()
            assert self.do(self.store.check()) == []  # kept counts equal counted ones, and more
        finally:
            with suppress(OSError):
                self.do(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder)


def test_several_workers_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No power fails here, and waiting for the disk would take most of the time.
    pragmas = [p for p in engine._WRITER_PRAGMAS if "synchronous" not in p]
    monkeypatch.setattr(engine, "_WRITER_PRAGMAS", (*pragmas, "synchronous = OFF"))
    Machine.template = tmp_path_factory.mktemp("machine") / "empty.db"
    migrate.upgrade(Machine.template)
    case = settings(
        max_examples=80,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=case)
