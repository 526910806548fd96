"""Processes that hang: stopped, or cut off from the database, for longer than their lease."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from runner.jobs.states import State
from runner.library import follow
from runner.simulator import SimulatorOptions
from tests.house import a_house, job
from tests.strangers import a_stranger
from tests.workers.hand_over import assert_handed_over_once, both_end
from tests.workers.process import SHORT_LEASE, Process

pytestmark = pytest.mark.anyio
# How to keep everybody else from writing: in a file, and on a server.
LOCKED_OUT = (
    ("BEGIN EXCLUSIVE",),
    ("BEGIN", "LOCK TABLE worker, chunk, job IN EXCLUSIVE MODE"),
)
LONG = {"mark": "tokens=300", "max_tokens": 80}


async def test_a_stopped_process_writes_nothing_once_another_took_over(tmp_path: Path) -> None:
    spec = job("a", **LONG)
    async with a_house(tmp_path, SimulatorOptions(tokens_per_event=4)) as house:
        await house.submit(spec)
        early = house.simulator.hold(100)
        url = house.simulator.base_url
        async with (
            Process(house.database, url, **SHORT_LEASE) as zombie,
            Process(house.database, url, **SHORT_LEASE) as heir,
        ):
            await early.reached.wait()
            async for _ in follow(house.store, "a"):
                break  # some text is saved
            holder = "SELECT pid FROM worker JOIN job ON job.worker_id = worker.id"
            with a_stranger(house.database) as stranger:
                ((pid,),) = stranger.execute(holder)
            if pid != zombie.child.pid:
                zombie, heir = heir, zombie
            zombie.child.send_signal(signal.SIGSTOP)
            late = house.simulator.hold(700)
            early.release()  # the rest of the zombie's answer now waits in its socket
            await heir.tells("interrupted job goes on")
            await late.reached.wait()
            row = await house.row()
            assert (row.state, row.claim) == (State.EXECUTING, 2)
            zombie.child.send_signal(signal.SIGCONT)
            await both_end(zombie, heir, late)
        await assert_handed_over_once(house, spec)
        assert house.simulator.books.restarts == 0


async def test_a_process_cut_off_stops_its_streams_by_itself(tmp_path: Path) -> None:
    """Nobody can take its jobs over yet, and nobody tells it: only its own trust has ended."""
    specs = [job(name, mark="tokens=600", max_tokens=500) for name in "ab"]
    options = SimulatorOptions(tokens_per_second=100)
    async with a_house(tmp_path, options) as house:
        await house.submit(*specs)
        books = house.simulator.books
        async with Process(house.database, house.simulator.base_url, **SHORT_LEASE) as process:
            await books.wait_for(lambda b: b.streams_open == 2 and b.tokens_generated > 40)
            with a_stranger(house.database) as other:
                for statement in LOCKED_OUT[house.store.path is None]:
                    other.execute(statement)
                await books.wait_for(lambda b: b.disconnects == 2 and b.streams_open == 0)
                assert (await house.row()).state is State.EXECUTING
                other.execute("ROLLBACK")
            await process.tells("the lease was lost")
            await process.ends()
        await house.assert_whole(*specs)
        assert books.restarts == 0
        # All that had streamed in was kept in memory and saved when the database was free again.
        assert books.tokens_generated_twice <= 2 * 30


async def test_a_suspended_process_goes_on_where_it_was(tmp_path: Path) -> None:
    spec = job("a", **LONG)
    async with a_house(tmp_path) as house:
        await house.submit(spec)
        gate = house.simulator.hold(100)
        async with Process(house.database, house.simulator.base_url) as process:
            await gate.reached.wait()
            process.child.send_signal(signal.SIGTSTP)
            gate.release()
            process.child.send_signal(signal.SIGCONT)
            await process.ends()
        await house.assert_whole(spec)
        assert (await house.row()).claim == 1
        assert house.simulator.books.tokens_generated_twice <= 4
