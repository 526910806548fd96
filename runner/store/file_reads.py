"""The connections that only read a file, each in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Engine, Executable, Row


class FileReads:
    """Reads in threads of their own. See `runner.store.database.Reads`.

    A read is handed to a thread whole. Handing over each of its steps, from the cursor to the
    rollback, cost several times what SQLite needs for an answer.

    Args:
        readers: how many at once.
    """

    def __init__(self, engine: Engine, readers: int) -> None:
        self._engine = engine
        self._readers = readers
        self._threads: ThreadPoolExecutor | None = None  # from the first read on

    async def rows(
        self, statement: Executable, values: Mapping[str, object] | None = None
    ) -> Sequence[Row[Any]]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self._readers, thread_name_prefix="runner-store-reader"
            )
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._read, statement, values)

    def _read(
        self, statement: Executable, values: Mapping[str, object] | None
    ) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(statement, values).all()

    async def close(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        self._engine.dispose()
