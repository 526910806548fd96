"""A damaged file: a clear word, and nothing made worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import NotADatabase
from tests.house import a_house, job

pytestmark = [pytest.mark.anyio, pytest.mark.in_a_file]


async def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    async with a_house(tmp_path) as house:
        await house.submit(job("a"))
    whole = path.read_bytes()
    damaged = whole[:8192] + b"\xff" * (len(whole) - 8192)
    path.write_bytes(damaged)
    with pytest.raises(NotADatabase, match=r"is damaged .* copy it away with its -wal file"):
        async with a_house(tmp_path) as house:
            await house.worker().run()
    assert path.read_bytes() == damaged
