"""A batch that is half written when it is copied to another database is finished there."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from runner.jobs.spec import BatchLimits
from runner.simulator import SimulatorOptions
from runner.store import copy_rows
from runner.store.copying import copy_batch
from runner.store.ledger import By
from runner.store.store import Store
from tests import house as houses
from tests.house import a_house, job
from tests.postgres import Server

pytestmark = pytest.mark.anyio


async def test_half_written_documents_go_on_at_the_other_place(
    tmp_path: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file to a server or back: byte for byte, and nothing is paid for again."""
    monkeypatch.setattr(copy_rows, "SLICE_CHARACTERS", 1)
    specs = [job(f"j{n}") for n in range(6)]
    elsewhere = str(tmp_path / "elsewhere.db") if houses.PLACE else postgres_server.empty()
    async with a_house(tmp_path, SimulatorOptions(tokens_per_second=300)) as house:
        await house.submit(*specs, limits=BatchLimits(concurrency=3))
        worker = house.worker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            async with anyio.create_task_group() as watching:

                async def stop_in_the_middle() -> None:
                    seen = await house.store.data_version()
                    while True:
                        (batch,) = await house.store.batches()
                        texts = [await house.text(spec.id) for spec in specs]
                        if batch.complete >= 1 and sum(map(len, texts)) > 1500:
                            return
                        while seen == (seen := await house.store.data_version()):  # noqa: ASYNC110
                            await anyio.sleep(0.01)

                watching.start_soon(stop_in_the_middle)
            worker.stop()
        half = {spec.id: await house.text(spec.id) for spec in specs}
        (before,) = await house.store.batches()
        assert 0 < before.complete < len(specs)
        accounts = await house.store.accounts(By.MODEL)

        async with await Store.open(elsewhere) as there:
            await copy_batch(house.store, there, "b", max_rescues=3)
            (now,) = await there.batches()
            assert (now.counts, now.usage, now.cost_nano_usd) == (
                before.counts,
                before.usage,
                before.cost_nano_usd,
            )
            assert await there.accounts(By.MODEL) == accounts
            moved = houses.House(there, house.simulator, house.client, elsewhere)
            assert {spec.id: await moved.text(spec.id) for spec in specs} == half
            await moved.worker().run()
            await moved.assert_whole(*specs)
            for spec in specs:
                assert (await moved.text(spec.id)).startswith(half[spec.id].rstrip())
            # Nothing went on where it was.
            assert {spec.id: await house.text(spec.id) for spec in specs} == half
            books = house.simulator.books
            assert books.tokens_generated_twice <= 2 * books.requests  # white space at the seams
    if not houses.PLACE:
        postgres_server.drop(elsewhere)
