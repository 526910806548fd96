"""A batch of old, current, unknown and local models, with faults of the API and `kill -9`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

from runner.jobs.states import Finish
from runner.simulator import Simulator, SimulatorOptions
from tests.crash.test_random_kills import ends_before, read_back, read_books, simulator

KILLS = 4
JOBS = 20
CONCURRENCY = 10
DOCUMENT_TOKENS = (300, 500)
# Takes prefill; refuses it; a new name that refuses it; takes it and begins afresh; takes it.
MODELS = ("claude-haiku-4-5", "claude-opus-5-5", "claude-saga-7", "local-restarts", "local-goes-on")
FAULTS = ("http_500", "http_529", "drop", "clean_end", "error_overloaded", "reset")


def prompt(number: int) -> str:
    return f"Write about the {number}th of the forgotten bridges."


def test_mixed_models_outlive_kills_and_faults(database, tmp_path):
    jobs = [
        {"id": f"doc-{n}", "model": MODELS[n % len(MODELS)], "prompt": prompt(n)}
        for n in range(JOBS)
    ]
    job_file = tmp_path / "jobs.yaml"
    job_file.write_text(
        "version: 1\nbatch: mixed\ndefaults: {max_tokens: 150}\n"
        f"limits: {{concurrency: {CONCURRENCY}, max_attempts: 30}}\njobs: {json.dumps(jobs)}\n"
    )
    world = Simulator(SimulatorOptions(document_tokens=DOCUMENT_TOKENS))
    least, most = DOCUMENT_TOKENS
    options = ["--tokens-per-second", "150", "--document-tokens", str(least), str(most)]
    options += [f"--fault={fault}={0.1 / len(FAULTS):.4f}" for fault in FAULTS]
    with simulator(*options) as base_url, (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "runner", "run", str(job_file), "--no-live"]
        environment = {**os.environ, "ANTHROPIC_BASE_URL": base_url, "RUNNER_DB": database}
        for kill in range(KILLS + 1):
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                if kill == KILLS:
                    status = process.wait(timeout=200)
                    break
                moment = read_books(base_url)["tokens_generated"] + JOBS * least // (KILLS + 2)
                assert not ends_before(
                    process,
                    base_url,
                    lambda books, moment=moment: books["tokens_generated"] >= moment,
                )
            finally:
                process.kill()
                process.wait()
            assert process.returncode == -signal.SIGKILL
        books = read_books(base_url)

    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert status == 0, told
    assert books["divergences"] == 0, books["divergence_log"]
    found, wrong = asyncio.run(read_back(database))
    assert wrong == []
    assert {document.finish for document in found} == {Finish.END_TURN}
    for document, spec in zip(found, jobs, strict=True):
        body = {
            "model": spec["model"],
            "max_tokens": 1,
            "messages": [{"role": "user", "content": spec["prompt"]}],
        }
        assert document.text == world.true_document(body), document.id
