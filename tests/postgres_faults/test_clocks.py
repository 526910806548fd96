"""Worker processes whose clocks differ by hours share one queue, its limits and its budget."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runner.jobs.price import Rates
from runner.jobs.spec import BatchLimits
from runner.jobs.states import State
from runner.simulator import SimulatorOptions
from runner.store.records import PauseCause
from tests.house import a_house, job
from tests.workers.process import SHORT_LEASE, Process

pytestmark = [pytest.mark.anyio, pytest.mark.on_a_server]

HOUR_S = 3_600
# Short, and still long enough for a machine that is busy with other things.
LEASE = SHORT_LEASE | {"lease_s": 3.0, "trust_s": 2.2}
DOLLAR = 1_000_000_000
A_CALL = 80 * 5_000  # nano-dollars: 80 tokens of output at 5 dollars a million
PRICES = {"claude-haiku-4-5": Rates(0, 5 * DOLLAR, 0, 0, 0)}


async def test_rests_and_budgets_hold_whatever_the_clocks_say(tmp_path: Path) -> None:
    options = SimulatorOptions(
        fault_script={6: "http_429"}, retry_after_s=2, tokens_per_second=400, tokens_per_event=4
    )
    specs = [job(f"j{n}", mark="tokens=60") for n in range(24)]
    budget = BatchLimits(concurrency=6, prices=PRICES, max_cost_nano_usd=9 * A_CALL)
    async with a_house(tmp_path, options) as house:
        await house.submit(*specs, limits=budget)
        async with AsyncExitStack() as stack:
            processes = [
                await stack.enter_async_context(
                    Process(house.database, house.simulator.base_url, ahead_s=ahead_s)
                )
                for ahead_s in (HOUR_S, -HOUR_S, 0)
            ]
            # None rests for an hour, and none finds that its jobs' time never comes.
            await asyncio.gather(*(process.ends() for process in processes))
        (batch,) = await house.store.batches()
        assert batch.paused is PauseCause.BUDGET
        assert 0 < batch.cost_nano_usd <= 9 * A_CALL
        assert batch.reserved_nano_usd == 0
        log = house.simulator.books.impatient_log
        assert not [entry for entry in log if entry.since_429_s > 0.5]
        # Raised, the same queue goes on, and what an hour ahead wrote down holds up nobody.
        await house.submit(*specs, limits=BatchLimits(concurrency=6, prices=PRICES))
        await house.worker().run()
        await house.assert_whole(*specs)
        assert house.simulator.books.tokens_generated_twice <= 2 * house.simulator.books.requests


async def test_nobody_is_rescued_too_early_or_never(tmp_path: Path) -> None:
    spec = job("a", mark="tokens=300", max_tokens=400)
    async with a_house(tmp_path, SimulatorOptions(tokens_per_event=4)) as house:
        await house.submit(spec)
        gate, url = house.simulator.hold(100), house.simulator.base_url
        async with (
            Process(house.database, url, ahead_s=-HOUR_S, **LEASE) as slow,
        ):
            await gate.reached.wait()
            async with Process(house.database, url, ahead_s=HOUR_S, **LEASE) as fast:
                # It looks many times while the other lives, and takes nothing from it.
                while len(await house.store.workers()) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                until_ms = house.store.now_ms() + 1100 * LEASE["lease_s"]
                while house.store.now_ms() < until_ms:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                row = await house.row()
                assert (row.state, row.claim) == (State.EXECUTING, 1)
                slow.child.kill()
                await fast.tells("interrupted job goes on")
                gate.release()
                await fast.ends()
        await house.assert_whole(spec)
        assert (await house.row()).claim == 2
