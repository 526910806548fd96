"""A simulator beside the commands under test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from runner.simulator import Simulator, SimulatorOptions


@contextmanager
def simulator(**options: Any) -> Iterator[Simulator]:
    """A simulator with a loop and thread of its own: commands run loops of theirs."""
    started, over = Event(), Event()
    found: list[Simulator] = []

    async def serve() -> None:
        async with Simulator(SimulatorOptions(**options)) as running:
            found.append(running)
            started.set()
            await asyncio.to_thread(over.wait)

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(200)
    try:
        yield found[0]
    finally:
        over.set()
        thread.join()
