"""What the store costs: saves, claims, submits. `python benchmarks/store.py [--rows N]`.

Prints one line a figure. CPU is user + system time of this whole process; figures of one run can
be compared with each other, not with those of another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from runner.jobs.call import CallOutcome
from runner.jobs.spec import BatchSpec, JobSpec
from runner.jobs.states import Finish, State
from runner.store.records import CallStart, Claim, Lane, Settlement
from runner.store.store import Store

PROMPT = "Write a long chapter. " * 45  # about 1 kB
CHUNK = "The quick brown fox jumps over the lazy dog; " * 45  # about 2 kB


def specs(count: int) -> Iterator[JobSpec]:
    for number in range(count):
        yield JobSpec(
            id=f"job-{number}",
            model="m",
            messages=({"role": "user", "content": f"{PROMPT}{number}"},),
        )


def written_bytes() -> int:
    """Bytes this process handed to the disk so far."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise OSError("/proc/self/io tells no write_bytes")


def line(name: str, figure: str) -> None:
    print(f"{name:<58}{figure:>18}")


async def claimed(store: Store, batch_key: int, count: int) -> list[Claim]:
    await store.register_worker("w", host="h", pid=os.getpid(), lease_ms=10**9)
    return await store.claim("w", [Lane(batch_key, "m", count)], count)


async def measure_saves(folder: Path, jobs: int, saves: int) -> None:
    async with await Store.open(folder / f"saves-{jobs}.db") as store:
        batch_key = (await store.submit(BatchSpec("b"), lambda: specs(jobs))).batch_key
        claims = await claimed(store, batch_key, jobs)
        start = CallStart(1, None, 0, 1000, "m")
        call_keys = await asyncio.gather(*(store.begin_call(c, start) for c in claims))

        async def stream(claim: Claim, call_key: int) -> None:
            for seq in range(saves // jobs):
                await store.save(claim, call_key, seq, CHUNK)

        wall, cpu, disk = time.perf_counter(), time.process_time(), written_bytes()
        await asyncio.gather(*map(stream, claims, call_keys))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        disk = written_bytes() - disk
        line(f"saves a second, {jobs} jobs at once, FULL", f"{saves / wall:,.0f}")
        line(f"CPU a save, {jobs} jobs at once", f"{cpu / saves * 1e6:.1f} µs")
        line(f"bytes to disk a byte saved, {jobs} jobs", f"{disk / saves / len(CHUNK):.2f}")


async def measure_queue(folder: Path, rows: int) -> None:
    async with await Store.open(folder / f"queue-{rows}.db") as store:
        wall, cpu = time.perf_counter(), time.process_time()
        batch_key = (await store.submit(BatchSpec("b"), lambda: specs(rows))).batch_key
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        line(f"submit, {rows:,} new jobs", f"{rows / wall:,.0f} /s")
        line(f"CPU a submitted job, {rows:,} jobs", f"{cpu / rows * 1e6:.1f} µs")
        wall = time.perf_counter()
        receipt = await store.submit(BatchSpec("b"), lambda: specs(rows))
        assert receipt.present == rows
        line(f"submit, {rows:,} present jobs", f"{rows / (time.perf_counter() - wall):,.0f} /s")

        await store.register_worker("w", host="h", pid=os.getpid(), lease_ms=10**9)
        for size in (1, 32):
            wall, cpu = time.perf_counter(), time.process_time()
            rounds = 100 if size == 1 else 20
            for _ in range(rounds):
                assert len(await store.claim("w", [Lane(batch_key, "m", size)], size)) == size
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            line(f"claim of {size}, {rows:,} jobs", f"{wall / rounds * 1e3:.2f} ms")
            line(f"CPU a claim of {size}, {rows:,} jobs", f"{cpu / rounds * 1e6:.0f} µs")
        wall = time.perf_counter()
        await store.batches()
        line(f"batches with counts, {rows:,} jobs", f"{(time.perf_counter() - wall) * 1e3:.2f} ms")


async def measure_calls(folder: Path, jobs: int) -> None:
    async with await Store.open(folder / "calls.db") as store:
        batch_key = (await store.submit(BatchSpec("b"), lambda: specs(jobs))).batch_key
        claims = await claimed(store, batch_key, jobs)
        start = CallStart(1, None, 0, 1000, "m")
        done = Settlement(State.COMPLETED, Finish.END_TURN)

        async def one(claim: Claim) -> None:
            call_key = await store.begin_call(claim, start)
            await store.end_call_and_settle(claim, call_key, CallOutcome("end_turn"), done)

        cpu = time.process_time()
        await asyncio.gather(*map(store.load, claims))
        line("CPU a load of a fresh job", f"{(time.process_time() - cpu) / jobs * 1e6:.0f} µs")
        cpu = time.process_time()
        await asyncio.gather(*map(one, claims))
        line(
            "CPU a call begun, ended and settled",
            f"{(time.process_time() - cpu) / jobs * 1e6:.0f} µs",
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 100_000])
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir="."))  # not /tmp, which may be memory
    try:
        for jobs in (1, 32, 128, 500):
            await measure_saves(folder, jobs, 400 if jobs == 1 else 20_000 // jobs * jobs)
        await measure_calls(folder, 1_000)
        for rows in arguments.rows:
            await measure_queue(folder, rows)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    asyncio.run(main())
