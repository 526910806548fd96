"""A worker of this version comes back to a database that a newer version has upgraded meanwhile."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from runner.errors import SchemaTooNew
from runner.simulator import SimulatorOptions
from runner.store.schema import SCHEMA_VERSION
from runner.workers.settings import WorkerSettings
from tests.house import a_house, job
from tests.strangers import a_stranger

pytestmark = pytest.mark.anyio

SET_VERSION = "UPDATE alembic_version SET version_num = ?"


async def test_it_stops_with_a_clear_word_and_loses_nothing(tmp_path: Path) -> None:
    settings = WorkerSettings(
        checkpoint_s=0.01, poll_s=0.02, lease_s=5, trust_s=4, heartbeat_s=0.05
    )
    specs = [job(f"j{n}") for n in range(3)]
    async with a_house(tmp_path, SimulatorOptions(tokens_per_second=150)) as house:
        await house.submit(*specs)
        worker = house.worker(settings=settings)
        with a_stranger(house.database) as newer:

            async def upgrade() -> None:
                await house.simulator.books.wait_for(lambda books: books.tokens_generated > 150)
                # As after a lease that was over: its row is gone, and the schema is another.
                newer.execute(SET_VERSION, ("9999",))
                newer.execute("DELETE FROM worker")

            stopped: list[str] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upgrade)
                try:
                    await worker.run()
                except SchemaTooNew as error:
                    stopped.append(str(error))
            assert "brought to schema version 9999" in stopped[0]
            assert "What was saved is safe" in stopped[0]
            assert sum([len(await house.text(spec.id)) for spec in specs]) > 0
            newer.execute(SET_VERSION, (SCHEMA_VERSION,))
        await house.worker().run()
        await house.assert_whole(*specs)
        books = house.simulator.books
        assert books.tokens_generated_twice <= 3 * books.requests
