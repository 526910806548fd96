"""Operations that go to PostgreSQL together come to what they come to one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection

from runner.errors import ClaimLost
from runner.jobs.call import CallOutcome, Charge, Usage, Verdict
from runner.jobs.price import Rates
from runner.jobs.spec import BatchLimits, BatchSpec
from runner.jobs.states import Finish, State
from runner.store.operations import (
    Begin,
    Count,
    End,
    Judge,
    Operation,
    Save,
    Settle,
    apply,
    portions,
)
from runner.store.operations import _alone as operation_alone
from runner.store.records import CallStart, Claim, Counted, Lane, Refusal, Reservation, Settlement
from runner.store.store import Store
from runner.store.together import Answer
from tests.places import Place
from tests.store.hands import make_spec, postgres_only

DONE = Settlement(State.COMPLETED, Finish.END_TURN)
START = CallStart(1, None, 0, 100, "m")


def of(job_key: int) -> Claim:
    return Claim(job_key, 1, "w", 1, f"job-{job_key}", "m", 0, 0)


def save(job_key: int, seq: int) -> Save:
    return Save(of(job_key), job_key, seq, "text")


def test_what_is_done_to_one_job_keeps_its_order() -> None:
    operations = [
        save(1, 0),
        save(2, 0),
        save(1, 1),
        Settle(of(1), DONE, 0),
        save(2, 1),
        Begin(of(3), START, 0),
        save(1, 2),
    ]
    assert list(portions(operations)) == [[0, 1, 2, 4], [5], [3], [6]]


def test_saves_of_one_job_under_two_claims_go_apart() -> None:
    operations = [save(1, 0), save(2, 0), replace(save(1, 0), claim=replace(of(1), number=2))]
    assert list(portions(operations)) == [[0, 1], [2]]
    operations[2] = replace(save(1, 0), claim=replace(of(1), worker_id="another"))
    assert list(portions(operations)) == [[0, 1], [2]]


def test_what_is_of_no_single_job_keeps_its_place() -> None:
    operations = [save(1, 0), lambda _: None, save(2, 0), save(1, 1)]
    assert list(portions(operations)) == [[0], [1], [2, 3]]


def outcome(tokens: int, **changes: object) -> CallOutcome:
    usage = Usage(input_tokens=10, output_tokens=tokens, estimated=tokens % 2 == 1)
    charge = Charge(cost_nano_usd=None if tokens == 4 else 100 * tokens, prompt_tokens=10)
    values = {"stop_reason": "end_turn", "usage": usage, "charge": charge, **changes}
    return CallOutcome(**values)  # type: ignore[arg-type]  # any of its fields


def beginning(claims: list[Claim]) -> list[Operation]:
    """Calls begun; the claim of one is lost, and the last have no room in the budget."""
    need = Reservation(nano_usd=1_000, output_tokens=50)
    rates = Rates(input=1, output=2, cache_write_5m=3, cache_write_1h=4, cache_read=5)
    start = replace(START, rates=rates, reservation=need, limit_key="rested")
    lost = replace(claims[0], number=9)
    return [Begin(one, start, 5) for one in (*claims, lost)]


def going_on(claims: list[Claim], keys: list[int]) -> list[Operation]:
    """Text, verdicts, counts and ends of all kinds, some twice, some of claims that are lost."""
    counted = Counted(Usage(input_tokens=7, output_tokens=3), lost_output_tokens=1)
    stranger = replace(claims[0], worker_id="another")
    first, second, third, fourth, fifth, *_ = claims
    return [
        *(Count(claim, key, counted) for claim, key in zip(claims, keys, strict=True)),
        Save(stranger, keys[0], 0, "by nobody"),
        *(Save(claim, key, 0, f"text of {key - keys[0]}\0") for claim, key in zip(claims, keys, strict=True)),
        Save(first, keys[0], 1, "more"),
        Save(first, keys[0], 1, "more"),
        Save(first, keys[0], 1, "another text"),
        Save(stranger, keys[0], 2, "by nobody"),
        Judge(second, keys[1], Verdict.ALIGNED),
        Judge(stranger, keys[0], Verdict.OVERLAP),
        End(second, keys[1], outcome(2), 8),
        End(second, keys[1], outcome(6), 8),
        End(stranger, keys[0], outcome(9), 8),
        Settle(first, DONE, 9, (keys[0], outcome(5, stop_reason="max_tokens"))),
        Settle(first, DONE, 9),
        Settle(second, Settlement(State.SCHEDULED, error="waits\0", delay_ms=1_000), 9),
        Settle(third, Settlement(State.RETRYABLE, error="broke", delay_ms=1), 9, (keys[2], outcome(3, stop_reason=None, error="cut\0"))),
        Settle(fourth, Settlement(State.DISCARDED, error="no", error_name="400 x"), 9, (keys[3], outcome(4))),
        Settle(fifth, Settlement(State.AVAILABLE), 10),
        Save(fifth, keys[4], 1, "too late"),
        Settle(stranger, DONE, 10),
    ]  # fmt: skip


async def told(store: Store) -> list[object]:
    """All that the store tells of its jobs."""
    jobs = [row async for row in store.jobs()]
    found: list[object] = [await store.batches(), jobs, await store.learned(1, "m")]
    for row in jobs:
        found += [
            await store.calls(row.key),
            await store.events(row.key),
            await store.pieces(row.key),
        ]
    return found


@pytest.mark.anyio
async def test_a_stale_claim_is_not_told_what_its_successor_saved(hands, store: Store) -> None:
    """Both in one commit, under one number: the chunk that is there is not the first one's."""
    await hands.submit()
    stale = await hands.claim()
    old_key = await hands.begin(stale)
    await store.settle(stale, Settlement(State.AVAILABLE))
    claim = await hands.claim()
    key = await hands.begin(claim, 2)
    operations: list[Operation] = [Save(stale, old_key, 0, "old"), Save(claim, key, 0, "new")]
    answers = await store._writer.run(lambda connection: apply(connection, operations))
    assert [type(error) for _, error in answers] == [ClaimLost, type(None)]
    assert [piece.text for piece in await store.pieces(claim.job_key)] == ["new"]


@pytest.mark.anyio
@postgres_only
async def test_together_they_come_to_the_same_as_one_by_one(place: Place) -> None:
    """Break any of the statements of `together`, and one of the two tells another story."""

    def one_by_one(connection: Connection, operations: list[Operation]) -> list[Answer]:
        return [operation_alone(connection, one) for one in operations]

    stories = []
    for how in (apply, one_by_one):
        database = place.new()
        async with await Store.open(database, now_ms=lambda: 3) as store:
            limits = BatchLimits(max_cost_nano_usd=6_500)
            names = [make_spec(f"job-{n}") for n in range(9)]
            key = (await store.submit(BatchSpec("b", limits), names)).batch_key
            await store.register_worker("w", host="h", pid=1, lease_ms=60_000)
            claims = await store.claim("w", [Lane(key, "m", 9)], 9)

            async def together(operations: list[Operation], how=how, store=store) -> list[Answer]:
                return await store._writer.run(lambda connection: how(connection, operations))

            begun = await together(beginning(claims))

            went_on = await together(going_on(claims[:6], [answer[0] for answer in begun[:6]]))
            answers = [(value, error and str(error)) for value, error in begun + went_on]
            stories.append([*answers, *await told(store)])
    kinds = [type(value) for value, _ in stories[0][:10]]
    assert kinds == [*([int] * 6), *([Refusal] * 3), type(None)]
    for one, other in zip(*stories, strict=True):
        assert one == other
