"""Calls whose process died: what the ledger estimates of them comes to what the API billed."""

from __future__ import annotations

import pytest

from tests.crash.died import die

pytestmark = pytest.mark.anyio


TOKENS_PER_SECOND = 60
OUTPUT_USD = 5e-6  # of claude-haiku-4-5, a token
LATE_S = 0.1


async def test_calls_that_died_are_estimated_within_five_percent_in_sum(database: str) -> None:
    found = await die(
        database,
        kills=4,
        jobs=12,
        document_tokens=300,
        max_tokens=150,
        concurrency=8,
        tokens_per_second=TOKENS_PER_SECOND,
    )
    assert found["died"] >= 24
    # A process may die between writing a call down and sending it.
    assert found["died"] - 3 <= found["billed"] <= found["died"]
    assert found["input"] == pytest.approx(found["input_billed"], rel=0.05)
    # Where other programs keep the machine busy, more is on its way at any moment than usual.
    late_usd = found["died"] * TOKENS_PER_SECOND * LATE_S * OUTPUT_USD
    assert abs(found["cost"] - found["cost_billed"]) < 0.05 * found["cost_billed"] + late_usd, found
