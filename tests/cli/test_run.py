"""run, submit, work, validate: what they do, say, and end with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.cli.jobs_files import write
from tests.cli.simulated import simulator
from tests.jobs.bad_input import CASES, BadInput


@pytest.fixture(scope="module")
def fast() -> Iterator[str]:
    """The address of a simulator that writes as fast as it can."""
    with simulator() as server:
        yield server.base_url


@pytest.fixture
def endpoint(runner: Invoke, fast: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the fast simulator the endpoint of commands; `runner` cleans the environment first."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", fast)


def counts(runner: Invoke) -> dict[str, int]:
    (batch,) = json.loads(runner("status", "--json").stdout)["batches"]
    return {"complete": batch["complete"], "calls": batch["calls"], **batch["states"]}


@pytest.mark.usefixtures("queue")
def test_run_finishes_documents_and_says_so(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path)
    result = runner("run", jobs, "--simulate")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "animals: 2 jobs, 2 new" in result.stderr
    assert "animals (simulated): 2 documents: 2 complete; " in result.stderr
    assert "runner export" in result.stderr
    calls = counts(runner)["calls"]
    assert calls > 2

    again = runner("run", jobs, "--simulate")
    assert again.exit_code == 0
    assert "2 there already" in again.stderr
    assert counts(runner)["calls"] == calls

    exported = runner("export")
    assert exported.exit_code == 0
    assert exported.stdout == ""
    assert {path.name for path in (tmp_path / "output").rglob("*.md")} == {"job-0.md", "job-1.md"}


@pytest.mark.usefixtures("queue", "endpoint")
def test_a_cut_document_ends_with_1(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path, max_tokens=50, extra=", continuation: {max_calls: 1}")
    result = runner("run", jobs)
    assert result.exit_code == 1
    assert "2 cut" in result.stderr
    assert runner("export").exit_code == 1
    assert not list((tmp_path / "output/animals").glob("*.md"))


@pytest.mark.usefixtures("queue", "endpoint")
def test_several_files(runner: Invoke, tmp_path: Path) -> None:
    one = write(tmp_path, name="one.yaml", batch="one")
    two = write(tmp_path, name="two.yaml", batch="two", count=1)
    result = runner("run", one, two)
    assert result.exit_code == 0
    assert "one: 2 documents: 2 complete" in result.stderr
    assert "two: 1 documents: 1 complete" in result.stderr


@pytest.mark.usefixtures("queue")
def test_submit_then_work(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path)
    assert runner("submit", jobs, "--simulate").exit_code == 0
    assert counts(runner)["available"] == 2
    result = runner("work", "--simulate", "--concurrency", "1")
    assert result.exit_code == 0
    assert counts(runner)["complete"] == 2
    assert runner("work", "--simulate", "--batch", "plants").exit_code == 2


@pytest.mark.usefixtures("queue")
def test_another_batch_name(runner: Invoke, tmp_path: Path) -> None:
    assert runner("submit", write(tmp_path), "--batch", "other").exit_code == 0
    assert "other" in runner("status").stdout


@pytest.mark.usefixtures("queue", "endpoint")
def test_a_changed_prompt_is_refused_replaced_or_left(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path)
    assert runner("run", jobs).exit_code == 0
    first = runner("show", "job-0", "--text").stdout
    write(tmp_path, prompt="Write otherwise about animal")
    refused = runner("run", jobs)
    assert refused.exit_code == 2
    assert "--replace" in refused.stderr
    assert "--keep" in refused.stderr
    assert "job-0" in refused.stderr
    assert runner("run", jobs, "--keep").exit_code == 0
    assert runner("show", "job-0", "--text").stdout == first
    assert runner("run", jobs, "--replace").exit_code == 0
    assert runner("show", "job-0", "--text").stdout != first


def test_without_a_key_nothing_is_queued(runner: Invoke, tmp_path: Path) -> None:
    result = runner("run", write(tmp_path))
    assert result.exit_code == 4
    assert "ANTHROPIC_API_KEY" in result.stderr
    assert "--simulate" in result.stderr
    assert not list(tmp_path.glob("*.db*"))


@pytest.mark.usefixtures("queue")
def test_a_refused_key_ends_with_4_and_a_good_one_goes_on(
    runner: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = write(tmp_path)
    with simulator(api_key="right") as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-wrong-secret")
        refused = runner("run", jobs)
        assert refused.exit_code == 4
        assert "animals is paused (credentials)" in refused.stderr
        assert "sk-wrong-secret" not in refused.output
        assert counts(runner)["discarded"] == 0
        monkeypatch.setenv("ANTHROPIC_API_KEY", "right")
        assert runner("run", jobs).exit_code == 0


@pytest.mark.usefixtures("queue")
def test_a_spend_cap_ends_with_3(
    runner: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulator(faults={"http_429_spend_cap": 1.0}) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        result = runner("run", write(tmp_path))
    assert result.exit_code == 3
    assert "animals is paused (spend_cap)" in result.stderr


def test_validate(runner: Invoke, tmp_path: Path) -> None:
    result = runner("validate", write(tmp_path), write(tmp_path, name="b.yaml", batch="b", count=1))
    assert result.exit_code == 0
    assert result.stdout == "ok: 2 jobs in batch animals\nok: 1 job in batch b\n"
    assert not list(tmp_path.glob("*.db*"))


def test_all_wrong_files_are_shown_and_nothing_is_queued(runner: Invoke, tmp_path: Path) -> None:
    good = write(tmp_path)
    (tmp_path / "bad.yaml").write_text("version: 1\njbos: []\n")
    result = runner("run", good, tmp_path / "bad.yaml", tmp_path / "gone.yaml", "--simulate")
    assert result.exit_code == 2
    assert "bad.yaml" in result.stderr
    assert "gone.yaml" in result.stderr
    assert not list(tmp_path.glob("*.db*"))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_is_refused_with_2(case: BadInput, runner: Invoke, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    before = sorted(tmp_path.iterdir())
    for command in (["validate"], ["submit"], ["run", "--simulate"]):
        result = runner(*command, path)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        for piece in case.says:
            assert piece in result.stderr
    assert sorted(tmp_path.iterdir()) == before  # no database, not even an empty one
