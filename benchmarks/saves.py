"""Bytes written to the disk for each byte of document, through the real worker, as text streams in.

Run: python benchmarks/saves.py [--quick] [--json FILE] [--plot FILE.svg]

So many streams at once bring 40 events of 16 characters a second, each a document of 12 seconds, and are
saved every 250 ms with `synchronous=FULL`. Counted is what this process handed to the disk, from the
first claim to the closed database: the log, the file, calls, events and the queue. Beside it stands the
same text by saves of 2 kB, as it comes from a fast server.

A second table tells where it goes: saves of 160 characters at one beat, at the beginning of documents
and where each has 200 kB already, with the pages of the log that a commit writes, by what they belong
to (as `dbstat` knows them, which not every SQLite has).
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

from fake_api import Speed, prompt, serving
from report import Cpu, Report, arguments, clean_environment, pin, written_bytes

from runner.jobs.spec import BatchLimits, BatchSpec, JobSpec
from runner.messages.client import MessagesClient
from runner.store.operations import Save
from runner.store.records import CallStart, Lane
from runner.store.store import Store
from runner.workers.worker import Worker

STREAMS = (32, 128, 500)
SECONDS = 12
LENGTH = SECONDS * 40 * 16
TRICKLE = Speed(packet_events=4, events_per_second=40)
FAST = Speed(packet_events=128)
GOAL = 3.0
BEATS = 40
PIECE = ("Once upon a time there was. " * 6)[:160]
LONG = 200_000 // len(PIECE)  # chunks of a document of 200 kB
COMMITS = 10  # the last of a run, whose pages are looked at


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


async def beats(streams: int, before: int) -> tuple[float, dict[str, float]]:
    """Bytes to the disk for each byte of text, and the log's pages of a commit by owner."""
    folder = Path(tempfile.mkdtemp(dir="."))
    try:
        async with await Store.open(folder / "runner.db") as store:
            message = {"role": "user", "content": "x"}
            jobs = [JobSpec(f"d-{number}", "m", (message,)) for number in range(streams)]
            batch_key = (await store.submit(BatchSpec("b"), jobs)).batch_key
            await store.register_worker("w", host="h", pid=1, lease_ms=10**9)
            claims = await store.claim("w", [Lane(batch_key, "m", streams)], streams)
            start = CallStart(1, None, 0, 1000, "m")
            keys = await asyncio.gather(*(store.begin_call(claim, start) for claim in claims))
            written = 0
            for seq in range(before + BEATS):
                if seq == before:
                    written = written_bytes()
                pairs = zip(claims, keys, strict=True)
                saved = await store.save_all([Save(*pair, seq, PIECE) for pair in pairs])
                assert not any(error for _, error in saved)
            written = written_bytes() - written
            return written / BEATS / streams / len(PIECE), pages_of(folder / "runner.db")
    finally:
        shutil.rmtree(folder)


def pages_of(path: Path) -> dict[str, float]:
    """How many pages of the log a commit writes for each table or index, of the last few commits.

    Source of the log's form: SQLite's file format, section 4.1.
    """
    with closing(sqlite3.connect(path)) as connection:
        ((size,),) = connection.execute("PRAGMA page_size")
        try:
            owners = dict(connection.execute("SELECT pageno, name FROM dbstat").fetchall())
        except sqlite3.OperationalError:
            owners = {}
    log = path.with_name(path.name + "-wal").read_bytes()
    commits: list[list[int]] = [[]]
    for at in range(32, len(log) - size, size + 24):
        page, ends = struct.unpack(">II", log[at : at + 8])
        if log[at + 8 : at + 16] != log[16:24]:
            break  # from before the log began anew
        commits[-1].append(page)
        if ends:
            commits.append([])
    last = commits[:-1][-COMMITS:]
    pages = Counter(owners.get(page, "other") for commit in last for page in commit)
    return {owner: count / len(last) for owner, count in pages.items()}


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
    log = report.table(
        f"Saves of {len(PIECE)} characters at one beat",
        *(
            "streams",
            "chunks before",
            "bytes a byte",
            "pages of the log a commit: chunks",
            "their index",
        ),
        "others",
    )
    for streams in few:
        for before in (0, LONG):
            ratio, pages = asyncio.run(beats(streams, before))
            chunks, index = pages.pop("chunk", 0), pages.pop("chunk_seq", 0)
            counts = (f"{n:.0f}" for n in (chunks, index, sum(pages.values())))
            log.add(streams, f"{before:,}", f"{ratio:.1f}", *counts)
    report.finish(options, x="streams", y="bytes written for each byte")


if __name__ == "__main__":
    main()
