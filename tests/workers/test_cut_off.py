"""A worker that a broken network cuts off from its server for several leases, and lets back in."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from runner.jobs.states import State
from runner.library import follow
from runner.simulator import SimulatorOptions
from tests import house as houses
from tests.places import Databases
from tests.postgres import Server
from tests.proxy import Trouble, a_proxy
from tests.workers.hand_over import assert_handed_over_once, both_end
from tests.workers.process import SHORT_LEASE, Process

pytestmark = pytest.mark.anyio


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """No event tells of what others do in the server."""
    with anyio.fail_after(60):
        while not await holds():  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def test_no_text_is_taken_after_the_take_over(
    tmp_path: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(houses, "PLACE", Databases(postgres_server))
    spec = houses.job("a", mark="tokens=300", max_tokens=80)
    async with houses.a_house(tmp_path, SimulatorOptions(tokens_per_event=4)) as house:
        await house.submit(spec)
        early, url = house.simulator.hold(100), house.simulator.base_url
        with a_proxy(house.database) as (proxy, through):
            async with AsyncExitStack() as processes:
                zombie = await processes.enter_async_context(Process(through, url, **SHORT_LEASE))
                await early.reached.wait()
                async for _ in follow(house.store, "a"):
                    break  # some text is saved
                heir = await processes.enter_async_context(
                    Process(house.database, url, **SHORT_LEASE)
                )
                cut_at = time.monotonic()
                proxy.trouble = Trouble.SILENT
                late = house.simulator.hold(700)
                early.release()  # the rest of its answer comes to the zombie, and cannot be saved
                await heir.tells("interrupted job goes on")
                await late.reached.wait()

                async def three_leases_are_over() -> bool:
                    return time.monotonic() - cut_at > 3 * SHORT_LEASE["lease_s"]

                await until(three_leases_are_over)
                row = await house.row()
                assert (row.state, row.claim) == (State.EXECUTING, 2)
                proxy.trouble = Trouble.NONE  # what the zombie had sent arrives now
                await both_end(zombie, heir, late)
        await assert_handed_over_once(house, spec)
