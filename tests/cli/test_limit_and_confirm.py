"""`run --limit N`, and being asked above `confirm_above_usd`."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runner.simulator import Simulator
from tests.cli.conftest import Invoke
from tests.cli.jobs_files import write
from tests.cli.simulated import simulator


@pytest.fixture
def endpoint(runner: Invoke, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    with simulator() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
        yield server


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A person at the terminal, who gives these answers in turn."""
    given: list[bool] = []

    def confirm(question: str, *, err: bool) -> bool:
        assert question == "Begin?"
        assert err
        return given.pop(0)

    monkeypatch.setattr("runner.cli.confirming.at_a_terminal", lambda: True)
    monkeypatch.setattr("runner.cli.confirming.click.confirm", confirm)
    yield given
    assert given == []


def guarded(folder: Path, usd: float, **options: int) -> Path:
    jobs = write(folder, **options)
    jobs.write_text(jobs.read_text() + f"limits: {{confirm_above_usd: {usd}}}\n")
    return jobs


def complete(runner: Invoke) -> tuple[int, int]:
    (batch,) = json.loads(runner("status", "--json").stdout)["batches"]
    return batch["complete"], batch["jobs"]


@pytest.mark.usefixtures("queue", "endpoint")
def test_the_first_jobs_are_tried_and_the_rest_follows(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path, count=5)
    first = runner("run", jobs, "--limit", 2)
    assert first.exit_code == 0
    assert "animals: 2 jobs, 2 new" in first.stderr
    assert complete(runner) == (2, 2)
    lines = runner("list", "--json").stdout.splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert ids == ["job-0", "job-1"]
    rest = runner("run", jobs)
    assert rest.exit_code == 0
    assert "animals: 5 jobs, 3 new, 2 there already" in rest.stderr
    assert complete(runner) == (5, 5)
    assert runner("run", jobs, "--limit", 99).exit_code == 0


@pytest.mark.usefixtures("queue", "endpoint")
def test_the_exit_status_is_that_of_the_jobs_that_were_tried(
    runner: Invoke, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(
        "version: 1\ndefaults: {model: claude-haiku-4-5}\njobs:\n"
        "  - {id: good, prompt: In 50 words.}\n"
        "  - {id: bad, prompt: 'In 50 words. [[simulate: refusal]]'}\n"
    )
    assert runner("run", jobs, "--limit", 1).exit_code == 0
    assert runner("run", jobs).exit_code == 1
    assert runner("run", jobs, "--limit", 1).exit_code == 0
    assert runner("run", jobs, "--limit", 2).exit_code == 1


def test_no_spends_and_queues_nothing(
    runner: Invoke, tmp_path: Path, endpoint: Simulator, answers: list[bool]
) -> None:
    jobs = guarded(tmp_path, 0.0001)
    answers.append(False)
    result = runner("run", jobs)
    assert result.exit_code == 2
    assert "animals: 2 documents to write, about $" in result.stderr
    assert "above its confirm_above_usd of $0.00010" in result.stderr
    assert "nothing was queued or spent" in result.stderr
    assert result.stdout == ""
    assert endpoint.books.requests_by_kind["messages"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.yaml"]


@pytest.mark.usefixtures("endpoint")
def test_yes_begins(runner: Invoke, tmp_path: Path, answers: list[bool]) -> None:
    jobs = guarded(tmp_path, 0.0001)
    answers.append(True)
    assert runner("run", jobs).exit_code == 0
    assert complete(runner) == (2, 2)
    assert runner("run", jobs).exit_code == 0  # nothing is left, so nothing is asked


@pytest.mark.usefixtures("endpoint", "answers")
def test_nothing_is_asked_below_it_or_with_yes_or_of_a_simulation(
    runner: Invoke, tmp_path: Path
) -> None:
    cheap = runner("run", guarded(tmp_path, 100))
    assert cheap.exit_code == 0
    assert "confirm_above_usd" not in cheap.stderr
    dear = guarded(tmp_path, 0.0001)
    assert runner("run", dear, "--yes", "--db", "other.db").exit_code == 0
    assert runner("run", dear, "--simulate", "--db", "simulated.db").exit_code == 0


@pytest.mark.usefixtures("queue", "endpoint")
def test_what_is_left_is_what_counts(runner: Invoke, tmp_path: Path, answers: list[bool]) -> None:
    jobs = guarded(tmp_path, 0.004, count=8)
    answers.append(False)
    assert runner("run", jobs).exit_code == 2
    assert runner("run", jobs, "--limit", 1).exit_code == 0  # one of them is below it
    assert runner("run", jobs, "--yes").exit_code == 0
    assert runner("run", jobs).exit_code == 0


@pytest.mark.usefixtures("endpoint")
def test_where_nobody_can_be_asked_it_goes_on_and_says_the_figure(
    runner: Invoke, tmp_path: Path
) -> None:
    result = runner("run", guarded(tmp_path, 0.0001))
    assert result.exit_code == 0
    assert "animals: 2 documents to write, about $" in result.stderr
    assert "above its confirm_above_usd" in result.stderr


@pytest.mark.usefixtures("endpoint")
def test_an_unknown_price_is_asked_about(
    runner: Invoke, tmp_path: Path, answers: list[bool]
) -> None:
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(
        "version: 1\ndefaults: {model: local-llama}\nlimits: {confirm_above_usd: 1000}\n"
        "jobs:\n  - {id: a, prompt: In 50 words.}\n"
    )
    answers.append(False)
    assert runner("run", jobs).exit_code == 2


def test_without_a_key_there_is_nothing_to_ask(runner: Invoke, tmp_path: Path) -> None:
    assert runner("run", guarded(tmp_path, 0.0001)).exit_code == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.yaml"]


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(("answer", "status"), [("n", 2), ("y", 0)])
def test_a_person_at_a_terminal_is_asked(
    runner: Invoke, tmp_path: Path, answer: str, status: int
) -> None:
    guarded(tmp_path, 0.0001)
    own, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-m", "runner", "run", "jobs.yaml", "--no-live"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
        cwd=tmp_path,
    ) as process:
        os.close(theirs)
        said = ""
        try:
            while "Begin? [y/N]" not in said:
                assert select.select([own], [], [], 30)[0], said
                said += os.read(own, 4096).decode()
            assert "animals: 2 documents to write, about $" in said
            os.write(own, f"{answer}\n".encode())
            with suppress(OSError):  # the other side is closed when the process has ended
                while select.select([own], [], [], 30)[0] and (more := os.read(own, 4096)):
                    said += more.decode()
            assert process.wait(200) == status, said
        finally:
            process.kill()
            os.close(own)
    assert (tmp_path / "runner.db").exists() is (status == 0)
