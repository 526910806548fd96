"""What all tests share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Server, a_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server, started by the first test that asks for it."""
    # Not pytest's own folders: a socket's path may have 107 characters at most.
    with (
        tempfile.TemporaryDirectory(prefix="runner-pg-") as folder,
        a_server(Path(folder)) as server,
    ):
        yield server
