"""A bad key or a spent cap, seen from the command line: one clear message, an exit status, no loss."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import runner as runner  # a fixture
from tests.cli.jobs_files import write
from tests.cli.simulated import simulator


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("http_401", 4, "The key was refused"),
        ("http_403", 4, "The key may not do this"),
        ("http_402", 3, "spending limit is reached"),
        ("http_429_spend_cap", 3, "spending limit is reached"),
        ("http_400_own_limit", 3, "The spending limit you set yourself is reached"),
    ],
)
def test_a_run_pauses_says_why_and_goes_on_when_mended(
    runner,
    tmp_path,
    monkeypatch,
    fault,
    status,
    words,
):
    jobs = write(tmp_path, count=3)
    with simulator(fault_script=dict.fromkeys(range(5, 11), fault)) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        result = runner("run", jobs)
        assert result.exit_code == status
        assert (
            1 <= result.stderr.count(words) <= 2
        )  # when it happens and at the end; not once a job
        assert "test-key" not in result.stderr
        (batch,) = json.loads(runner("status", "--json").stdout)["batches"]
        assert batch["states"].get("discarded", 0) == 0
        while (result := runner("run", jobs)).exit_code == status:  # not mended yet
            assert server.books.requests_by_kind["messages"] < 30
        assert result.exit_code == 0
        assert "3 complete" in result.stderr
        assert server.books.restarts == 0
