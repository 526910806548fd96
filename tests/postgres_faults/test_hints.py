"""A worker that is idle hears of new work at once, and finds it as well when it hears nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from sqlalchemy.engine import make_url

from runner.jobs.states import State
from runner.library import open_store
from runner.store import hints
from runner.store.records import PauseCause, Selection
from runner.workers import pacing
from tests.house import QUICK, House, a_house, job
from tests.strangers import PostgresStranger, a_stranger

pytestmark = [pytest.mark.anyio, pytest.mark.on_a_server]

# So seldom that no test sees it.
HARDLY_LOOKS = replace(QUICK, poll_s=3600.0)
LISTENS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'runner listens'"


@pytest.fixture(autouse=True)
def nothing_else_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "BEAT_S", 3600.0)
    monkeypatch.setattr(hints, "AGAIN_S", (1.0, 1.5))


@asynccontextmanager
async def an_idle_worker(house: House) -> AsyncIterator[None]:
    worker = house.worker(until_final=False, settings=HARDLY_LOOKS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        with a_stranger(house.database) as stranger:
            await a_listener(stranger)
            yield
        worker.stop()


async def a_listener(stranger: PostgresStranger, *, other_than: int = 0) -> int:
    """The process of the server that a worker's listening connection has."""
    with anyio.fail_after(60):
        while True:
            of_this = " AND datname = current_database() AND query LIKE 'LISTEN%'"
            for (pid,) in stranger.execute(LISTENS + of_this):
                if pid != other_than:
                    return int(pid)
            await anyio.sleep(0.02)


async def completed(house: House, *names: str) -> None:
    with anyio.fail_after(60):
        for name in names:
            while (await house.row(name)).state is not State.COMPLETED:  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_what_is_submitted_resumed_or_retried_begins_at_once(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house, an_idle_worker(house):
        # By another process, so that nothing in this one tells the worker.
        async with open_store(house.database) as other:
            mine, house.store = house.store, other
            await house.submit(job("a"))
            await completed(house, "a")
            (batch,) = await other.batches()
            await other.pause(batch.key, PauseCause.USER, "")
            await house.submit(job("b"))
            await other.resume(batch.key)
            await completed(house, "b")
            again = (await house.row("b")).key
            assert await other.retry(Selection(job_keys=(again,)), afresh=True) == 1
            await completed(house, "b")
            assert (await house.row("b")).claim == 2
            house.store = mine
        await house.assert_whole(job("a"), job("b"))


async def test_a_listener_that_is_cut_off_listens_again_and_looks_once(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house, an_idle_worker(house):
        with a_stranger(house.database) as stranger:
            was = await a_listener(stranger)
            stranger.execute("SELECT pg_terminate_backend($1)", (was,))
            await house.submit(job("a"))  # while nobody hears
            await completed(house, "a")
            assert await a_listener(stranger, other_than=was)
            await house.submit(job("b"))
            await completed(house, "b")


async def test_one_hint_for_each_submission_and_none_for_claims_and_chunks(
    tmp_path: Path,
) -> None:
    heard: list[str] = []

    def hear(_connection: object, _pid: int, channel: str, payload: str) -> None:
        heard.append(channel + payload)

    async with a_house(tmp_path) as house:
        with a_stranger(house.database) as stranger:
            bare = stranger.connection
            stranger.do(bare.add_listener(hints.CHANNEL, hear))
            await house.submit(*(job(f"j{n}") for n in range(5)))
            await house.worker().run()
            stranger.execute("SELECT 1")  # what was told before has arrived by now
            assert heard == [hints.CHANNEL]
            stranger.do(bare.remove_listener(hints.CHANNEL, hear))


async def test_behind_a_pooler_nobody_listens_and_looking_is_enough(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        url = make_url(house.database).update_query_dict({"listen": "off"})
        async with open_store(url.render_as_string(hide_password=False)) as store:
            heard = asyncio.Event()
            await store.listen(heard.set)  # returns
            assert not heard.is_set()
            house.store, own = store, house.store
            await house.submit(job("a"))
            await house.worker().run()
            house.store = own
        await house.assert_whole(job("a"))
