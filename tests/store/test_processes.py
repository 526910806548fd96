"""Several processes on one file, and processes that die."""

from __future__ import annotations

import random
import signal
import subprocess
import sys

import pytest

from runner.store.store import Store
from tests.store.hands import make_spec
from tests.strangers import a_stranger

pytestmark = pytest.mark.anyio

SAVER = """
import asyncio, os, sys
from runner.store.records import CallStart, Lane
from runner.store.store import Store
async def main():
    store = await Store.open(sys.argv[1])
    worker = f"w{os.getpid()}"
    await store.register_worker(worker, host="h", pid=os.getpid(), lease_ms=60_000)
    claims = await store.claim(worker, [Lane(1, "m", 20)], 20)
    async def stream(claim):
        loaded = await store.load(claim)
        call_key = await store.begin_call(
            claim, CallStart(len(loaded.calls) + 1, None, 0, 1, "m"))
        seq = loaded.next_seq
        while True:
            await store.save(claim, call_key, seq, f"{claim.job_key}/{seq}/" + "x" * 500)
            os.write(1, f"{claim.job_key} {seq}\\n".encode())
            seq += 1
    await asyncio.gather(*map(stream, claims))
asyncio.run(main())
"""


def start(script: str, database: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", script, database], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


async def test_what_was_acknowledged_survives_a_kill(hands, store: Store, database: str) -> None:
    await hands.submit(*(make_spec(f"j{n}") for n in range(20)))
    await store.close()
    acknowledged: set[tuple[int, int]] = set()
    for _ in range(6):
        with start(SAVER, database) as child:
            assert child.stdout is not None
            for _ in range(random.randint(1, 1500)):
                line = child.stdout.readline()
                assert line, "the child died by itself"
                acknowledged.add(tuple(map(int, line.split())))  # type: ignore[arg-type]
            child.send_signal(signal.SIGKILL)
            for line in child.stdout.read().splitlines():
                if len(line.split()) == 2:
                    acknowledged.add(tuple(map(int, line.split())))  # type: ignore[arg-type]
            child.wait(200)
        async with await Store.open(database) as after:
            (dead,) = await after.workers()
            assert len(await after.rescue(dead.id, max_rescues=100)) == 20
            assert await after.check() == []
    with a_stranger(database) as stranger:
        if store.path is not None:
            assert stranger.execute("PRAGMA quick_check") == [("ok",)]
        saved = {
            (job_key, seq): text
            for job_key, seq, text in stranger.execute("SELECT job_key, seq, text FROM chunk")
        }
    assert len(acknowledged) > 20
    # The last number may have been cut in the pipe, so a kill may leave one line that is short.
    missing = {pair for pair in acknowledged if pair not in saved}
    assert missing == set()
    assert all(text.startswith(f"{key}/{seq}/") for (key, seq), text in saved.items())
    for job_key in {key for key, _ in saved}:
        numbers = sorted(seq for key, seq in saved if key == job_key)
        assert numbers == list(range(len(numbers)))


CLAIMER = """
import asyncio, os, sys
from runner.jobs.states import Finish, State
from runner.store.records import CallStart, Lane, Settlement
from runner.store.store import Store
async def work(store, worker, claim):
    call_key = await store.begin_call(claim, CallStart(1, None, 0, 1, "m"))
    await asyncio.gather(*(store.save(claim, call_key, seq, worker) for seq in range(3)))
    await store.settle(claim, Settlement(State.COMPLETED, Finish.END_TURN))
    print(claim.job_id, flush=True)
async def main():
    store = await Store.open(sys.argv[1])
    worker = f"w{os.getpid()}"
    await store.register_worker(worker, host="h", pid=os.getpid(), lease_ms=60_000)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    while claims := await store.claim(worker, [Lane(1, "m", 7)], 7):
        await asyncio.gather(*(work(store, worker, claim) for claim in claims))
    await store.retire_worker(worker)
    await store.close()
asyncio.run(main())
"""


async def test_eight_processes_share_the_jobs_none_twice(
    hands, store: Store, database: str
) -> None:
    names = [f"j{n}" for n in range(300)]
    await hands.submit(*map(make_spec, names))
    children = [start(CLAIMER, database) for _ in range(8)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    outputs = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    for child in children:
        output, _ = child.communicate(timeout=200)
        assert child.returncode == 0
        outputs.append(output.decode().split())
    done = [name for output in outputs for name in output]
    assert sorted(done) == sorted(names)
    assert await store.unfinished() == 0
    for job_key in (1, 150, 300):
        assert len({piece.text for piece in await store.pieces(job_key)}) == 1
    assert await store.check() == []


async def test_reading_works_while_another_process_writes(
    hands, store: Store, database: str, open_store
) -> None:
    await hands.submit(*(make_spec(f"j{n}") for n in range(20)))
    await store.close()
    with start(SAVER, database) as child:
        assert child.stdout is not None
        child.stdout.readline()
        async with await Store.open(database, create=False) as reader:
            versions = set()
            for _ in range(20):
                versions.add(await reader.data_version())
                assert len([job async for job in reader.jobs()]) == 20
                assert (await reader.batches())[0].jobs == 20
                for piece in await reader.pieces(1):
                    assert piece.text.startswith(f"1/{piece.seq}/")
                child.stdout.readline()
            assert len(versions) > 1
        child.kill()
        child.stdout.read()
