"""`runner limits`: what it shows, what it changes, what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Invoke
from tests.cli.jobs_files import write
from tests.places import sqlite_only
from tests.strangers import a_stranger

pytestmark = pytest.mark.usefixtures("queue")


def batch(runner: Invoke) -> dict[str, Any]:
    (found,) = json.loads(runner("limits", "--json").stdout)["batches"]
    return dict(found)


def sql(statement: str) -> None:
    with a_stranger(os.environ["RUNNER_DB"]) as stranger:
        stranger.execute(statement)


def test_it_shows_what_the_job_file_says(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path)
    jobs.write_text(
        jobs.read_text()
        + "limits: {concurrency: 7, concurrency_by_model: {claude-haiku-4-5: 3}, max_cost_usd: 12.5,\n"
        "  output_tokens_per_minute: 40000, breaker: off}\n"
    )
    runner("submit", jobs)
    shown = runner("limits").stdout
    assert "7, claude-haiku-4-5: 3" in shown
    assert "$0.00 of $12.50" in shown
    assert "40,000" in shown
    assert "rate limits: none told by the API yet" in shown
    assert batch(runner) == {
        "batch": "animals", "paused": None, "pause_reason": None,
        "concurrency": 7, "concurrency_by_model": {"claude-haiku-4-5": 3}, "max_attempts": 10,
        "requests_per_minute": None, "input_tokens_per_minute": None,
        "output_tokens_per_minute": 40_000,
        "max_cost_usd": 12.5, "cost_usd": 0.0, "reserved_usd": 0.0, "unpriced_calls": 0,
        "max_output_tokens": None, "output_tokens": 0, "reserved_output_tokens": 0,
        "breaker": False,
    }  # fmt: skip


def test_each_limit_changes_and_the_file_brings_its_own_back(
    runner: Invoke, tmp_path: Path
) -> None:
    jobs = write(tmp_path)
    runner("submit", jobs)
    before = batch(runner)
    result = runner(
        "limits", "animals", "--concurrency", 3, "--requests-per-minute", 50,
        "--input-tokens-per-minute", 1000, "--output-tokens-per-minute", 2000,
        "--max-cost-usd", "0.25", "--max-output-tokens", 9, "--breaker", "off",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "`runner run` and `runner submit` bring the file's limits back" in result.stderr
    changed = {
        "concurrency": 3, "requests_per_minute": 50, "input_tokens_per_minute": 1000,
        "output_tokens_per_minute": 2000, "max_cost_usd": 0.25, "max_output_tokens": 9,
        "breaker": False,
    }  # fmt: skip
    assert batch(runner) == before | changed
    runner("limits", "animals", "--requests-per-minute", "auto", "--max-cost-usd", "none")
    changed |= {"requests_per_minute": None, "max_cost_usd": None}
    assert batch(runner) == before | changed
    runner("limits", "animals", "--max-output-tokens", "none", "--breaker", "on")
    changed |= {"max_output_tokens": None, "breaker": True}
    assert batch(runner) == before | changed
    runner("submit", jobs)
    assert batch(runner) == before


@sqlite_only
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--concurrency", "0"], "not in the range 1<=x<=1000"),
        (["--concurrency", "many"], "not a valid integer"),
        (["--requests-per-minute", "0"], "neither a whole number from 1 to"),
        (["--requests-per-minute", "-5"], "neither a whole number from 1 to"),
        (["--requests-per-minute", "none"], "nor `auto`"),
        (["--input-tokens-per-minute", "1e6"], "neither a whole number"),
        (["--output-tokens-per-minute", "9" * 5000], "neither a whole number"),
        (["--max-cost-usd", "0"], "neither an amount of dollars"),
        (["--max-cost-usd", "-3"], "neither an amount of dollars"),
        (["--max-cost-usd", "nan"], "neither an amount of dollars"),
        (["--max-cost-usd", "inf"], "neither an amount of dollars"),
        (["--max-cost-usd", "1e99"], "neither an amount of dollars"),
        (["--max-cost-usd", "0.0000000001"], "neither an amount of dollars"),
        (["--max-cost-usd", "auto"], "nor `none`"),
        (["--max-output-tokens", "0"], "nor `none`"),
        (["--breaker", "maybe"], "'maybe' is not one of"),
    ],
)
def test_nonsense_is_refused(runner: Invoke, tmp_path: Path, words: list[str], said: str) -> None:
    runner("submit", write(tmp_path))
    before = batch(runner)
    result = runner("limits", "animals", *words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", "").split())
    assert batch(runner) == before


def test_a_change_wants_a_batch_that_is_there(runner: Invoke, tmp_path: Path) -> None:
    runner("submit", write(tmp_path))
    assert "say which batch" in runner("limits", "--concurrency", 5).stderr
    result = runner("limits", "aminals", "--concurrency", 5)
    assert result.exit_code == 2
    assert "no batch aminals" in result.stderr
    assert "no database" in " ".join(runner("limits", "--db", "none.db").stderr.split()).lower()


def test_shared_rate_limits_and_those_who_use_them(runner: Invoke, tmp_path: Path) -> None:
    runner("submit", write(tmp_path))
    sql("INSERT INTO worker VALUES ('w123456789', 'here', 1, 0, 9000000000000)")
    sql(
        "INSERT INTO pace VALUES ('k', 'opus-4 at \x1b[2Jhost', 9000000000000, 'rate limit', 50, "
        "20000, NULL, 0)"
    )
    sql("INSERT INTO worker VALUES ('dead', 'here', 1, 0, 0)")
    sql("INSERT INTO pace_member VALUES ('k', 'w123456789', 12, 9, 9000000000000)")
    sql("INSERT INTO pace_member VALUES ('k', 'dead', 7, 7, 1)")
    shown = runner("limits").stdout
    assert "\x1b" not in shown
    assert "9 of 12 (w1234567)" in shown
    assert ": rate limit" in shown
    assert "dead" not in shown
    (limit,) = json.loads(runner("limits", "--json").stdout)["rate_limits"]
    assert limit["cools_down_ms"] > 10**9
    assert (limit["requests_per_minute"], limit["output_tokens_per_minute"]) == (50, None)
    assert limit["processes"] == [{"worker": "w123456789", "concurrency": 12, "in_flight": 9}]


@pytest.mark.parametrize(
    ("option", "value", "goes_on"),
    [
        ("--max-cost-usd", "5", False),  # 4 spent, 0.5 set aside, and the next may cost 1
        ("--max-cost-usd", "5.49", False),
        ("--max-cost-usd", "5.50", True),
        ("--max-cost-usd", "none", True),
        ("--concurrency", "5", False),
        ("--max-output-tokens", "1000000", False),  # it is money that is short
    ],
)
def test_a_budget_with_room_again_lets_its_batch_go_on(
    runner: Invoke, tmp_path: Path, option: str, value: str, goes_on: bool
) -> None:
    runner("submit", write(tmp_path))
    runner("limits", "animals", "--max-cost-usd", "5")
    sql(
        "UPDATE batch SET paused = 'budget', pause_reason = 'no room', cost_nano_usd = 4000000000,"
        " reserved_nano_usd = 500000000, short_of_nano_usd = 1000000000"
    )
    result = runner("limits", "animals", option, value)
    assert (batch(runner)["paused"] is None) == goes_on
    assert ("goes on: its budget has room again" in result.stderr) == goes_on


def test_no_budget_ends_another_pause(runner: Invoke, tmp_path: Path) -> None:
    runner("submit", write(tmp_path))
    runner("pause", "animals", "--reason", "lunch")
    result = runner("limits", "animals", "--max-cost-usd", "none")
    assert batch(runner)["pause_reason"] == "lunch"
    assert "animals is paused (user): lunch" in result.stdout
