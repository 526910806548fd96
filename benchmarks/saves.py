"""Bytes written to the disk for each byte of document, through the real worker, as text streams in.

Run: python benchmarks/saves.py [--quick] [--json FILE] [--plot FILE.svg]

So many streams at once bring 40 events of 16 characters a second, each a document of 12 seconds, and are
saved every 250 ms with `synchronous=FULL`. Counted is what this process handed to the disk, from the
first claim to the closed database: the log, the file, calls, events and the queue. Beside it stands the
same text by saves of 2 kB, as it comes from a fast server.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from fake_api import Speed, prompt, serving
from report import Cpu, Report, arguments, clean_environment, pin, written_bytes

from runner.jobs.spec import BatchLimits, BatchSpec, JobSpec
from runner.messages.client import MessagesClient
from runner.store.store import Store
from runner.workers.worker import Worker

STREAMS = (32, 128, 500)
SECONDS = 12
LENGTH = SECONDS * 40 * 16
TRICKLE = Speed(packet_events=4, events_per_second=40)
FAST = Speed(packet_events=128)
GOAL = 3.0


async def write(streams: int, url: str) -> tuple[float, float]:
    """Bytes to the disk for each byte of document, and CPU seconds for each kB."""
    folder = Path(tempfile.mkdtemp(dir="."))  # not /tmp, which may be memory
    client = MessagesClient(api_key="bench-key-123", base_url=url, one_block=False)
    jobs = [
        JobSpec(
            id=f"d-{number}",
            model="claude-haiku-4-5",
            messages=({"role": "user", "content": prompt(number, LENGTH)},),
            max_tokens=LENGTH,
        )
        for number in range(streams)
    ]
    try:
        async with await Store.open(folder / "runner.db") as store:
            await store.submit(BatchSpec("b", BatchLimits(concurrency=streams)), jobs)
            before = written_bytes()
            with Cpu() as cpu:
                await Worker(store, client).run()
        written = written_bytes() - before
    finally:
        await client.aclose()
        shutil.rmtree(folder)
    text = streams * LENGTH
    return written / text, cpu.cpu_s / (text / 1_000)


def main() -> None:
    parser = arguments(__doc__, quick=True, curve=True)
    options = parser.parse_args()
    clean_environment()
    pin([0])
    report = Report("saves")
    table = report.table(
        "Bytes to the disk for each byte of document",
        "streams",
        "as it streams",
        "fast, 2 kB a save",
    )
    few = STREAMS[:2] if options.quick else STREAMS
    found: dict[str, list[float]] = {"as it streams": [], "fast, 2 kB a save": []}
    for streams in few:
        for name, speed in zip(found, (TRICKLE, FAST), strict=True):
            with serving(speed) as url:
                found[name].append(asyncio.run(write(streams, url))[0])
        slow, fast = (values[-1] for values in found.values())
        table.add(streams, f"{slow:.1f}", f"{fast:.1f}")
        for name, value in zip(found, (slow, fast), strict=True):
            report.figure(f"bytes written a byte, {streams} streams, {name}", value, "", goal=GOAL)
    for name, values in found.items():
        report.curve(name, few, values)
    report.finish(options, x="streams", y="bytes written for each byte")


if __name__ == "__main__":
    main()
