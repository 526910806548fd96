"""`runner estimate` and `run --dry-run`: what they say, hold, and leave alone; and how near they
come to what is billed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.simulator import Simulator
from tests.cli.conftest import Invoke
from tests.cli.jobs_files import write
from tests.cli.simulated import simulator
from tests.strangers import a_stranger

ROOT = Path(__file__).parents[2]
EXAMPLES = ["jobs.example.yaml", "requests.example.jsonl"]
NEAR = 0.15


@pytest.fixture
def endpoint(runner: Invoke, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A fast simulator, as the endpoint that commands find; `runner` cleans the environment first."""
    with simulator() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
        yield server


@pytest.fixture
def fast_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """--simulate at full speed: what is written does not depend on it."""
    monkeypatch.setattr("runner.cli.working.SIMULATED_TOKENS_PER_SECOND", 1e6)


def estimated(runner: Invoke, *args: object) -> dict[str, Any]:
    result = runner("estimate", *args, "--json")
    assert result.exit_code == 0, result.stderr
    (batch,) = json.loads(result.stdout)["batches"]
    return dict(batch)


def billed(database: str | Path) -> dict[str, float]:
    """What a run was billed for."""
    with a_stranger(str(database)) as stranger:
        ((calls, *tokens, output, cost),) = stranger.execute(
            "SELECT calls, input_tokens, cache_creation_input_tokens, cache_read_input_tokens,"
            " output_tokens, cost_nano_usd FROM batch"
        )
    return {
        "calls": calls,
        "input_tokens": sum(tokens),
        "output_tokens": output,
        "cost_usd": cost / 1e9,
    }


def assert_near(estimate: dict[str, Any], truth: dict[str, float]) -> None:
    for name, true in truth.items():
        told = estimate["total"][name]
        assert told["expected"] == pytest.approx(true, rel=NEAR), name
        assert told["low"] <= told["expected"] <= told["high"]


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.usefixtures("fast_simulation")
def test_a_rehearsal_comes_near_the_simulated_truth(
    runner: Invoke, tmp_path: Path, example: str
) -> None:
    for path in ROOT.glob("*.example.*"):
        shutil.copy(path, tmp_path)
    estimate = estimated(runner, example, "--simulate")
    assert estimate["rests_on"]["documents_rehearsed"] == estimate["jobs"]
    assert not list(tmp_path.glob("*.db*"))
    assert runner("run", example, "--simulate").exit_code == 0
    assert_near(estimate, billed(tmp_path / "runner.db"))


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.usefixtures("endpoint")
def test_counts_and_words_come_near_what_is_billed(
    runner: Invoke, tmp_path: Path, example: str
) -> None:
    for path in ROOT.glob("*.example.*"):
        shutil.copy(path, tmp_path)
    estimate = estimated(runner, example)
    assert estimate["rests_on"]["documents_rehearsed"] == 0
    assert estimate["rests_on"]["prompts_counted"] == estimate["jobs"]
    assert runner("run", example).exit_code == 0
    assert_near(estimate, billed(tmp_path / "runner.db"))


def test_an_estimate_only_counts(runner: Invoke, tmp_path: Path, endpoint: Simulator) -> None:
    jobs = write(tmp_path, count=30)
    for command in (("estimate", jobs), ("run", jobs, "--dry-run")):
        result = runner(*command)
        assert result.exit_code == 0
        assert "animals: 30 documents to write, about $" in result.stdout
        assert "input counted for 20 of 30 prompts" in result.stdout
    assert endpoint.books.requests_by_kind["messages"] == 0
    assert endpoint.books.requests_by_kind["count_tokens"] == 2 * (20 + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.yaml"]


def test_without_a_key_it_says_so(runner: Invoke, tmp_path: Path) -> None:
    result = runner("estimate", write(tmp_path))
    assert result.exit_code == 0
    assert "no key to have it counted" in result.stdout
    assert "1,500 tokens assumed" in result.stdout or "`max_tokens`" in result.stdout
    assert result.stderr == ""


def test_an_endpoint_that_counts_nothing_is_no_error(
    runner: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    result = runner("estimate", write(tmp_path))
    assert result.exit_code == 0
    assert "the endpoint does not count tokens" in result.stdout


def test_an_unknown_price_is_said(runner: Invoke, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.yaml"
    text = (
        "version: 1\njobs:\n"
        "  - {id: a, model: local-llama, prompt: In 300 words.}\n"
        "  - {id: b, model: claude-haiku-4-5, prompt: In 300 words.}\n"
    )
    jobs.write_text(text)
    result = runner("estimate", jobs)
    assert "the price of local-llama is not known" in result.stdout
    assert "and what has no known price" in result.stdout
    estimate = estimated(runner, jobs)
    by_model = {model["model"]: model for model in estimate["models"]}
    assert estimate["total"]["cost_usd"] is by_model["local-llama"]["cost_usd"] is None
    assert by_model["local-llama"]["output_tokens"]["expected"] > 300
    assert by_model["claude-haiku-4-5"]["cost_usd"]["expected"] > 0

    jobs.write_text(text + "prices: {local-llama: {input: 1, output: 2}}\n")
    assert estimated(runner, jobs)["total"]["cost_usd"]["expected"] > 0


@pytest.mark.usefixtures("fast_simulation")
def test_what_is_final_is_not_paid_again(runner: Invoke, tmp_path: Path, queue: str) -> None:
    jobs = write(tmp_path, count=6)
    whole = estimated(runner, jobs, "--simulate")
    assert (whole["documents"], whole["final"], whole["spent_usd"]) == (6, 0, 0)
    assert runner("run", jobs, "--simulate", "--limit", 4).exit_code == 0
    rest = estimated(runner, jobs, "--simulate")
    assert (rest["jobs"], rest["documents"], rest["final"]) == (6, 2, 4)
    spent = billed(queue)["cost_usd"]
    assert rest["spent_usd"] == pytest.approx(spent)
    assert spent + rest["total"]["cost_usd"]["expected"] == pytest.approx(
        whole["total"]["cost_usd"]["expected"], rel=0.05
    )
    assert runner("run", jobs, "--simulate").exit_code == 0
    done = runner("estimate", jobs, "--simulate")
    assert "all 6 jobs are final already" in done.stdout
    assert "there already: 6 of 6 jobs final; spent so far $" in done.stdout

    other = runner("estimate", jobs)  # a real run of the same name
    assert "the database holds simulated documents under this name" in other.stdout


@pytest.mark.usefixtures("endpoint")
def test_finished_documents_are_learned_from(runner: Invoke, tmp_path: Path, queue: str) -> None:
    jobs = write(tmp_path, count=40)
    before = estimated(runner, jobs)
    assert set(before["rests_on"]["lengths"]) == {"max_tokens"}
    assert runner("run", jobs, "--limit", 20).exit_code == 0
    after = estimated(runner, jobs)
    assert after["rests_on"]["lengths"] == {"finished": 20}
    mean = billed(queue)["output_tokens"] / 20
    assert after["total"]["output_tokens"]["expected"] == pytest.approx(20 * mean, rel=0.01)

    more = write(tmp_path, name="more.yaml", batch="more", count=10, prompt="Tell me of plant")
    other = estimated(runner, more)
    assert other["rests_on"]["lengths"] == {"similar": 10}
    assert other["total"]["output_tokens"]["expected"] == pytest.approx(10 * mean, rel=0.15)
    # Documents of a simulation say nothing of real ones.
    assert runner("estimate", more, "--simulate", "--json").exit_code == 0


def test_it_is_one_quiet_screen(runner: Invoke, tmp_path: Path) -> None:
    files = [write(tmp_path, name=f"{n}.yaml", batch=f"b{n}", count=n) for n in (1, 2, 3)]
    result = runner("estimate", *files)
    lines = result.stdout.splitlines()
    assert len(lines) < 24
    assert re.search(r"^together +6 ", result.stdout, re.MULTILINE)
    assert result.stderr == ""


def test_a_wrong_file_is_refused_before_anything(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path, extra=", max_token: 3")
    result = runner("estimate", jobs)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_budget_that_ends_it_before_is_said(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path, count=50)
    jobs.write_text(jobs.read_text() + "limits: {max_cost_usd: 0.01, max_output_tokens: 900}\n")
    said = runner("estimate", jobs).stdout
    assert "its budget of $0.01 would end it before" in said
    assert "its budget of 900 output tokens would end it before" in said


@pytest.mark.usefixtures("endpoint")
def test_time_goes_by_the_limits_that_earlier_runs_met(
    runner: Invoke, tmp_path: Path, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = write(tmp_path, count=30)
    assert runner("run", jobs, "--limit", 1).exit_code == 0
    with a_stranger(queue) as stranger:
        changed = "UPDATE pace SET requests_per_minute = 60 RETURNING limit_key"
        assert len(stranger.execute(changed)) == 1
    met = estimated(runner, jobs)
    assert met["time_goes_by"] == "requests_per_minute"
    calls = met["total"]["calls"]["expected"]
    assert met["seconds"]["expected"] == pytest.approx(calls, abs=1)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another-key")
    assert estimated(runner, jobs)["time_goes_by"] != "requests_per_minute"
