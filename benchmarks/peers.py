"""Documents and CPU beside other programs: the same fake API, prompts and answers for all.

Run: python benchmarks/peers.py [--quick] [--peers NAMES] [--json FILE]

(a) Answers that need no continuation: CPU of the whole process for each document (the difference of two
runs, so without start-up), and documents a second. (b) The same prompts with a `max_tokens` that cuts
each answer. (c) `kill -9` in mid-run, then the same command again. For (b) and (c): how many documents
are complete, how many are handed over as a success and are cut, and how many output tokens were paid for
twice, by the server's books. The peers are installed by pip into an environment of their own, beside this
file; how each is set is told in `peer_drivers.py`. `runner` has all its defaults, streams, and keeps its
connections open as it does behind Anthropic's own address.

`async-batch-llm` is there twice: with the SDK's streaming, which the SDK insists on for long answers, and
with answers in one piece, as the others have them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fake_api import CHARACTERS_A_TOKEN, Speed, document, prompt, serving
from report import Report, arguments, children_cpu_s, clean_environment, pin

from runner.jobs.spec import BatchLimits, BatchSpec, JobSpec
from runner.messages.client import MessagesClient
from runner.store.store import Store
from runner.workers.worker import Worker

HERE = Path(__file__).parent
VENV = HERE / ".peers"
PACKAGES = {
    "async-batch-llm": ["async-batch-llm==0.28.0", "anthropic>=2.12,<3"],
    "async-batch-llm, whole": [],
    "litlm": ["litlm==0.6.0", "litellm[caching]"],
    "flexllm": ["flexllm==0.17.10"],
}
OURS = "runner"
MODEL = "claude-haiku-4-5"
TOKENS = 1_000
LENGTH = TOKENS * CHARACTERS_A_TOKEN
CUT = 400  # tokens
CONCURRENCY = 20
GOAL = 0.5
STREAMED = Speed(packet_events=4)
# Slow enough to be killed in the midst: four seconds a document.
SLOW = Speed(packet_events=4, events_per_second=LENGTH / 16 / 4)


@dataclass(frozen=True)
class Outcome:
    complete: int
    wrong: int
    paid_twice: int


def installed(peers: list[str]) -> Path:
    """The interpreter of the peers' environment, made on first use."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *(one for peer in peers for one in PACKAGES[peer])], check=True)
    return python


class Party:
    """One of the programs that are compared."""

    def __init__(self, name: str, python: Path) -> None:
        self.name = name
        self._python = python

    def command(self, url: str, jobs: int, max_tokens: int, folder: Path) -> list[str]:
        if self.name != OURS:
            numbers = map(str, (jobs, LENGTH, CONCURRENCY, max_tokens))
            return [
                *(str(self._python), str(HERE / "peer_drivers.py"), self.name, url),
                *(*numbers, str(folder)),
            ]
        numbers = map(str, (jobs, max_tokens))
        return [sys.executable, __file__, "--work", url, *numbers, str(folder)]

    def start(self, url: str, jobs: int, max_tokens: int, folder: Path) -> subprocess.Popen[bytes]:
        environment = os.environ | {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "bench-key-123"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": (folder / "errors.txt").open("wb")}
        command = self.command(url, jobs, max_tokens, folder)
        return subprocess.Popen(command, env=environment, **quiet)  # type: ignore[call-overload,no-any-return]

    def texts(self, folder: Path, jobs: int) -> dict[int, str | None]:
        """What it hands over as a finished document."""
        if self.name != OURS:
            told = folder / "result.json"
            found = json.loads(told.read_text()) if told.exists() else {}
            return {number: found.get(str(number)) for number in range(jobs)}
        out = folder / "out"
        command = [sys.executable, "-m", "runner", "export", "--db", str(folder / "runner.db")]
        subprocess.run(
            [*command, "--format", "jsonl", "--out", str(out)], check=False, capture_output=True
        )
        lines = [
            json.loads(line)
            for file in out.glob("*.jsonl")
            for line in file.read_text().splitlines()
        ]
        whole = {int(line["id"][2:]): line["text"] for line in lines if line["complete"]}
        return {number: whole.get(number) for number in range(jobs)}


async def work(url: str, jobs: int, max_tokens: int, folder: Path) -> None:
    """What `runner run` does, with a client that takes the server for Anthropic's own."""
    specs = [
        JobSpec(
            id=f"d-{number}",
            model=MODEL,
            messages=({"role": "user", "content": prompt(number, LENGTH)},),
            max_tokens=max_tokens,
        )
        for number in range(jobs)
    ]
    client = MessagesClient(api_key="bench-key-123", base_url=url, one_block=False)
    async with await Store.open(folder / "runner.db") as store:
        await store.submit(BatchSpec("peers", BatchLimits(concurrency=CONCURRENCY)), specs)
        await Worker(store, client).run()
    await client.aclose()


def run(party: Party, url: str, jobs: int, max_tokens: int) -> tuple[float, float]:
    """CPU and wall seconds of one whole run."""
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        cpu, wall = children_cpu_s(), time.perf_counter()
        process = party.start(url, jobs, max_tokens, Path(folder))
        process.wait()
        cpu, wall = children_cpu_s() - cpu, time.perf_counter() - wall
        done = party.texts(Path(folder), jobs)
        assert all(done[n] == document(n, LENGTH) for n in range(jobs)), party.name
        return cpu, wall


def judged(party: Party, url: str, folder: Path, jobs: int) -> Outcome:
    """What was delivered, and what was paid for twice, by the server's books."""
    books = _books(url)
    texts = party.texts(folder, jobs)
    complete = sum(text == document(number, LENGTH) for number, text in texts.items())
    sent = sum(book["sent"] for book in books.values())
    # What a document truly needed; where it was never whole, what is left of it.
    needed = sum(len(text) if text is not None else 0 for text in texts.values())
    wrong = sum(text is not None for text in texts.values()) - complete
    return Outcome(complete, wrong, max(0, sent - needed) // CHARACTERS_A_TOKEN)


def cut(party: Party, jobs: int) -> Outcome:
    with tempfile.TemporaryDirectory(dir=HERE) as name, serving(STREAMED) as url:
        folder = Path(name)
        party.start(url, jobs, CUT, folder).wait()
        return judged(party, url, folder, jobs)


def killed(party: Party, jobs: int) -> Outcome:
    """Killed when half of the documents were asked for, and started again until it ends."""
    with tempfile.TemporaryDirectory(dir=HERE) as name, serving(SLOW) as url:
        folder = Path(name)
        process = party.start(url, jobs, 2 * TOKENS, folder)
        _until(lambda: len(_books(url)) > jobs // 2)
        time.sleep(1.5)  # in the midst of their answers
        process.send_signal(signal.SIGKILL)
        process.wait()
        party.start(url, jobs, 2 * TOKENS, folder).wait()
        return judged(party, url, folder, jobs)


def _books(url: str) -> dict[str, dict[str, int]]:
    with urllib.request.urlopen(f"{url}/books") as answer:  # noqa: S310  it is our own server
        books: dict[str, dict[str, int]] = json.load(answer)
        return books


def _until(true: Callable[[], bool]) -> None:
    for _ in range(1_200):
        if true():
            return
        time.sleep(0.05)
    raise TimeoutError("it never came so far")


def main() -> None:
    parser = arguments(__doc__, quick=True)
    parser.add_argument("--peers", default=";".join(PACKAGES))
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--only", choices=("cpu", "trouble"))
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    clean_environment()
    if options.work:
        url, jobs, max_tokens, folder = options.work
        asyncio.run(work(url, int(jobs), int(max_tokens), Path(folder)))
        return
    peers = options.peers.split(";")
    python = installed(peers)
    pin([0])
    jobs = 200 if options.quick else options.jobs
    parties = [Party(name, python) for name in (OURS, *peers)]
    report = Report("peers")
    if options.only != "trouble":
        compare(report, parties, jobs)
    if options.only != "cpu":
        trouble(report, parties, 60 if options.quick else 100)
    report.finish(options)


def compare(report: Report, parties: list[Party], jobs: int) -> None:
    table = report.table(
        f"{jobs:,} documents of {TOKENS:,} tokens, {CONCURRENCY} at once, nothing is cut",
        *("program", "CPU a document", "runner's part of it", "documents a second", "start, CPU"),
    )
    few = jobs // 10
    found: dict[str, tuple[float, float, float]] = {}
    with serving(STREAMED) as url:
        for party in parties:
            run(party, url, 2, 2 * TOKENS)  # imports are compiled, files are in memory
            least, _ = min(run(party, url, few, 2 * TOKENS) for _ in range(2))
            most, wall = run(party, url, jobs, 2 * TOKENS)
            each = (most - least) / (jobs - few)
            found[party.name] = (each, jobs / wall, max(0.0, least - each * few))
    ours = found[OURS][0]
    for name, (each, rate, start) in found.items():
        part = "" if name == OURS else f"{ours / each:.2f} ×"
        table.add(name, f"{each * 1e3:.2f} ms", part, f"{rate:.0f}", f"{start:.1f} s")
        if name != OURS:
            report.figure(f"CPU a document, beside {name}", ours / each, "×", goal=GOAL)


def trouble(report: Report, parties: list[Party], jobs: int) -> None:
    heads = ("program", "complete", "cut, and called a success", "output tokens paid twice")
    for title, way in (
        (f"{jobs} documents of {TOKENS:,} tokens, `max_tokens` {CUT}", cut),
        (f"{jobs} documents, `kill -9` in mid-run, and the same command again", killed),
    ):
        table = report.table(title, *heads)
        for party in parties:
            outcome = way(party, jobs)
            table.add(party.name, outcome.complete, outcome.wrong, f"{outcome.paid_twice:,}")


if __name__ == "__main__":
    main()
