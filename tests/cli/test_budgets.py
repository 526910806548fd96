"""Budgets from the command line: refused where they cannot be kept, kept where they can."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import runner as runner  # a fixture
from tests.cli.simulated import simulator

HEAD = "version: 1\nbatch: animals\n"


def write(
    folder: Path,
    *,
    limits: str = "",
    model: str = "claude-haiku-4-5",
    extra: str = "",
    job: str = "",
) -> Path:
    path = folder / "jobs.yaml"
    path.write_text(
        f"{HEAD}{extra}limits: {{concurrency: 4{limits}}}\n"
        f"defaults: {{model: {model}, max_tokens: 300}}\njobs:\n"
        + "".join(
            f"  - {{id: job-{n}, prompt: 'Write about animal {n}. [[simulate: tokens=700]]'{job}}}\n"
            for n in range(4)
        ),
        encoding="utf-8",
    )
    return path


REFUSED = {
    "of the batch": ({"limits": ", max_cost_usd: 5"}, r"jobs.yaml:3:40: limits.max_cost_usd: "),
    "of a job": (
        {"job": ", continuation: {max_cost_usd: 5}"},
        r"jobs.yaml:6:\d+: jobs\[0\].continuation.max_cost_usd: ",
    ),
}


@pytest.mark.parametrize("command", ["validate", "submit", "run"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_budget_that_cannot_be_kept_is_refused_before_anything_is_queued(
    runner, tmp_path, monkeypatch, command, case
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    changes, place = REFUSED[case]
    jobs = write(tmp_path, model="local-llama", **changes)
    result = runner(command, jobs)
    assert result.exit_code == 2
    assert re.search(place + 'the price of "local-llama" is not known', result.stderr)
    assert "`prices: {local-llama: {input: …, output: …}}`" in result.stderr
    assert not (tmp_path / "runner.db").exists()
    prices = "prices: {local-llama: {input: 1, output: 2}}\n"
    assert runner("validate", write(tmp_path, model="local-llama", extra=prices, **changes)).exit_code == 0  # fmt: skip


def test_a_request_that_costs_more_by_its_own_fields_has_no_known_price(runner, tmp_path):
    geo = ", params: {inference_geo: us}"
    limits = ", max_cost_usd: 5"
    result = runner("validate", write(tmp_path, model="claude-opus-5-5", limits=limits, job=geo))
    assert result.exit_code == 2
    assert 'the price of "claude-opus-5-5" is not known' in result.stderr
    assert runner("validate", write(tmp_path, model="claude-opus-5-5", job=geo)).exit_code == 0


@pytest.mark.usefixtures("queue")
def test_a_run_stops_at_its_budget_says_so_and_goes_on_when_it_is_raised(
    runner, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    with simulator() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        jobs = write(tmp_path, limits=", max_cost_usd: 0.008")
        result = runner("run", jobs)
        assert result.exit_code == 3
        assert "its budget `max_cost_usd` of $0.008 has no room for the next call" in result.stderr
        assert "raise it in the job file, and the same `runner run` goes on" in result.stderr
        (batch,) = json.loads(runner("limits", "--json").stdout)["batches"]
        assert 0.006 < batch["cost_usd"] <= 0.008
        assert batch["reserved_usd"] == 0
        requests = server.books.requests_by_kind["messages"]
        again = runner("run", jobs)
        assert again.exit_code == 3
        assert "has no room for the next call" in again.stderr
        assert server.books.requests_by_kind["messages"] == requests
        # By an order, for as long as the file is not submitted again …
        assert runner("limits", "animals", "--max-cost-usd", "0.012").exit_code == 0
        assert runner("work").exit_code == 3
        assert server.books.requests_by_kind["messages"] > requests
        # … and in the file.
        result = runner("run", write(tmp_path, limits=", max_cost_usd: 1"))
        assert result.exit_code == 0
        assert "4 complete" in result.stderr
        assert server.books.restarts == 0


@pytest.mark.usefixtures("queue")
def test_a_budget_for_models_without_a_price_is_refused_by_an_order_too(runner, tmp_path):
    assert runner("submit", write(tmp_path, model="local-llama")).exit_code == 0
    result = runner("limits", "animals", "--max-cost-usd", "5")
    assert result.exit_code == 2
    assert "the price of local-llama is not known" in result.stderr
    (batch,) = json.loads(runner("limits", "--json").stdout)["batches"]
    assert batch["max_cost_usd"] is None
