"""The operations that run most: each can be applied alone, or with others of its kind.

On SQLite they are applied one by one, as all others are; only saves that stand side by side go to the
driver in one call. On PostgreSQL, where each statement is a journey, those of one group commit go
together: see `runner.store.together`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from sqlalchemy import Connection

from runner.errors import RunnerError
from runner.jobs.call import CallOutcome, Verdict
from runner.store import calls, settle, together
from runner.store.records import CallStart, Claim, Counted, Refusal, Settlement
from runner.store.together import Answer


@dataclass(frozen=True, slots=True)
class Save:
    claim: Claim
    call_key: int
    seq: int
    text: str

    def __call__(self, connection: Connection) -> None:
        calls.save(connection, self.claim, self.call_key, self.seq, self.text)

    @staticmethod
    def together(connection: Connection, saves: Sequence[Save]) -> list[Answer]:
        return together.save(connection, [(s.claim, s.call_key, s.seq, s.text) for s in saves])


@dataclass(frozen=True, slots=True)
class Judge:
    claim: Claim
    call_key: int
    verdict: Verdict

    def __call__(self, connection: Connection) -> None:
        calls.judge(connection, self.claim, self.call_key, self.verdict)

    @staticmethod
    def together(connection: Connection, all: Sequence[Judge]) -> list[Answer]:
        return together.judge(connection, [(j.claim, j.call_key, j.verdict) for j in all])


@dataclass(frozen=True, slots=True)
class Count:
    claim: Claim
    call_key: int
    counted: Counted

    def __call__(self, connection: Connection) -> None:
        calls.count(connection, self.claim, self.call_key, self.counted)

    @staticmethod
    def together(connection: Connection, all: Sequence[Count]) -> list[Answer]:
        return together.count(connection, [(c.claim, c.call_key, c.counted) for c in all])


@dataclass(frozen=True, slots=True)
class Begin:
    claim: Claim
    start: CallStart
    now_ms: int

    def __call__(self, connection: Connection) -> int | Refusal:
        return calls.begin(connection, self.claim, self.start, self.now_ms)

    @staticmethod
    def together(connection: Connection, all: Sequence[Begin]) -> list[Answer]:
        return together.begin(connection, [(b.claim, b.start, b.now_ms) for b in all])


@dataclass(frozen=True, slots=True)
class End:
    claim: Claim
    call_key: int
    outcome: CallOutcome
    now_ms: int

    def __call__(self, connection: Connection) -> None:
        calls.end(connection, self.claim, self.call_key, self.outcome, self.now_ms)

    @staticmethod
    def together(connection: Connection, all: Sequence[End]) -> list[Answer]:
        rows = [(e.claim, e.call_key, e.outcome, e.now_ms) for e in all]
        return together.end_all(connection, rows)


@dataclass(frozen=True, slots=True)
class Settle:
    claim: Claim
    settlement: Settlement
    now_ms: int
    ended: tuple[int, CallOutcome] | None = None

    def __call__(self, connection: Connection) -> None:
        settle.settle(connection, self.claim, self.settlement, self.now_ms, self.ended)

    @staticmethod
    def together(connection: Connection, all: Sequence[Settle]) -> list[Answer]:
        rows = [(s.claim, s.settlement, s.now_ms, s.ended) for s in all]
        return together.settle_all(connection, rows)


OfJob = Save | Judge | Count | Begin | End | Settle
Operation = Callable[[Connection], Any]


def apply(connection: Connection, operations: Sequence[Operation]) -> list[Answer]:
    """Apply operations as if one after the other; what each gave, or why it was refused."""
    if connection.dialect.name == "sqlite":
        return _in_turn(connection, operations)
    answers: list[Answer] = [(None, None)] * len(operations)
    for places in portions(operations):
        some = [operations[place] for place in places]
        first = some[0]
        if isinstance(first, OfJob):
            found = type(first).together(connection, some)  # type: ignore[arg-type]  # all of its kind
        else:
            found = [_alone(connection, first)]
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers


def _in_turn(connection: Connection, operations: Sequence[Operation]) -> list[Answer]:
    answers: list[Answer] = []
    for saves, some in groupby(operations, key=lambda operation: type(operation) is Save):
        if saves:
            rows = [(s.claim, s.call_key, s.seq, s.text) for s in cast(Iterator[Save], some)]
            answers += calls.save_all(connection, rows)
        else:
            answers += [_alone(connection, operation) for operation in some]
    return answers


def portions(operations: Sequence[Operation]) -> Iterator[list[int]]:
    """The places of operations that can be applied at once, portion after portion.

    What is done to one job keeps its order, and of one job only saves under one claim go together:
    so what was saved is what that claim saved. An operation that is of no single job keeps its place
    among all.
    """
    rounds: list[dict[type, list[int]]] = []
    # Of each job: the round of its last operation, and the claim and worker that it was a save of.
    last: dict[int, tuple[int, tuple[int, str] | None]] = {}
    for place, operation in enumerate(operations):
        kind = type(operation)
        if not isinstance(operation, OfJob):
            yield from _places(rounds)
            yield [place]
            rounds, last = [], {}
            continue
        claim = operation.claim
        number, before = last.get(claim.job_key, (-1, None))
        saves = (claim.number, claim.worker_id) if kind is Save else None
        if saves is None or saves != before:
            number += 1
        last[claim.job_key] = number, saves
        if number == len(rounds):
            rounds.append({})
        rounds[number].setdefault(kind, []).append(place)
    yield from _places(rounds)


def _places(rounds: Sequence[dict[type, list[int]]]) -> Iterator[list[int]]:
    for kinds in rounds:
        yield from kinds.values()


def _alone(connection: Connection, operation: Operation) -> Answer:
    try:
        return operation(connection), None
    except RunnerError as refused:
        return None, refused
