"""Calls and their text: begun, saved, ended; each write only by the holder of the claim."""

from __future__ import annotations

import pytest

from runner.errors import ClaimLost, StoreError
from runner.jobs.call import CallOutcome, Charge, Strategy, Usage, Verdict
from runner.jobs.price import Rates
from runner.jobs.states import Finish, State
from runner.store.broken import BEFORE_CHECKPOINT_MS
from runner.store.operations import Save
from runner.store.records import CallStart, Claim, Counted, Settlement
from runner.store.store import Store
from tests.store.hands import make_spec

pytestmark = pytest.mark.anyio

DONE = Settlement(State.COMPLETED, Finish.END_TURN)
OUTCOME = CallOutcome("end_turn", usage=Usage(1, 2, 3, 4), request_id="req_1")


async def taken_over(hands, store: Store) -> tuple[Claim, int, Claim]:
    """A zombie's claim with its call, and the claim of the one who took over."""
    await hands.submit()
    zombie = await hands.claim("zombie")
    call_key = await hands.begin(zombie)
    await store.save(zombie, call_key, 0, "before")
    assert await store.rescue("zombie", max_rescues=3) == ["a"]
    return zombie, call_key, await hands.claim("owner")


async def test_what_is_written_is_read_back(hands, store: Store, clock) -> None:
    await hands.submit()
    claim = await hands.claim()
    first = await hands.begin(claim)
    await store.save(claim, first, 0, "Once ")
    await store.save(claim, first, 1, "upon")
    clock.ms += 5
    outcome = CallOutcome(
        "refusal", "</s>", {"category": "x"}, Usage(1, 2, 3, 4), "req_1", "it broke"
    )
    await store.end_call(claim, first, outcome)
    second = await store.begin_call(claim, CallStart(2, Strategy.PREFILL, 9, 50, "m2"))
    await store.judge(claim, second, Verdict.EXACT)
    await store.save(claim, second, 2, " a time")

    loaded = await store.load(claim)
    assert loaded.next_seq == 3
    assert [call.text for call in loaded.calls] == ["Once upon", " a time"]
    assert list(loaded.calls) == await store.calls(claim.job_key)
    done, running = loaded.calls
    assert (done.outcome, done.ended_ms) == (outcome, clock.ms)
    assert done.started_ms == clock.ms - 5
    assert (running.outcome, running.ended_ms) == (None, None)
    assert (running.number, running.strategy, running.resume_at) == (2, Strategy.PREFILL, 9)
    assert (running.max_tokens, running.model, running.verdict) == (50, "m2", Verdict.EXACT)

    pieces = await store.pieces(claim.job_key, after_seq=0)
    assert [(p.call_number, p.resume_at, p.seq, p.text) for p in pieces] == [
        (1, 0, 1, "upon"),
        (2, 9, 2, " a time"),
    ]


async def test_the_same_chunk_again_is_no_change(hands, store: Store) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    await store.save(claim, call_key, 0, "text")
    await store.save(claim, call_key, 0, "text")
    with pytest.raises(StoreError, match="two different texts under number 0"):
        await store.save(claim, call_key, 0, "other")
    assert [piece.text for piece in await store.pieces(claim.job_key)] == ["text"]


async def test_of_chunks_that_are_saved_together_each_has_its_own_answer(
    hands, store: Store
) -> None:
    await hands.submit(*(make_spec(name) for name in "abc"))
    zombie, other, again = [await hands.claim("zombie") for _ in range(3)]
    calls = [await hands.begin(claim) for claim in (zombie, other, again)]
    await store.save(other, calls[1], 0, "there")
    await store.save(again, calls[2], 0, "same")
    await store.rescue("zombie", max_rescues=3)
    owner, other, again = [await hands.claim("owner") for _ in range(3)]
    call_key = await hands.begin(owner, 2)
    chunks = [
        Save(owner, call_key, 0, "first"),
        Save(zombie, calls[0], 1, "zombie"),
        Save(other, calls[1], 0, "different"),
        Save(again, calls[2], 0, "same"),
        Save(owner, call_key, 1, "second\ud83d"),
        Save(owner, call_key, 1, "second\ud83d"),
        Save(owner, call_key, 1, "third"),
    ]
    errors = [error for _, error in await store.save_all(chunks)]
    assert [type(error) for error in errors] == [
        type(None), ClaimLost, StoreError, type(None), type(None), type(None), StoreError,
    ]  # fmt: skip
    pieces = [await store.pieces(claim.job_key) for claim in (owner, other, again)]
    texts = [[piece.text for piece in some] for some in pieces]
    assert texts == [["first", "second\ufffd"], ["there"], ["same"]]


@pytest.mark.parametrize(
    "text",
    ["", " \n\t", "\x00middle\x00", "ü€😀\u2028\ufeff", "a" * 1_000_000],
    ids=["empty", "blank", "nul", "unicode", "long"],
)
async def test_text_comes_back_as_it_was(hands, store: Store, text: str) -> None:
    await hands.submit()
    claim = await hands.claim()
    await store.save(claim, await hands.begin(claim), 0, text)
    await store.save(claim, 1, 0, text)
    (call,) = (await store.load(claim)).calls
    if store.path is None:  # the one character that PostgreSQL holds in no text
        text = text.replace("\0", "\ufffd")
    assert call.text == text


async def test_half_a_surrogate_pair_becomes_the_replacement_character(hands, store) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    await store.save(claim, call_key, 0, "a\ud83d")
    await store.save(claim, call_key, 0, "a\ud83d")
    assert (await store.load(claim)).calls[0].text == "a\ufffd"


async def test_a_zombie_saves_nothing(hands, store: Store) -> None:
    zombie, call_key, owner = await taken_over(hands, store)
    with pytest.raises(ClaimLost, match="worker zombie no longer holds job 'a'"):
        await store.save(zombie, call_key, 1, "zombie")
    assert [piece.text for piece in await store.pieces(owner.job_key)] == ["before"]


async def test_a_zombie_that_repeats_a_save_hears_that_its_claim_is_lost(hands, store) -> None:
    zombie, call_key, _ = await taken_over(hands, store)
    with pytest.raises(ClaimLost):
        await store.save(zombie, call_key, 0, "before")


async def test_a_zombie_saves_nothing_before_anybody_took_over(hands, store: Store) -> None:
    await hands.submit()
    zombie = await hands.claim("zombie")
    call_key = await hands.begin(zombie)
    await store.rescue("zombie", max_rescues=3)
    with pytest.raises(ClaimLost):
        await store.save(zombie, call_key, 0, "zombie")


async def test_a_zombie_begins_no_call(hands, store: Store) -> None:
    zombie, _, owner = await taken_over(hands, store)
    with pytest.raises(ClaimLost):
        await hands.begin(zombie, 2)
    assert [call.number for call in await store.calls(owner.job_key)] == [1]


async def test_a_zombie_ends_no_call(hands, store: Store) -> None:
    zombie, _, owner = await taken_over(hands, store)
    call_key = await hands.begin(owner, 2)
    with pytest.raises(ClaimLost):
        await store.end_call(zombie, call_key, OUTCOME)
    assert (await store.calls(owner.job_key))[1].outcome is None


async def test_a_zombie_settles_nothing(hands, store: Store) -> None:
    zombie, call_key, owner = await taken_over(hands, store)
    with pytest.raises(ClaimLost):
        await store.settle(zombie, DONE)
    with pytest.raises(ClaimLost):
        await store.end_call_and_settle(zombie, call_key, OUTCOME, DONE)
    job = await hands.job()
    assert (job.state, job.claim) == (State.EXECUTING, owner.number)
    await store.settle(owner, DONE)


async def test_a_zombie_loads_nothing(hands, store: Store) -> None:
    zombie, _, owner = await taken_over(hands, store)
    with pytest.raises(ClaimLost):
        await store.load(zombie)
    loaded = await store.load(owner)
    assert loaded.next_seq == 1


async def test_ending_a_call_twice_counts_its_tokens_once(hands, store: Store) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    await store.end_call(claim, call_key, OUTCOME)
    await store.end_call(claim, call_key, CallOutcome(None))
    (batch,) = await store.batches()
    assert (batch.calls, batch.usage) == (1, OUTCOME.usage)
    assert (await store.calls(claim.job_key))[0].outcome == OUTCOME


async def test_one_call_of_a_job_runs_at_a_time(hands, store: Store) -> None:
    await hands.submit()
    claim = await hands.claim()
    await hands.begin(claim, 1)
    with pytest.raises(StoreError, match=r"(?i)unique"):
        await hands.begin(claim, 2)
    assert len(await store.calls(claim.job_key)) == 1


async def test_usage_is_summed_for_job_and_batch(hands, store: Store) -> None:
    await hands.submit()
    claim = await hands.claim()
    for number in (1, 2):
        await store.end_call(claim, await hands.begin(claim, number), OUTCOME)
    await hands.begin(claim, 3)
    job = await hands.job()
    assert (job.calls, job.usage) == (3, Usage(2, 4, 6, 8))
    (batch,) = await store.batches()
    assert (batch.calls, batch.usage) == (2, Usage(2, 4, 6, 8))


async def test_an_open_call_is_ended_as_broken_when_its_job_is_settled(hands, store) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    await store.save(claim, call_key, 0, "12345678")
    await store.save(claim, call_key, 1, "9")
    await store.settle(claim, Settlement(State.RETRYABLE, error="lost the wire", delay_ms=1))
    (call,) = await store.calls(claim.job_key)
    assert call.outcome == CallOutcome(
        None,
        usage=Usage(output_tokens=round(9 / 4), estimated=True),
        error="lost the wire",
        charge=Charge(prompt_tokens=0),
    )
    assert (await hands.job()).usage == call.outcome.usage
    assert await store.check() == []


RATES = Rates(1_000_000_000, 5_000_000_000, 1_250_000_000, 2_000_000_000, 100_000_000)
DEARER = Rates(2_000_000_000, 10_000_000_000, 2_500_000_000, 4_000_000_000, 200_000_000)


async def test_a_call_that_nobody_ends_costs_what_its_row_and_its_batch_tell(
    hands, store, clock
) -> None:
    await hands.submit(make_spec("a"), make_spec("b"))
    # An answered call: 4 tokens of thinking, 40 of text in 100 characters, 22 ms each.
    claim = await hands.claim()
    call_key = await hands.begin(claim, rates=RATES)
    clock.ms += 440
    answered = CallOutcome(
        "max_tokens",
        usage=Usage(10, output_tokens=44),
        text_characters=100,
        thinking_tokens=4,
        charge=Charge(cost_nano_usd=230_000),
    )
    await store.end_call_and_settle(
        claim, call_key, answered, Settlement(State.DISCARDED, error="enough")
    )
    # One that died: begun with an expectation, then counted and in part saved.
    claim = await hands.claim()
    call_key = await hands.begin(claim, rates=RATES, input_tokens=900, max_tokens=1_000)
    counted = Counted(Usage(200, 80, 700, 9, cache_creation_1h_input_tokens=30), 5, DEARER)
    await store.count(claim, call_key, counted)
    await store.save(claim, call_key, 0, "x" * 50)
    await store.settle(claim, Settlement(State.DISCARDED, error="died"))

    (call,) = await store.calls(claim.job_key)
    output = 9 + 50 * 40 // 100
    usage = Usage(200, 80, 700, output, True, 30)
    assert call.outcome.usage == usage
    assert call.outcome.charge == Charge(DEARER.cost(usage), 980, 5)
    assert call.rates == DEARER
    (batch,) = await store.batches()
    assert batch.cost_nano_usd == 230_000 + DEARER.cost(usage)
    assert batch.unpriced_calls == 0


async def test_a_call_that_nobody_ends_costs_no_more_than_it_may_write(hands, store) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim, input_tokens=7, max_tokens=3)
    await store.save(claim, call_key, 0, "x" * 1_000)
    await store.settle(claim, Settlement(State.DISCARDED, error="died"))
    (call,) = await store.calls(claim.job_key)
    assert call.outcome.usage == Usage(7, output_tokens=3, estimated=True)
    # Nobody knows the price, and it is not taken as nothing.
    assert call.cost_nano_usd is None
    assert (await hands.job()).unpriced_calls == 1


async def test_a_call_without_a_checkpoint_may_have_begun_to_write(hands, store, clock) -> None:
    await hands.submit(make_spec("a"), make_spec("b"))
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    clock.ms += 100
    answered = CallOutcome(
        "end_turn", usage=Usage(10, output_tokens=40), text_characters=60, thinking_tokens=16
    )
    await store.end_call_and_settle(
        claim, call_key, answered, Settlement(State.DISCARDED, error="enough")
    )
    claim = await hands.claim()
    await hands.begin(claim, input_tokens=7)
    await store.settle(claim, Settlement(State.DISCARDED, error="died"))
    (call,) = await store.calls(claim.job_key)
    written = 16 // 2 + round(40 / 100 * BEFORE_CHECKPOINT_MS)
    assert call.outcome.usage == Usage(7, output_tokens=written, estimated=True)
    assert call.lost_output_tokens == written


async def test_only_the_holder_says_how_a_call_is_billed(hands, store) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim, input_tokens=7)
    await store.rescue("w1", max_rescues=3)
    with pytest.raises(ClaimLost):
        await store.count(claim, call_key, Counted(Usage(900)))
    (call,) = await store.calls(claim.job_key)
    assert call.outcome.usage.input_tokens == 7
