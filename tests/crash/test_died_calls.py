"""Calls whose process died: what the ledger estimates of them comes to what the API billed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.died import die

pytestmark = pytest.mark.anyio


async def test_calls_that_died_are_estimated_within_five_percent_in_sum(tmp_path: Path) -> None:
    found = await die(tmp_path, kills=6, jobs=32, document_tokens=400, max_tokens=200)
    assert found["died"] >= 40
    assert found["died"] == found["billed"]
    assert found["cost"] == pytest.approx(found["cost_billed"], rel=0.05), found
