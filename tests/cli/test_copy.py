"""`runner db copy`, and what the other commands say of a batch that was copied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke


@pytest.fixture
def idle(runner: Invoke, filled: Path) -> Path:
    """A filled database that nobody works on."""
    assert runner("rescue", "--worker", "w1", "--db", filled).exit_code == 0
    return filled


def test_what_is_worked_on_stays_and_the_others_go(runner: Invoke, filled: Path) -> None:
    result = runner("db", "copy", filled, "two.db")
    assert result.exit_code == 1
    assert "batch 'animals' is worked on by process 1 on h" in result.stderr
    assert "dull: " in result.stderr
    assert "(copy)" not in runner("status", "--db", filled, "animals").stdout


def test_all_batches_move_and_look_the_same(runner: Invoke, idle: Path) -> None:
    before = json.loads(runner("status", "--json", "--db", idle).stdout)
    cost = runner("cost", "--by", "job", "--json", "--db", idle).stdout
    assert runner("export", "--db", idle, "--out", "one").exit_code in {0, 1}
    result = runner("db", "copy", idle, "two.db")
    assert result.exit_code == 0, result.stderr
    for batch in before["batches"]:
        assert f"{batch['batch']}: " in result.stderr
    assert json.loads(runner("status", "--json", "--db", "two.db").stdout) == before
    assert runner("cost", "--by", "job", "--json", "--db", "two.db").stdout == cost
    runner("export", "--db", "two.db", "--out", "two")
    files = sorted(file.relative_to("one") for file in Path("one").rglob("*") if file.is_file())
    assert files
    for file in files:
        assert (Path("two") / file).read_bytes() == (Path("one") / file).read_bytes()
    again = runner("db", "copy", idle, "two.db")
    assert (again.exit_code, "of them from before" in again.stderr) == (0, True)


def test_where_it_was_says_where_it_is(runner: Invoke, idle: Path) -> None:
    assert runner("db", "copy", idle, "two.db", "--batch", "animals").exit_code == 0
    said = runner("status", "--db", idle).stdout
    assert "animals is paused (copy): it was copied to " in said
    assert "two.db and goes on there" in said
    refused = runner("resume", "animals", "--db", idle)
    assert (refused.exit_code, "both pay" in refused.stderr) == (2, True)
    elsewhere = runner("db", "copy", idle, "three.db", "--batch", "animals")
    assert (elsewhere.exit_code, "is not here any more" in elsewhere.stderr) == (2, True)
    back = runner("db", "copy", "two.db", idle)
    assert (back.exit_code, "was copied away from there" in back.stderr) == (2, True)
    lifted = runner("resume", "animals", "--copied", "--db", idle)
    assert (lifted.exit_code, "animals goes on" in lifted.stderr) == (0, True)
    assert "(copy)" not in runner("status", "--db", idle).stdout


def test_wrong_use(runner: Invoke, idle: Path) -> None:
    assert runner("db", "copy", idle).exit_code == 2
    assert runner("db", "copy", "nothing.db", "two.db").exit_code == 1
    assert not Path("two.db").exists()
    assert runner("db", "copy", idle, "two.db", "--batch", "nobody").exit_code == 2
    same = runner("db", "copy", idle, idle)
    assert (same.exit_code, "the same database" in same.stderr) == (2, True)
    # Of several batches the others are copied where one cannot be.
    runner("db", "copy", idle, "two.db", "--batch", "animals")
    runner("resume", "animals", "--copied", "--db", idle)
    result = runner("db", "copy", idle, "two.db")
    assert result.exit_code == 2
    assert "error: " in result.stderr
    assert "batch 'animals' of its own" in result.stderr
    assert "dull: " in result.stderr
