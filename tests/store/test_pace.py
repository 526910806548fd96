"""What processes on one database tell each other of rate limits."""

from __future__ import annotations

import pytest

from runner.errors import CoolingDown
from runner.store.pace import DOWN, SEEN_MS
from runner.store.records import LimitUse
from runner.store.store import Store

pytestmark = pytest.mark.anyio

USE = LimitUse("k", "claude-haiku-4-5", wished=8, in_flight=2)


async def test_a_call_is_refused_while_its_limit_rests_and_nothing_is_written(
    hands, store, open_store, clock
):
    await hands.submit()
    claim = await hands.claim()
    other: Store = await open_store()
    await other.cool_down("k", "a model", 5.0, "met by another process")
    with pytest.raises(CoolingDown, match="met by another process") as caught:
        await hands.begin(claim, limit_key="k")
    assert caught.value.seconds == 5.0
    assert await store.calls(claim.job_key) == []
    clock.ms += 4_999
    with pytest.raises(CoolingDown):
        await hands.begin(claim, limit_key="k")
    clock.ms += 1
    await hands.begin(claim, limit_key="k")


async def test_another_limit_does_not_rest(hands, store):
    await hands.submit()
    claim = await hands.claim()
    await store.cool_down("k", "a model", 5.0, "met")
    await hands.begin(claim, limit_key="another")


async def test_a_shorter_rest_shortens_nothing(hands, store, clock):
    await store.cool_down("k", "a model", 10.0, "long")
    await store.cool_down("k", "a model", 2.0, "short")
    await hands.register("w1")
    (seen,) = await store.share_limits("w1", [USE])
    assert (seen.cooled_s, seen.cause) == (10.0, "long")
    clock.ms += 10_001
    await store.cool_down("k", "a model", 2.0, "short")
    (seen,) = await store.share_limits("w1", [USE])
    assert (seen.cooled_s, seen.cause) == (2.0, "short")


async def test_a_probe_goes_alone(hands, store, clock):
    await hands.submit()
    claim = await hands.claim()
    await store.cool_down("k", "a model", 1.0, DOWN + "529")
    clock.ms += 1_000
    await hands.begin(claim, limit_key="k", probe_ms=30_000)
    await hands.submit(batch="c")
    another = await hands.claim()
    with pytest.raises(CoolingDown) as caught:
        await hands.begin(another, limit_key="k", probe_ms=30_000)
    assert caught.value.seconds == 30.0
    await store.end_outage("k")
    await hands.begin(another, limit_key="k")


async def test_an_answer_ends_an_outage_and_no_other_rest(hands, store):
    await store.cool_down("k", "a model", 5.0, "429")
    await store.end_outage("k")
    await hands.register("w1")
    (seen,) = await store.share_limits("w1", [USE])
    assert seen.cooled_s == 5.0


async def test_processes_see_each_other_for_as_long_as_they_tell(hands, store, clock):
    await hands.register("w1")
    await hands.register("w2")
    await store.share_limits("w1", [USE])
    (seen,) = await store.share_limits("w2", [USE])
    assert seen.members == {"w1": (2, 8), "w2": (2, 8)}
    clock.ms += SEEN_MS + 1
    (seen,) = await store.share_limits("w2", [USE])
    assert set(seen.members) == {"w2"}
    await store.share_limits("w1", [USE])
    await store.retire_worker("w1")
    (seen,) = await store.share_limits("w2", [USE])
    assert set(seen.members) == {"w2"}
    (seen,) = await store.share_limits("w2", [LimitUse("k", "a", wished=0, in_flight=0)])
    assert seen.members == {}


async def test_a_process_that_was_rescued_shares_nothing_and_breaks_nothing(store):
    (seen,) = await store.share_limits("gone", [USE])
    assert seen.members == {}


async def test_limits_that_were_told_stay_known(hands, store):
    await hands.register("w1")
    told = LimitUse("k", "a", 1, 1, requests_per_minute=1_000, output_tokens_per_minute=400_000)
    await store.share_limits("w1", [told])
    (seen,) = await store.share_limits("w1", [USE])
    assert (seen.requests_per_minute, seen.input_tokens_per_minute) == (1_000, None)
    assert seen.output_tokens_per_minute == 400_000


async def test_a_clock_that_is_set_back_makes_no_rest_longer(hands, store, clock):
    await hands.submit()
    claim = await hands.claim()
    await store.cool_down("k", "a model", 5.0, "429")
    clock.ms -= 3_600_000
    (seen,) = await store.share_limits("w1", [USE])
    assert seen.cooled_s == 0.0
    await hands.begin(claim, limit_key="k")
    # The next rest is kept by the clock as it is now.
    await store.cool_down("k", "a model", 2.0, "429 again")
    (seen,) = await store.share_limits("w1", [USE])
    assert (seen.cooled_s, seen.cause) == (2.0, "429 again")


async def test_a_small_step_back_ends_no_rest(hands, store, clock):
    await hands.register("w1")
    await store.cool_down("k", "a model", 5.0, "429")
    clock.ms -= 500
    (seen,) = await store.share_limits("w1", [USE])
    assert seen.cooled_s == 5.5
