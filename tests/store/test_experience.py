"""What the store tells for foreseeing a job file's cost."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, text

from runner.jobs.call import CallOutcome, Usage
from runner.jobs.spec import shape_hash
from runner.jobs.states import Finish, State
from runner.store.experience import KNOWN
from runner.store.records import OnConflict, Settlement
from runner.store.store import Store
from tests.store.hands import make_spec, sqlite_only

pytestmark = pytest.mark.anyio


async def finish(
    hands, store: Store, *outputs: int, characters: int = 100, done: bool = True, model: str = "m"
) -> None:
    """Claim a job and make calls of so many output tokens; the last one ends its document."""
    claim = await hands.claim(model=model)
    for number, tokens in enumerate(outputs, start=1):
        last = number == len(outputs)
        call_key = await hands.begin(claim, number)
        await store.save(claim, call_key, number, "text")
        outcome = CallOutcome(
            "end_turn" if last and done else "max_tokens",
            usage=Usage(input_tokens=10 * number, output_tokens=tokens),
            input_characters=40,
            text_characters=characters,
        )
        await store.end_call(claim, call_key, outcome)
    settled = Settlement(State.COMPLETED, Finish.END_TURN) if done else Settlement(State.AVAILABLE)
    await store.settle(claim, settled)


async def test_known_jobs_tell_state_hash_and_what_was_paid(hands, store: Store) -> None:
    await hands.submit(make_spec("a", priority=2), make_spec("b", priority=1), make_spec("c"))
    await finish(hands, store, 5, 6)
    await finish(hands, store, 7, done=False)
    known = await store.known(hands.batch_key, ["a", "b", "c", "d"])
    assert set(known) == {"a", "b", "c"}
    assert known["a"].hash == shape_hash(make_spec("a").shape_data())
    assert (known["a"].state, known["a"].finish) == (State.COMPLETED, Finish.END_TURN)
    assert (known["b"].state, known["b"].output_tokens) == (State.AVAILABLE, 7)
    assert (known["c"].output_tokens, known["c"].finish) == (0, None)
    assert await store.known(hands.batch_key + 1, ["a"]) == {}


async def test_what_a_replaced_job_paid_does_not_count(hands, store: Store) -> None:
    await hands.submit(make_spec("a"))
    await finish(hands, store, 7, done=False)
    await hands.submit(make_spec("a", system="new"), on_conflict=OnConflict.REPLACE)
    assert (await store.known(hands.batch_key, ["a"]))["a"].output_tokens == 0


async def test_finished_jobs_come_with_their_calls(hands, store: Store) -> None:
    await hands.submit(make_spec("x"), batch="other")
    await finish(hands, store, 3)
    await hands.submit(make_spec("a", priority=2), make_spec("b", priority=1), make_spec("c"))
    await finish(hands, store, 5, 6)
    await finish(hands, store, 7, done=False)
    (job,) = await store.finished(
        models=["m"], simulated=False, limit=10, batch_key=hands.batch_key
    )
    assert job.spec == make_spec("a", priority=2)
    assert [usage.output_tokens for usage in job.calls] == [5, 6]
    anywhere = await store.finished(models=["m"], simulated=False, limit=10)
    assert sorted(job.spec.id for job in anywhere) == ["a", "x"]
    assert len(await store.finished(models=["m"], simulated=False, limit=1)) == 1
    assert await store.finished(models=["n"], simulated=False, limit=10) == []
    assert await store.finished(models=["m"], simulated=True, limit=10) == []


async def test_calls_of_a_model_are_summed_over_batches_of_one_kind(hands, store: Store) -> None:
    for batch in ("b1", "b2"):
        await hands.submit(make_spec("a"), batch=batch)
        await finish(hands, store, 5, 6, characters=20)
    await hands.submit(make_spec("s"), batch="s", simulated=True)
    await finish(hands, store, 50, characters=20)
    first, second = await store.learned_by_model("m", simulated=False)
    assert (first.number, first.calls, first.cut_calls) == (1, 2, 2)
    assert (first.output_tokens, first.output_characters, first.input_characters) == (10, 40, 80)
    assert (second.number, second.output_tokens, second.input_tokens) == (2, 12, 40)
    assert second.most_output_tokens == 6
    (simulated,) = await store.learned_by_model("m", simulated=True)
    assert simulated.output_tokens == 50
    assert await store.learned_by_model("n", simulated=False) == []


@sqlite_only
async def test_known_jobs_are_looked_up_by_index(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"j{n}") for n in range(50)))
    explained = text(f"EXPLAIN QUERY PLAN {KNOWN.text}").bindparams(
        bindparam("ids", expanding=True)
    )
    plan = await store._reader.rows(explained, {"ids": ["j1", "j2"], "batch_key": 1})
    steps = [row.detail for row in plan]
    assert "SEARCH job USING INDEX job_id (id=? AND batch_key=?)" in steps
    assert not [step for step in steps if step.startswith("SCAN")]
