"""An overnight rehearsal: a night of trouble in fast time, and what the owner finds in the morning.

Run: python benchmarks/overnight.py [--jobs 2000] [--time-factor 120] [--pictures docs]

One command, `runner run night.yaml --wait`, writes the documents of three models against a simulated
API in which time runs `--time-factor` times faster. In the night
  - the rate limits are halved, and later raised above what they were;
  - the process is killed with SIGKILL, and the same command is started again, the only time;
  - the API answers 529 for an hour;
  - the budget of the job file runs out, and is raised by `runner limits` from another terminal;
  - the account's spending limit is reached, lifted an hour later, and `runner resume` says so.
In the morning every document is compared with what one endless answer would have given, the ledger
with the simulator's bills, and the cost with the budget.

Prints one JSON object; the exit status is 1 if any check fails. `--pictures FOLDER` writes what
`runner status` and `runner cost` show in the morning as SVG.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.jobs.states import State
from runner.library import documents, open_store
from runner.simulator import Simulator, SimulatorOptions

SEED = 11
BATCH = "night"
STREAM_TOKENS_PER_SECOND = 80.0
CONCURRENCY = 16
HOUR_S = 3600
COLUMNS = 120  # of the terminal in the pictures
# How much of the night's cost the job file's budget is good for, and the raised one.
COST_A_JOB_USD = 0.0045
BUDGET_SHARE, RAISED_SHARE = 0.6, 1.5
MODELS = ("claude-haiku-4-5", "claude-haiku-5-5", "claude-sonnet-5-5")
TOPICS = ("otters", "bridges", "old maps", "bread", "the night sky", "snow", "clocks", "rivers")
STYLE = "Write plainly. Say what is known, and how. Leave no sentence that says nothing. " * 60


@dataclass(frozen=True)
class Night:
    """How large the night is.

    Args:
        time_factor: seconds of the simulator that pass in one of ours.
        requests_per_minute, output_tokens_per_minute: rate limits of each class of models, in the
            simulator's minutes.
    """

    jobs: int = 2000
    time_factor: float = 120.0
    requests_per_minute: int = 6
    output_tokens_per_minute: int = 1_500
    input_tokens_per_minute: int = 20_000

    @property
    def budget_usd(self) -> float:
        return round(self.jobs * COST_A_JOB_USD * BUDGET_SHARE, 2)

    @property
    def raised_usd(self) -> float:
        return round(self.jobs * COST_A_JOB_USD * RAISED_SHARE, 2)


class Server:
    """The simulated API, in a process of its own."""

    def __init__(self, night: Night) -> None:
        words: dict[str, object] = {
            "--seed": SEED,
            "--tokens-per-second": STREAM_TOKENS_PER_SECOND,
            "--first-token-seconds": 1,
            "--tokens-per-event": 40,
            "--rpm": night.requests_per_minute,
            "--otpm": night.output_tokens_per_minute,
            "--itpm": night.input_tokens_per_minute,
            "--burst-seconds": 30,
            "--time-factor": night.time_factor,
            "--bills": 1_000_000,
        }
        command = [sys.executable, "-m", "runner", "simulate"]
        command += [str(word) for pair in words.items() for word in pair]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def change(self, **options: object) -> None:
        """Change how it behaves from now on."""
        request = urllib.request.Request(  # noqa: S310  our own address
            self.url + "/control",
            data=json.dumps(options).encode(),
            headers={"content-type": "application/json"},
        )
        urllib.request.urlopen(request).close()  # noqa: S310

    def ask(self, path: str) -> Any:
        """Its books."""
        with urllib.request.urlopen(self.url + path) as answer:  # noqa: S310
            return json.load(answer)

    def end(self) -> None:
        self._process.terminate()
        self._process.communicate()


@dataclass
class Owner:
    """Whoever types the commands, with a watch that tells the night's time."""

    night: Night
    folder: Path
    url: str
    started_s: float = field(default_factory=time.monotonic)
    story: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    spent_usd: float | None = None  # when the budget ran out

    def tells(self, words: str) -> None:
        """Write down what happened, at what time of the night (it begins at ten in the evening)."""
        minutes = (time.monotonic() - self.started_s) * self.night.time_factor / 60
        clock = f"{(22 + int(minutes) // 60) % 24:02}:{int(minutes) % 60:02}"
        self.story.append(f"{clock}  {words}")
        print(self.story[-1], file=sys.stderr, flush=True)

    def types(self, *words: str) -> str:
        """A command, to its end; what it showed."""
        done = subprocess.run(
            [sys.executable, "-m", "runner", *words],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout + done.stderr

    def starts(self) -> subprocess.Popen[bytes]:
        """The one command of the night."""
        log = (self.folder / f"run-{len(self.processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "runner", "run", "night.yaml", "--wait"],
                cwd=self.folder,
                env=self._environment(),
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "RUNNER_DB"}
        return kept | {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "night",
            "COLUMNS": str(COLUMNS),
        }


def rows(folder: Path, statement: str, *values: object) -> list[Any]:
    """What a statement finds in the night's database; nothing while there is none."""
    path = folder / "runner.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        try:
            return connection.execute(statement, values).fetchall()
        except sqlite3.OperationalError:  # the tables are just being made
            return []


def completed(folder: Path) -> int:
    found = rows(folder, "SELECT sum(jobs) AS jobs FROM job_count WHERE state = 'completed'")
    return found[0]["jobs"] or 0 if found else 0


def paused(folder: Path) -> str | None:
    found = rows(folder, "SELECT paused FROM batch")
    return found[0]["paused"] if found else None


def job_file(night: Night) -> str:
    """Three jobs a topic, one for each model, with a style guide that all share."""
    lines = [
        "version: 1",
        f"batch: {BATCH}",
        "defaults: {system: file://style.md, max_tokens: 256}",
        f"limits: {{concurrency: {CONCURRENCY}, max_cost_usd: {night.budget_usd}}}",
        "jobs:",
    ]
    for number in range(night.jobs):
        topic, words = TOPICS[number % len(TOPICS)], 90 + 37 * (number % 8)
        lines.append(
            f"  - {{id: doc-{number:04}, model: {MODELS[number % len(MODELS)]}, prompt: "
            f'"Write number {number} of our articles, on {topic}, in about {words} words."}}'
        )
    return "\n".join(lines) + "\n"


@contextmanager
def night_long(night: Night, folder: Path) -> Iterator[tuple[Server, Owner]]:
    """The API and the owner; nobody outlives it."""
    (folder / "night.yaml").write_text(job_file(night))
    (folder / "style.md").write_text(STYLE)
    server = Server(night)
    owner = Owner(night, folder, server.url)
    try:
        yield server, owner
    finally:
        for process in owner.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        server.end()


def live_through(server: Server, owner: Owner) -> None:
    """The night, from the first command to its end.

    Raises:
        TimeoutError: it hangs.
    """
    night, folder = owner.night, owner.folder
    process = owner.starts()
    owner.tells(f"`runner run night.yaml --wait`: {night.jobs} jobs, ${night.budget_usd} at most")

    def halved() -> None:
        server.change(
            requests_per_minute=night.requests_per_minute // 2,
            output_tokens_per_minute=night.output_tokens_per_minute // 2,
        )
        owner.tells("the API's rate limits are halved")

    def raised() -> None:
        server.change(
            requests_per_minute=night.requests_per_minute * 2,
            output_tokens_per_minute=night.output_tokens_per_minute * 2,
        )
        owner.tells("the rate limits are back, and twice what they were")

    def killed() -> None:
        nonlocal process
        process.send_signal(signal.SIGKILL)
        process.wait()
        owner.tells("kill -9; the same command again")
        process = owner.starts()

    def overloaded() -> None:
        server.change(overloaded_s=HOUR_S)
        owner.tells("the API is overloaded, for an hour")

    def capped() -> None:
        server.change(spend_cap_tokens=1)
        owner.tells("the account's spending limit is reached")
        until(lambda: paused(folder) == "spend_cap", process)
        owner.tells("the batch is paused; the process waits")
        time.sleep(HOUR_S / night.time_factor)
        server.change(spend_cap_tokens=0)
        owner.types("resume", BATCH)
        owner.tells("the limit is lifted: `runner resume night`")

    troubles: list[tuple[float, Callable[[], None]]] = [
        (0.08, halved), (0.14, raised), (0.25, killed), (0.4, overloaded), (0.85, capped),
    ]  # fmt: skip
    # The budget runs out when it does, between the others.
    while process.poll() is None:
        if paused(folder) == "budget":
            # Only the last is left: what the budget kept back is done sooner than that is typed.
            at_once = [trouble for _, trouble in troubles] == [capped]
            if at_once:
                troubles.clear()
                server.change(spend_cap_tokens=1)
            (batch,) = rows(folder, "SELECT cost_nano_usd FROM batch")
            owner.spent_usd = batch["cost_nano_usd"] / 1e9
            owner.tells(
                f"${owner.spent_usd:.4f} are spent: the budget has run out; the process waits"
            )
            owner.types("limits", BATCH, "--max-cost-usd", str(night.raised_usd))
            owner.tells(f"`runner limits night --max-cost-usd {night.raised_usd}`")
            if at_once:
                capped()
        if troubles and completed(folder) >= troubles[0][0] * night.jobs:
            troubles.pop(0)[1]()
        time.sleep(0.05)
    owner.tells(f"the run has ended, with exit status {process.returncode}")


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for a state of the database.

    Raises:
        TimeoutError: it does not come.
    """
    end_s = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end_s or process.poll() is not None:
            raise TimeoutError("the night hangs, or its process ended too early")
        time.sleep(0.02)


async def wrong_documents(folder: Path) -> int:
    """How many documents are not byte for byte what one endless answer would have given."""
    truth, wrong = Simulator(SimulatorOptions(seed=SEED)), 0
    async with open_store(folder / "runner.db") as store:
        async for document in documents(store):
            spec = await store.spec((await store.find_job(document.id)).key)
            body = {"model": spec.model, "max_tokens": 1, "messages": list(spec.messages)}
            text = truth.true_document(body | {"system": spec.system} if spec.system else body)
            wrong += document.text != text or document.state is not State.COMPLETED
    return wrong


# What a call's row and its bill must say alike.
_SAME = {
    "input_tokens": "input_tokens",
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation_1h_input_tokens": "cache_creation_1h_tokens",
    "output_tokens": "output_tokens",
}


def compare_with_bills(folder: Path, bills: list[dict[str, Any]]) -> dict[str, Any]:
    """The ledger beside the simulator's bills: finished calls one by one, the others in sum."""
    by_id = {bill["request_id"]: bill for bill in bills}
    calls = rows(folder, "SELECT * FROM call")
    different = 0
    rates: dict[str, sqlite3.Row] = {}
    for call in calls:
        rates[call["model"]] = call
        if call["stop_reason"] is None:
            continue
        bill = by_id[call["request_id"]]
        created = bill["cache_creation_5m_tokens"] + bill["cache_creation_1h_tokens"]
        different += (
            created != call["cache_creation_input_tokens"]
            or any(call[ours] != bill[theirs] for ours, theirs in _SAME.items())
            or call["cost_nano_usd"] != cost(bill, call)
        )
    billed = sum(cost(bill, rates[bill["model"]]) for bill in bills)
    booked = sum(call["cost_nano_usd"] or 0 for call in calls)
    return {
        "calls": len(calls),
        "finished calls that differ from their bills": different,
        "unpriced calls": sum(call["cost_nano_usd"] is None for call in calls),
        "booked usd": booked / 1e9,
        "billed usd": billed / 1e9,
    }


def cost(bill: dict[str, Any], call: sqlite3.Row) -> int | None:
    """What a bill comes to at the price of a call's row, in nano-dollars."""
    if call["input_price"] is None:
        return None
    millionths = (
        bill["input_tokens"] * call["input_price"]
        + bill["output_tokens"] * call["output_price"]
        + bill["cache_creation_5m_tokens"] * call["cache_write_5m_price"]
        + bill["cache_creation_1h_tokens"] * call["cache_write_1h_price"]
        + bill["cache_read_tokens"] * call["cache_read_price"]
    )
    return int((millionths + 500_000) // 1_000_000)


# A call that begins its document again although an earlier one of the job had saved some of it.
ASKED_AGAIN = """\
SELECT count(*) AS n FROM call WHERE resume_at = 0 AND number > 1 AND EXISTS (
  SELECT 1 FROM call AS before JOIN chunk ON chunk.job_key = call.job_key
    AND chunk.call_key = before.key
  WHERE before.job_key = call.job_key AND before.number < call.number)
"""


def morning(server: Server, owner: Owner) -> dict[str, Any]:
    """What the owner finds, and whether all is as it must be: `checks` holds what must be true."""
    folder, books = owner.folder, server.ask("/books")
    ledger = compare_with_bills(folder, server.ask("/books/bills")["bills"])
    (batch,) = rows(folder, "SELECT * FROM batch")
    wrong = asyncio.run(wrong_documents(folder))
    (asked_again,) = rows(folder, ASKED_AGAIN)
    most_nano_usd = round(owner.night.raised_usd * 1e9)
    return {
        "checks": {
            "the last run ended with 0": owner.processes[-1].returncode == 0,
            "started again at most once": len(owner.processes) <= 2,
            "all documents are complete": completed(folder) == owner.night.jobs,
            "all documents are byte for byte the true ones": wrong == 0,
            "none was begun again of which text had been saved": asked_again["n"] == 0,
            "the ledger equals the bills of finished calls": not ledger[
                "finished calls that differ from their bills"
            ],
            "every price is known": not ledger["unpriced calls"],
            "the budget ran out, and was kept until it was raised": owner.spent_usd is not None
            and owner.spent_usd <= owner.night.budget_usd,
            "the booked cost is within the budget": batch["cost_nano_usd"] <= most_nano_usd,
            "the billed cost is within the budget": ledger["billed usd"] * 1e9 <= most_nano_usd,
        },
        "story": owner.story,
        "minutes": round((time.monotonic() - owner.started_s) / 60, 1),
        "ledger": ledger,
        "requests": books["requests_by_status"],
        "requests before retry-after was over": books["impatient"],
        "longest after the refusal, s": round(
            max((entry["since_429_s"] for entry in books["impatient_log"]), default=0.0), 3
        ),
        "begun again before anything was saved": books["restarts"],
        "tokens generated": books["tokens_generated"],
        "tokens generated twice": books["tokens_generated_twice"],
    }


def picture(owner: Owner, *words: str) -> str:
    """What a command shows, as SVG."""
    from rich.console import Console
    from rich.text import Text

    shown = owner.types(*words).rstrip("\n")
    width = max(len(line) for line in shown.splitlines())
    console = Console(record=True, width=max(60, width), file=io.StringIO())
    console.print(Text.assemble(("$ ", "bold green"), (f"runner {' '.join(words)}", "bold")))
    console.print(Text(shown), soft_wrap=True)
    svg = console.export_svg(title="the morning after", unique_id="morning")
    # Fonts from the network have no place in a page that is read offline.
    return re.sub(r"@font-face \{.*?\n    \}\n", "", svg, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=Night.jobs)
    parser.add_argument("--time-factor", type=float, default=Night.time_factor)
    parser.add_argument("--pictures", type=Path, help="write SVG pictures into this folder")
    arguments = parser.parse_args()
    night = Night(jobs=arguments.jobs, time_factor=arguments.time_factor)
    with tempfile.TemporaryDirectory() as name, night_long(night, Path(name)) as (server, owner):
        live_through(server, owner)
        report = morning(server, owner)
        print(json.dumps(report, indent=2))
        for words in (("status",), ("cost", "--by", "model")):
            print(owner.types(*words), file=sys.stderr)
            if arguments.pictures is not None:
                path = arguments.pictures / f"overnight-{words[0]}.svg"
                path.write_text(picture(owner, *words))
    return 0 if all(report["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
