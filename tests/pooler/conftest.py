"""The same stores as everywhere, with a pooler between them and the server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pgbouncer import Bouncer, Pooled, a_bouncer
from tests.places import Place
from tests.postgres import Server
from tests.store.conftest import clock, hands, open_store, store

__all__ = ["clock", "hands", "open_store", "store"]  # fixtures, used by name


@pytest.fixture(scope="session")
def bouncer(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouncer]:
    # Its folder must be open to the user it runs as; that of the package is one for all processes.
    cache = tmp_path_factory.getbasetemp().parent / "pgbouncer"
    with (
        tempfile.TemporaryDirectory(prefix="runner-pgb-") as folder,
        a_bouncer(postgres_server, Path(folder), cache) as bouncer,
    ):
        yield bouncer


@pytest.fixture
def place(postgres_server: Server, bouncer: Bouncer) -> Place:
    return Pooled(postgres_server, bouncer)
