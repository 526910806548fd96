"""Submitting: idempotent, and never a changed prompt in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from runner.errors import ClaimLost, SubmitConflict
from runner.jobs.call import CallOutcome, Strategy, Usage
from runner.jobs.spec import BatchLimits, BatchSpec, ContinuationSpec, JobSpec, Until
from runner.jobs.states import Finish, State
from runner.store import submit
from runner.store.records import OnConflict, Settlement, SubmitReceipt
from runner.store.store import Store
from tests.store.hands import make_spec, postgres_only
from tests.strangers import a_stranger

pytestmark = pytest.mark.anyio

CHANGED = make_spec("a", max_tokens=7)
TRANSACTIONS = """\
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL
"""
DONE = Settlement(State.COMPLETED, Finish.END_TURN)


async def test_a_specification_comes_back_as_it_went_in(hands, store: Store) -> None:
    spec = JobSpec(
        id="all",
        model="m",
        messages=({"content": [{"text": "ü \ud800 \x00", "type": "text"}], "role": "user"},),
        max_tokens=5,
        system=({"text": "s", "type": "text"},),
        stop_sequences=("</s>",),
        thinking={"type": "disabled"},
        output_config={"effort": "low"},
        params={"temperature": 0},
        continuation=ContinuationSpec(Strategy.PREFILL, 3, 1000),
        until=Until("</end>"),
        metadata={"part": "1", "wide": "€"},
        priority=-2,
    )
    await hands.submit(spec, make_spec("plain"))
    job = await hands.job("all")
    assert await store.spec(job.key) == spec
    assert (job.metadata, job.priority, job.model) == (spec.metadata, -2, "m")
    assert await store.spec((await hands.job("plain")).key) == make_spec("plain")


async def test_the_same_again_is_no_change(hands, store: Store) -> None:
    specs = [make_spec("a"), make_spec("b")]
    assert await hands.submit(*specs) == SubmitReceipt(hands.batch_key, new=2)
    before = [job async for job in store.jobs()]
    assert await hands.submit(*specs, make_spec("c")) == SubmitReceipt(
        hands.batch_key, new=1, present=2
    )
    assert [job async for job in store.jobs()][:2] == before


async def test_the_same_id_in_another_batch_is_another_job(hands) -> None:
    await hands.submit(batch="one")
    assert (await hands.submit(CHANGED, batch="two")).new == 1


async def test_bounds_of_unfinished_jobs_are_brought_up_to_date(hands, store: Store) -> None:
    await hands.submit(make_spec("done"), make_spec("open"))
    await store.settle(await hands.claim(), DONE)
    changes = {
        "priority": 9,
        "metadata": {"x": 1},
        "continuation": ContinuationSpec(max_calls=3, max_output_tokens=5),
    }
    receipt = await hands.submit(make_spec("done", **changes), make_spec("open", **changes))
    assert receipt.present == 2
    job = await hands.job("open")
    assert (job.priority, job.metadata) == (9, {"x": 1})
    assert await store.spec(job.key) == make_spec("open", **changes)
    assert await store.spec((await hands.job("done")).key) == make_spec("done")
    assert (await hands.claim()).job_id == "open"


async def test_limits_of_the_batch_are_brought_up_to_date(hands, store: Store) -> None:
    await hands.submit()
    limits = BatchLimits(7, {"m": 2}, 3)
    await store.submit(BatchSpec("b", limits), [make_spec()])
    (batch,) = await store.batches()
    assert batch.limits == limits


async def test_a_changed_prompt_is_refused_before_anything_is_written(hands, store) -> None:
    await hands.submit()
    with pytest.raises(SubmitConflict) as caught:
        await store.submit(BatchSpec("b", BatchLimits(concurrency=3)), [make_spec("new"), CHANGED])
    message = str(caught.value)
    known = submit.prepared(make_spec()).hash.hex()[:12]
    submitted = submit.prepared(CHANGED).hash.hex()[:12]
    assert f"job 'a': known with hash {known}, submitted with {submitted}" in message
    assert "1 job has another prompt" in message
    assert "--replace" in message
    assert "--keep" in message
    assert [job.id async for job in store.jobs()] == ["a"]
    assert (await store.batches())[0].limits == BatchLimits()


async def test_no_more_than_twenty_conflicts_are_shown(hands, store: Store) -> None:
    await hands.submit(*(make_spec(f"j{n}") for n in range(30)))
    with pytest.raises(SubmitConflict, match=r"30 jobs have[\s\S]*and 10 more") as caught:
        await hands.submit(*(make_spec(f"j{n}", max_tokens=1) for n in range(30)))
    assert str(caught.value).count("known with hash") == 20


async def test_keep_leaves_the_job_as_it_is(hands, store: Store) -> None:
    await hands.submit()
    receipt = await hands.submit(CHANGED, make_spec("b"), on_conflict=OnConflict.KEEP)
    assert receipt == SubmitReceipt(hands.batch_key, new=1, kept=1)
    assert await store.spec((await hands.job()).key) == make_spec()


@pytest.mark.parametrize("state", [s for s in State if s not in (State.CANCELLED, State.DISCARDED)])
async def test_replace_starts_the_document_anew(hands, store: Store, state: State) -> None:
    await hands.submit()
    if state is not State.AVAILABLE:
        claim = await hands.claim()
        call_key = await hands.begin(claim)
        await store.save(claim, call_key, 0, "old text")
    if state is State.EXECUTING:
        pass
    elif state is State.COMPLETED:
        await store.end_call_and_settle(
            claim, call_key, CallOutcome("end_turn", usage=Usage(1, 0, 0, 9)), DONE
        )
    elif state is not State.AVAILABLE:
        await store.settle(claim, Settlement(state, error="x", delay_ms=5))

    receipt = await hands.submit(CHANGED, on_conflict=OnConflict.REPLACE)
    assert receipt == SubmitReceipt(hands.batch_key, replaced=1)
    job = await hands.job()
    assert (job.state, job.finish, job.error, job.attempt) == (State.AVAILABLE, None, None, 0)
    assert await store.spec(job.key) == CHANGED
    assert await store.pieces(job.key) == []
    assert await store.calls(job.key) == []
    assert await store.check() == []
    if state is State.AVAILABLE:
        return
    if state is State.EXECUTING:
        with pytest.raises(ClaimLost):
            await store.save(claim, call_key, 1, "zombie")
    # Out of the document, but still in the books, with the order of saving going on behind it.
    (old,) = await store.calls(job.key, superseded=True)
    assert old.text == "old text"
    assert job.usage.output_tokens == (9 if state is State.COMPLETED else 2)
    again = await hands.claim()
    assert again.number > claim.number
    loaded = await store.load(again)
    assert (loaded.calls, loaded.next_seq, loaded.spec) == ((), 1, CHANGED)
    await hands.begin(again, 1)


async def test_replace_twice(hands, store: Store) -> None:
    await hands.submit()
    for max_tokens in (1, 2):
        claim = await hands.claim()
        await hands.begin(claim)
        await hands.submit(make_spec("a", max_tokens=max_tokens), on_conflict=OnConflict.REPLACE)
    assert len(await store.calls(claim.job_key, superseded=True)) == 2


async def test_many_slices_and_a_function_that_gives_iterators(hands, store: Store) -> None:
    opened = 0

    def jobs() -> Iterator[JobSpec]:
        nonlocal opened
        opened += 1
        return (make_spec(f"j{n}") for n in range(submit.SLICE_JOBS * 2 + 1))

    assert (await store.submit(BatchSpec("b"), jobs)).new == submit.SLICE_JOBS * 2 + 1
    assert opened == 1
    assert (await store.submit(BatchSpec("b"), jobs)).present == submit.SLICE_JOBS * 2 + 1
    assert opened == 2  # compared, and then there is nothing to write
    ids = [job.id async for job in store.jobs()]
    assert ids == [f"j{n}" for n in range(submit.SLICE_JOBS * 2 + 1)]


@postgres_only
async def test_no_transaction_waits_for_a_slow_generator(
    hands, store: Store, database: str
) -> None:
    specs = [make_spec(f"j{n}") for n in range(submit.SLICE_JOBS + 1)]
    await hands.submit(specs[0], batch="b")
    seen = []

    with a_stranger(database) as looker:

        def compared() -> Iterator[JobSpec]:
            for number, spec in enumerate(specs):
                if number % submit.SLICE_JOBS == 0:
                    seen.extend(looker.execute(TRANSACTIONS))
                yield spec

        jobs = iter([compared(), iter(specs)])  # once to be compared, and once to be queued
        receipt = await store.submit(BatchSpec("b"), lambda: next(jobs))
    assert receipt == SubmitReceipt(receipt.batch_key, new=submit.SLICE_JOBS, present=1)
    assert seen == [(0,), (0,)]


async def test_an_iterator_that_reads_once_will_do(hands, store: Store) -> None:
    specs = [make_spec("a"), make_spec("b")]
    assert (await store.submit(BatchSpec("b"), iter(specs))).new == 2
    assert (await store.submit(BatchSpec("b"), iter(specs))).present == 2


def test_slices_are_bounded_by_their_size_too() -> None:
    large = make_spec("x", params={"pad": "x" * (submit.SLICE_CHARACTERS // 2)})
    specs = [replace(large, id=f"j{n}") for n in range(5)]
    assert [len(portion) for portion in submit.slices(iter(specs))] == [2, 2, 1]


async def test_an_empty_submission_makes_the_batch(hands, store: Store) -> None:
    receipt = await store.submit(BatchSpec("empty"), [])
    assert receipt == SubmitReceipt(receipt.batch_key)
    assert [batch.name for batch in await store.batches()] == ["empty"]


async def test_the_same_id_twice_in_one_submission(hands, store: Store) -> None:
    assert await hands.submit(make_spec(), make_spec()) == SubmitReceipt(
        hands.batch_key, new=1, present=1
    )
    with pytest.raises(SubmitConflict, match="job 'x'"):
        await hands.submit(make_spec("x"), make_spec("x", max_tokens=1), batch="other")
    assert [job.id async for job in store.jobs(batch="other")] == []


async def test_an_error_of_the_job_file_comes_through(hands, store: Store) -> None:
    def jobs() -> Iterator[JobSpec]:
        yield make_spec()
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="gone"):
        await store.submit(BatchSpec("b"), jobs)
    assert (await hands.submit()).new == 1


async def test_keys_of_deleted_jobs_do_not_come_back(hands, store: Store, database: str) -> None:
    """A zombie of a pruned job must not find its key and claim number on another job."""
    await hands.submit()
    key = (await hands.job()).key
    with a_stranger(database) as stranger:
        stranger.execute("DELETE FROM job")
        assert stranger.execute("SELECT count(*) FROM job_spec") == [(0,)]
    await hands.submit()
    assert (await hands.job()).key > key
    assert await store.check() == []
