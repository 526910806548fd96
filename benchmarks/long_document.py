"""What a long document costs that takes many calls, beside the same text in one call.

Run: python benchmarks/long_document.py [--quick] [--json FILE] [--plot FILE.svg]

The real worker with durable saves writes documents of 400,000 characters in 1, 10, 25 and 50 calls
against a fake API in a process of its own, by `prefill` and by `turn`. `trickle`: each event of 16
characters comes in a packet of its own, 100 a second in each of 16 streams, as text comes from a model
that writes 400 tokens a second; `burst`: 32 events a packet, as fast as they are read. CPU is user and system time of the
client's process with all its threads, start of the worker included, for each document.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from fake_api import CHARACTERS_A_TOKEN, Speed, document, prompt, serving
from report import Cpu, Report, arguments, clean_environment, pin

from runner.jobs.spec import BatchLimits, BatchSpec, ContinuationSpec, JobSpec, Until
from runner.library import documents
from runner.messages.client import MessagesClient
from runner.store.store import Store
from runner.workers.worker import Worker

LENGTH = 400_000
CALLS = (1, 10, 25, 50)
GOAL = 1.5
STREAMS = {"trickle": 16, "burst": 8}
MODELS = {"prefill": "claude-haiku-4-5", "turn": "claude-haiku-5-5"}
SPEEDS = {
    "trickle": Speed(packet_events=1, events_per_second=100),
    "burst": Speed(packet_events=32),
}


def jobs(model: str, length: int, calls: int, count: int, *, words: bool) -> list[JobSpec]:
    return [
        JobSpec(
            id=f"d-{number}",
            model=model,
            messages=({"role": "user", "content": prompt(number, length)},),
            max_tokens=-(-length // calls // CHARACTERS_A_TOKEN),
            # A prefill's calls begin a few characters before the cut: one more call may be needed.
            continuation=ContinuationSpec(max_calls=calls + 5),
            until=Until(min_words=length // 10) if words else None,
        )
        for number in range(count)
    ]


async def write(
    folder: Path, url: str, model: str, length: int, calls: int, count: int, *, words: bool
) -> tuple[float, float]:
    """CPU seconds and calls of one document, written by a worker."""
    path = folder / "runner.db"
    client = MessagesClient(api_key="bench-key-123", base_url=url, one_block=False)
    async with await Store.open(path) as store:
        await store.submit(
            BatchSpec("b", BatchLimits(concurrency=count)),
            jobs(model, length, calls, count, words=words),
        )
        with Cpu() as cpu:
            await Worker(store, client).run()
        made = 0
        async for written in documents(store):
            assert written.text == document(int(written.id[2:]), length), written.id
            made += len(written.calls)
    await client.aclose()
    for file in folder.iterdir():  # noqa: ASYNC240  nothing else runs
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return cpu.cpu_s / count, made / count


async def compare(
    report: Report,
    speed: str,
    strategy: str,
    length: int,
    most: tuple[int, ...],
    rounds: int,
    *,
    words: bool,
) -> None:
    model = MODELS[strategy]
    count = STREAMS[speed]
    folder = Path(tempfile.mkdtemp(dir="."))  # not /tmp, which may be memory
    name = f"{strategy}, {speed}{', `until: min_words`' if words else ''}"
    try:
        with serving(SPEEDS[speed]) as url:
            await write(folder, url, model, 4_000, 1, 1, words=words)
            found: dict[int, list[tuple[float, float]]] = {calls: [] for calls in most}
            for _ in range(rounds):
                for calls in most:
                    found[calls].append(
                        await write(folder, url, model, length, calls, count, words=words)
                    )
    finally:
        shutil.rmtree(folder)
    table = report.tables[0]
    best = {calls: min(rows) for calls, rows in found.items()}
    one = best[1][0]
    for cpu_s, made in best.values():
        table.add(name, f"{made:.0f}", f"{cpu_s * 1e3:,.0f} ms", f"{cpu_s / one:.2f} ×")
    report.curve(name, best, [cpu_s * 1e3 for cpu_s, _ in best.values()])
    report.figure(
        f"a document of {most[-1]} calls, {length // 1_000} kB, against one call, {name}",
        best[most[-1]][0] / one,
        "×",
        goal=GOAL,
    )


def main() -> None:
    parser = arguments(__doc__, quick=True, curve=True)
    parser.add_argument("--rounds", type=int, default=3, help="the least CPU of so many counts")
    parser.add_argument("--only", help="only these, such as 'prefill' or 'turn,burst'")
    options = parser.parse_args()
    clean_environment()
    pin([0])
    report = Report("long_document")
    report.table("A document in several calls", "way", "calls", "CPU", "against one call")
    cells = [(speed, strategy, False) for speed in SPEEDS for strategy in MODELS]
    cells.append(("burst", "turn", True))
    wanted = set((options.only or "").split(",")) - {""}
    for speed, strategy, words in cells:
        if wanted <= {speed, strategy, "words" if words else "plain"}:
            slow = speed == "trickle"
            rounds = 1 if options.quick or slow else options.rounds
            length, calls = LENGTH, (1, 50) if options.quick or slow else CALLS
            if slow and options.quick:
                length, calls = LENGTH // 10, (1, 5)  # as long a call, and a tenth of four minutes
            asyncio.run(compare(report, speed, strategy, length, calls, rounds, words=words))
    report.finish(options, x="calls", y="CPU, ms a document")


if __name__ == "__main__":
    main()
