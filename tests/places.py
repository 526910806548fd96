"""Where a test's databases are: files, or a server."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Protocol

from tests.postgres import Server


class Place(Protocol):
    """Makes databases with an empty queue."""

    kind: str

    def new(self) -> str:
        """The name of a new one."""

    def drop(self, database: str) -> None: ...


class Files:
    kind = "sqlite"

    def __init__(self, empty: Path, folder: Path) -> None:
        self._empty = empty
        self._folder = folder
        self._numbers = itertools.count()

    def new(self) -> str:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        shutil.copy(self._empty, folder / "runner.db")
        return str(folder / "runner.db")

    def drop(self, database: str) -> None:
        shutil.rmtree(Path(database).parent)


class Databases:
    kind = "postgres"

    def __init__(self, server: Server) -> None:
        self._server = server

    def new(self) -> str:
        return self._server.empty()

    def drop(self, database: str) -> None:
        self._server.drop(database)
