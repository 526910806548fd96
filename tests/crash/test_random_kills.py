"""`kill -9` at random moments of one run; the same command goes on each time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from runner.jobs.states import Finish
from runner.library import Document, documents, open_store
from runner.simulator import Simulator, SimulatorOptions
from tests.strangers import a_stranger

SEED = 11
KILLS = {"sqlite": 10, "postgres": 4}
JOBS = 50
CONCURRENCY = 20
TOKENS_PER_SECOND = 100  # of each stream
DOCUMENT_TOKENS = (300, 600)
MODEL = "claude-haiku-4-5"

# What may be generated but not yet saved when the process dies: text waits 250 ms for its
# checkpoint, and the commit may take the rest.
UNSAVED_S = 0.3
# A prefill must not end in white space, so what a call's text ends in is written again by the
# next call: the token of that white space, and the rest of a token that it is a part of.
SEAM_TOKENS = 2
# A moment's delay of one process on a busy machine is evened out over all kills, not in one job.
ONE_JOB_UNSAVED_S = 2 * UNSAVED_S
# From its registration to its first request. Waiting for the lease to run out would take 60 s.
# A server is asked over a socket, by a process that shares two cores with many others.
GOES_ON_MS = {"sqlite": 1000, "postgres": 3000}
GOES_ON_LATEST_MS = 10_000


@contextmanager
def simulator(*options: str) -> Iterator[str]:
    """A simulator in a process of its own; its address."""
    command = [sys.executable, "-m", "runner", "simulate", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def read_books(base_url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{base_url}/books") as answer:  # noqa: S310  our own simulator
        books: dict[str, Any] = json.load(answer)
        return books


def ends_before(
    process: subprocess.Popen[bytes], base_url: str, reached: Callable[[dict[str, Any]], bool]
) -> bool:
    """Wait until the process ends (True), or the books have reached something (False)."""
    while not reached(read_books(base_url)):
        try:
            process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            continue
        return True
    return False


def prompt(number: int) -> str:
    return f"Write about the {number}th of the lost lighthouses."


def write_job_file(path: Path) -> Path:
    jobs = [f"  - {{id: doc-{n}, prompt: {json.dumps(prompt(n))}}}" for n in range(JOBS)]
    path.write_text(
        "version: 1\nbatch: killed\n"
        f"defaults: {{model: {MODEL}, max_tokens: 120}}\n"
        f"limits: {{concurrency: {CONCURRENCY}}}\njobs:\n" + "\n".join(jobs) + "\n",
        encoding="utf-8",
    )
    return path


def true_documents() -> dict[str, str]:
    world = Simulator(SimulatorOptions(seed=SEED, document_tokens=DOCUMENT_TOKENS))
    return {
        f"doc-{n}": world.true_document(
            {
                "model": MODEL,
                "max_tokens": 1,
                "messages": [{"role": "user", "content": prompt(n)}],
            }
        )
        for n in range(JOBS)
    }


def after_a_kill(database: str) -> int | None:
    """Milliseconds from the killed process's registration to its first request; None where it was
    killed before that."""
    with a_stranger(database) as stranger:
        workers = stranger.execute("SELECT started_ms FROM worker")
        assert len(workers) <= 1, "each start frees its predecessor's jobs before its own first"
        if not workers:
            return None
        [(started_ms,)] = workers
        [(first_ms,)] = stranger.execute(
            "SELECT min(started_ms) FROM call WHERE started_ms >= ?", (started_ms,)
        )
        return None if first_ms is None else first_ms - started_ms


async def read_back(database: str) -> tuple[list[Document], list[str]]:
    """All documents, and what the store finds wrong with itself."""
    async with open_store(database, create=False) as store:
        return [document async for document in documents(store)], await store.check()


def test_kills_lose_nothing_and_pay_for_next_to_nothing_twice(place, database, tmp_path):
    wanted = KILLS[place.kind]
    job_file = write_job_file(tmp_path / "jobs.yaml")
    expected = true_documents()
    random = Random(SEED)
    least, most = DOCUMENT_TOKENS
    # Moments spread over the run but at random within it, the first tokens of a stream included.
    between = JOBS * (least + most) // 2 * 7 // 10 // wanted
    went_on_ms: list[int] = []
    kills = 0
    with (
        simulator(
            *("--seed", str(SEED)),
            *("--tokens-per-second", str(TOKENS_PER_SECOND)),
            *("--document-tokens", str(least), str(most)),
        ) as base_url,
        (tmp_path / "log").open("wb") as log,
    ):
        environment = {**os.environ, "ANTHROPIC_BASE_URL": base_url}
        command = [sys.executable, "-m", "runner", "run", str(job_file)]
        command += ["--db", database, "--no-live"]
        while True:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                if kills == wanted:
                    status = process.wait(timeout=200)
                    break
                moment = read_books(base_url)["tokens_generated"] + random.randint(
                    CONCURRENCY, 2 * between
                )

                def reached(books: dict[str, Any], moment: int = moment) -> bool:
                    return books["tokens_generated"] >= moment

                if ends_before(process, base_url, reached):
                    status = process.returncode
                    break
            finally:
                process.kill()  # SIGKILL
                process.wait()
            assert process.returncode == -signal.SIGKILL
            kills += 1
            if (first_ms := after_a_kill(database)) is not None:
                went_on_ms.append(first_ms)
        books = read_books(base_url)

    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert status == 0, told
    # Where the machine is busy, more is written between two kills than was meant.
    assert kills > wanted // 2, told
    assert books["divergences"] == 0, books["divergence_log"]

    # A job may be asked from its start again only where it was killed before its first checkpoint.
    again = [entry["generated_tokens"] for entry in books["restart_log"]]
    assert max(again, default=0) <= ONE_JOB_UNSAVED_S * TOKENS_PER_SECOND, again

    unsaved = kills * CONCURRENCY * UNSAVED_S * TOKENS_PER_SECOND
    assert books["tokens_generated_twice"] <= unsaved + SEAM_TOKENS * books["requests"]

    assert statistics.median(went_on_ms) < GOES_ON_MS[place.kind], went_on_ms
    assert max(went_on_ms) < GOES_ON_LATEST_MS, went_on_ms

    found, wrong = asyncio.run(read_back(database))
    assert wrong == []
    assert {document.id: document.text for document in found} == expected
    assert {document.finish for document in found} == {Finish.END_TURN}
    with a_stranger(database) as stranger:
        assert stranger.whole()
        # A request has its row before it is sent, so there is none that the ledger does not know.
        [(calls,)] = stranger.execute("SELECT count(*) FROM call")
    assert calls >= books["requests_by_kind"]["messages"]
