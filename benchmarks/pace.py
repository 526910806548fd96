"""How much of a rate limit is used, and how often it is met: runner beside two simpler ways.

Run: python benchmarks/pace.py [--quick] [--only requests,input,output] [--out FILE]

Each cell has a simulated API of its own, in a process of its own, with half the limits of the first
usage tier (500 requests, 1 million input and 200,000 output tokens a minute, so that no machine is
measured in their place), of which another one binds in each: kept by the minute (a bucket that holds 60 seconds' worth) or by the second. On
it work, in one process or four on one database, `runner`; or, in one process, a fixed number of
streams with the official SDK's own retries, or the same behind a plain token bucket that knows the
limits and what calls need on average. After the ramp, the server counts.

Prints a table: how much of the binding limit was used, the part of the requests that was answered
429, the requests that came although an earlier 429 asked for patience (beside those that were on
their way), and what was given up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "claude-haiku-4-5"
REQUESTS, INPUT, OUTPUT = 500, 1_000_000, 200_000
RAMP_S = 12.0  # from the first request on; then it is measured
MEASURED_S = 20.0
ON_THEIR_WAY_S = 0.25  # what comes so soon after a 429 was sent before anyone could know of it
JOBS = 1_500
STREAMS = 32  # of the simpler ways: about as many as runner finds for itself


@dataclass(frozen=True)
class Load:
    """What makes one of the limits bind."""

    kind: str
    words: int  # of filler in a prompt, about as many tokens
    output_tokens: tuple[int, int]
    tokens_per_second: float


LOADS = {
    "requests": Load("requests", 60, (30, 90), 100.0),
    "input": Load("input", 3_000, (30, 90), 100.0),
    "output": Load("output", 60, (300, 900), 150.0),
}
LIMITS = {"requests": REQUESTS, "input": INPUT, "output": OUTPUT}


def prompts(load: Load) -> Iterator[str]:
    draw = random.Random(1)
    number = 0
    while True:
        number += 1
        words = round(load.words * draw.uniform(0.5, 1.5))
        tokens = draw.randint(*load.output_tokens)
        yield f"Number {number}: {'word ' * words} [[simulate: tokens={tokens}]]"


# the server


async def serve(load: Load, burst_s: float, report: Path) -> None:
    """A simulator that writes down, for each tenth of a second, what it let through."""
    from runner.simulator import Simulator, SimulatorOptions
    from runner.simulator.limits import RateLimits
    from runner.simulator.problems import ApiProblem

    let_in: dict[int, list[float]] = {}
    refused: list[tuple[float, float]] = []
    asked: list[float] = []

    def at() -> list[float]:
        return let_in.setdefault(int(time.monotonic() * 10), [0, 0, 0])

    class Counting(RateLimits):
        def __init__(self, *options: Any) -> None:
            super().__init__(*options)
            # As in the midst of a night: what a minute's bucket holds at first is used up.
            for bucket in self._buckets.values():
                bucket.level = min(bucket.level, bucket.limit / 60)

        def admit(self, input_tokens: int, now_s: float) -> None:
            asked.append(time.monotonic())
            try:
                super().admit(input_tokens, now_s)
            except ApiProblem as problem:
                refused.append((time.monotonic(), float(-(-(problem.retry_after_s or 0) // 1))))
                raise
            at()[0] += 1
            at()[1] += input_tokens

        def spend_output(self, tokens: int, now_s: float) -> None:
            super().spend_output(tokens, now_s)
            at()[2] += tokens

    import runner.simulator.admission as admission

    admission.RateLimits = Counting  # type: ignore[misc]
    options = SimulatorOptions(
        requests_per_minute=REQUESTS,
        input_tokens_per_minute=INPUT,
        output_tokens_per_minute=OUTPUT,
        burst_s=burst_s,
        tokens_per_second=load.tokens_per_second,
        first_token_s=0.2,
        tokens_per_event=10,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Simulator(options) as simulator:
        print(simulator.base_url, flush=True)
        await stop.wait()
        told = {"let_in": sorted(let_in.items()), "refused": refused, "asked": asked}
        await asyncio.to_thread(report.write_text, json.dumps(told))


# the three ways


async def work(database: str, base_url: str) -> None:
    """One process of runner."""
    from runner.library import open_store
    from runner.messages.client import MessagesClient
    from runner.workers.worker import Worker

    client = MessagesClient(api_key="bench-key", base_url=base_url, one_block=False)
    async with open_store(database, create=False) as store:
        worker = Worker(store, client)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
        for notice in worker.progress.notices:
            print(notice, file=sys.stderr)
    await client.aclose()


class PlainBuckets:
    """Each holds up to a minute's worth, filled evenly; output by what calls come to on average."""

    def __init__(self, load: Load) -> None:
        needs = {
            "requests": 1.0,
            "input": load.words + 30.0,
            "output": sum(load.output_tokens) / 2,
        }
        self._needs = needs
        self._levels = {kind: limit / 60 for kind, limit in LIMITS.items()}
        self._at = time.monotonic()
        self._lock = asyncio.Lock()

    async def enter(self) -> None:
        async with self._lock:
            while True:
                now = time.monotonic()
                for kind, limit in LIMITS.items():
                    grown = self._levels[kind] + (now - self._at) * limit / 60
                    self._levels[kind] = min(limit, grown)
                self._at = now
                waits = [
                    (need - self._levels[kind]) * 60 / LIMITS[kind]
                    for kind, need in self._needs.items()
                ]
                if max(waits) <= 0:
                    break
                await asyncio.sleep(max(waits))
            for kind, need in self._needs.items():
                self._levels[kind] -= need


async def simple(load: Load, base_url: str, *, bucket: bool) -> None:
    """Streams with the SDK's own retries, until told to stop; tells what was given up."""
    import anthropic

    client = anthropic.AsyncAnthropic(api_key="bench-key", base_url=base_url)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    source, buckets, lost = prompts(load), PlainBuckets(load) if bucket else None, 0

    async def stream() -> None:
        nonlocal lost
        for prompt in source:
            if buckets is not None:
                await buckets.enter()
            try:
                events = await client.messages.create(
                    model=MODEL,
                    max_tokens=4_000,
                    messages=[{"role": "user", "content": prompt}],
                    stream=True,
                )
                async for _ in events:
                    pass
            except anthropic.APIStatusError:
                lost += 1

    tasks = [asyncio.ensure_future(stream()) for _ in range(STREAMS)]
    await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(f"lost {lost}", file=sys.stderr)


# one cell


async def submit(database: Path, load: Load) -> None:
    from runner.jobs.spec import BatchLimits, BatchSpec, JobSpec
    from runner.library import open_store

    source = prompts(load)
    jobs = [
        JobSpec(
            id=f"j{number}",
            model=MODEL,
            messages=({"role": "user", "content": next(source)},),
            max_tokens=4_000,
        )
        for number in range(JOBS)
    ]
    async with open_store(database) as store:
        await store.submit(BatchSpec("pace", BatchLimits(concurrency=400)), jobs)


async def cell(
    way: str, load: Load, burst_s: float, processes: int, folder: Path
) -> dict[str, Any]:
    report = folder / "report.json"
    me = [sys.executable, __file__]
    server = await asyncio.create_subprocess_exec(
        *(*me, "--serve", load.kind, str(burst_s), str(report)), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    base_url = (await server.stdout.readline()).decode().strip()
    if way == "runner":
        database = folder / "runner.db"
        await submit(database, load)
        command = [*me, "--work", str(database), base_url]
    else:
        command = [*me, "--simple", way, load.kind, base_url]
    clients = [
        await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        for _ in range(processes)
    ]
    # Importing takes a while, the longer the more processes there are.
    await asyncio.sleep(4.0 + 3.0 * processes + RAMP_S + MEASURED_S)
    end_s = time.monotonic()
    server.send_signal(signal.SIGTERM)
    await server.wait()
    said = []
    for client in clients:
        client.terminate()
        said.append((await client.communicate())[1].decode(errors="replace"))
    return measure(way, load, burst_s, processes, json.loads(report.read_text()), end_s, said)


def measure(
    way: str,
    load: Load,
    burst_s: float,
    processes: int,
    told: dict[str, Any],
    end_s: float,
    said: list[str],
) -> dict[str, Any]:
    start_s = end_s - MEASURED_S
    bins = [0.0, 0.0, 0.0]
    for tenth, amounts in told["let_in"]:
        if start_s <= tenth / 10 < end_s - 0.1:
            bins = [have + amount for have, amount in zip(bins, amounts, strict=True)]
    minutes = (MEASURED_S - 0.1) / 60
    used = {
        kind: 100 * amount / minutes / LIMITS[kind]
        for kind, amount in zip(LIMITS, bins, strict=True)
    }
    asked = [at for at in told["asked"] if at >= start_s]
    refused = [at for at, _ in told["refused"] if at >= start_s]
    early = sum(
        any(since + ON_THEIR_WAY_S < at < since + wait_s for since, wait_s in told["refused"])
        for at in told["asked"]
    )
    lost = sum(int(words.split("lost ")[1].split()[0]) for words in said if "lost " in words)
    return {
        "way": way,
        "binds": load.kind,
        "burst_s": burst_s,
        "processes": processes,
        "used_percent": round(used[load.kind], 1),
        "requests": len(asked),
        "answered_429_percent": round(100 * len(refused) / max(1, len(asked)), 2),
        "answered_429_in_all": len(told["refused"]),
        "too_early": early,
        "given_up": lost,
        "first_s": round(told["asked"][0] - start_s, 1) if told["asked"] else None,
    }


def cells(kinds: list[str], *, quick: bool) -> Iterator[tuple[str, str, float, int]]:
    for kind in kinds:
        for burst_s in (60.0, 1.0):
            yield "runner", kind, burst_s, 1
            if not quick:
                yield "runner", kind, burst_s, 4
            yield "sdk", kind, burst_s, 1
            yield "bucket", kind, burst_s, 1


NAMES = {
    "runner": "runner",
    "sdk": f"{STREAMS} streams, the SDK's retries",
    "bucket": "the same, plain token bucket",
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one process only")
    parser.add_argument("--only", default="requests,input,output", help="limits that bind")
    parser.add_argument("--ways", default="runner,sdk,bucket")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--simple", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        kind, burst_s, report = given.serve
        await serve(LOADS[kind], float(burst_s), Path(report))
        return
    if given.work:
        await work(*given.work)
        return
    if given.simple:
        way, kind, base_url = given.simple
        await simple(LOADS[kind], base_url, bucket=way == "bucket")
        return
    print(
        "| limit that binds | kept by the | way | processes | used | 429 | too early | given up |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for way, kind, burst_s, processes in cells(given.only.split(","), quick=given.quick):
        if way not in given.ways.split(","):
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = await cell(way, LOADS[kind], burst_s, processes, Path(folder))
        rows.append(row)
        kept = "minute" if burst_s == 60 else "second"
        print(
            f"| {kind} | {kept} | {NAMES[way]} | {processes} | {row['used_percent']} % | "
            f"{row['answered_429_percent']} % | {row['too_early']} | {row['given_up']} |",
            flush=True,
        )
        if given.out:
            given.out.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
