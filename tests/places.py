"""Where a test's databases are: files, or a server."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url

from tests.postgres import Server

sqlite_only = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
postgres_only = pytest.mark.parametrize("place", ["postgres"], indirect=True)


class Place(Protocol):
    """Makes databases.

    Args:
        address: what `a_place` makes the same of in another process.
    """

    kind: str
    address: str

    def new(self) -> str:
        """The name of a new one with an empty queue."""

    def bare(self) -> str:
        """The name of a new one in which there is nothing yet."""

    def copy(self, database: str) -> str:
        """The name of a copy of one that nobody has open."""

    def drop(self, database: str) -> None: ...


class Files:
    kind = "sqlite"

    def __init__(self, empty: Path, folder: Path) -> None:
        self.address = str(empty)
        self._folder = folder

    def new(self) -> str:
        return self.copy(self.address)

    def copy(self, database: str) -> str:
        copied = self.bare()
        shutil.copy(database, copied)
        return copied

    def bare(self) -> str:
        folder = self._folder / uuid4().hex
        folder.mkdir()
        return str(folder / "runner.db")

    def drop(self, database: str) -> None:
        shutil.rmtree(Path(database).parent)


class Databases:
    kind = "postgres"

    def __init__(self, server: Server) -> None:
        self.address = server.url("postgres").render_as_string(hide_password=False)
        self._server = server

    def new(self) -> str:
        return self._server.empty()

    def copy(self, database: str) -> str:
        return self._server.copy(database)

    def bare(self) -> str:
        return self._server.bare()

    def drop(self, database: str) -> None:
        self._server.drop(database)


def a_place(address: str, folder: Path) -> Place:
    """The place that another process of the tests told of.

    Args:
        folder: for its files, where it has any.
    """
    if address.startswith("postgresql"):
        return Databases(Server(make_url(address)))
    return Files(Path(address), folder)
