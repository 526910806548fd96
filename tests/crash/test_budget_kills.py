"""Two processes share a budget that runs out, and are killed again and again meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from runner.jobs.states import Finish
from runner.simulator import Simulator, SimulatorOptions
from tests.crash.test_random_kills import ends_before, read_back, read_books, simulator
from tests.strangers import a_stranger

KILLS = 3
JOBS = 12
DOCUMENT_TOKENS = (300, 500)
MODELS = ("claude-haiku-4-5", "claude-opus-5-5")  # $1 and $5, $4 and $20 a million tokens
BUDGET_USD = 0.05  # of some 0.08 that the documents come to
BUDGET_REACHED = 3


def prompt(number: int) -> str:
    return f"Write about the {number}th of the unlit harbours."


def write_job_file(path: Path, max_cost_usd: float) -> list[dict[str, Any]]:
    jobs = [
        {"id": f"doc-{n}", "model": MODELS[n % len(MODELS)], "prompt": prompt(n)}
        for n in range(JOBS)
    ]
    path.write_text(
        "version: 1\nbatch: poor\ndefaults: {max_tokens: 150}\n"
        f"limits: {{concurrency: 6, max_attempts: 30, max_cost_usd: {max_cost_usd}}}\n"
        f"jobs: {json.dumps(jobs)}\n"
    )
    return jobs


def sums(database: str) -> tuple[int, int, str | None]:
    with a_stranger(database) as stranger:
        (row,) = stranger.execute("SELECT cost_nano_usd, reserved_nano_usd, paused FROM batch")
        return row


def asked_for(database: str) -> int:
    """Nano-dollars that the call may cost for which there is no room."""
    with a_stranger(database) as stranger:
        ((reason,),) = stranger.execute("SELECT pause_reason FROM batch")
    (told,) = re.findall(r"the next call of job \S+ may cost \$([0-9.]+)", reason)
    return round(float(told) * 10**9)


def test_killed_processes_never_pass_the_budget_they_share(database, tmp_path):
    job_file = tmp_path / "jobs.yaml"
    jobs = write_job_file(job_file, BUDGET_USD)
    least, most = DOCUMENT_TOKENS
    options = ["--tokens-per-second", "150", "--document-tokens", str(least), str(most)]
    command = [sys.executable, "-m", "runner", "run", str(job_file), "--no-live"]
    with simulator(*options) as base_url, (tmp_path / "log").open("wb") as log:
        environment = {**os.environ, "ANTHROPIC_BASE_URL": base_url, "RUNNER_DB": database}

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

        processes = [start(), start()]
        kills = 0
        try:
            while kills < KILLS:
                moment = read_books(base_url)["tokens_generated"] + 250

                def reached(books: dict[str, Any], moment: int = moment) -> bool:
                    return books["tokens_generated"] >= moment

                if ends_before(processes[0], base_url, reached):
                    break
                processes[0].kill()
                processes[0].wait()
                assert processes[0].returncode == -signal.SIGKILL
                kills += 1
                cost, reserved, _ = sums(database)
                assert cost + reserved <= BUDGET_USD * 10**9
                processes = [processes[1], start()]
            statuses = [process.wait(timeout=200) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        told = (tmp_path / "log").read_text(encoding="utf-8")
        assert kills >= 2
        # One that ends at the moment when the other begins, and looks anew, may find no pause.
        assert BUDGET_REACHED in statuses, told
        assert set(statuses) <= {BUDGET_REACHED, 1}, told
        assert "has no room for the next call" in told
        cost, reserved, paused = sums(database)
        assert (reserved, paused) == (0, "budget")
        # Less is left than the next call would have set aside, to the fourth place as it is told.
        assert cost <= BUDGET_USD * 10**9 < cost + asked_for(database) + 50_000

        write_job_file(job_file, 10)
        assert subprocess.run(command, env=environment, stdout=log, stderr=log).returncode == 0
        books = read_books(base_url)

    assert books["divergences"] == 0, books["divergence_log"]
    found, wrong = asyncio.run(read_back(database))
    assert wrong == []
    assert {document.finish for document in found} == {Finish.END_TURN}
    world = Simulator(SimulatorOptions(document_tokens=DOCUMENT_TOKENS))
    for document, spec in zip(found, jobs, strict=True):
        messages = [{"role": "user", "content": spec["prompt"]}]
        body = {"model": spec["model"], "max_tokens": 1, "messages": messages}
        assert document.text == world.true_document(body), document.id
