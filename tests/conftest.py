"""What all tests share: one suite for every database.

Tests that take `store`, `database` or `place`, and tests that let a house work, run on each kind.
What is the file's own takes `sqlite_only`, what is the server's own `postgres_only`; in a house it
is marked `in_a_file` or `on_a_server`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.store import migrate
from tests import house
from tests.places import Databases, Files, Place
from tests.postgres import Server, a_server

# Their tests take long: they are begun first, so that no process is alone with one at the end.
LONG = ("crash/", "postgres_faults/", "test_thousand_runs", "test_many_processes", "test_overnight")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each process of the tests begins with a part of the long ones: it gets as many tests as the
    others, one after the other, and who is ready first takes of another's last."""
    processes = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    long = [item for item in items if any(name in item.nodeid for name in LONG)]
    begun = set(long)
    short = [item for item in items if item not in begun]
    size, rest = divmod(len(items), processes)
    items.clear()
    for number in range(processes):
        # What does not divide evenly goes to the last.
        some = long[number::processes]
        count = size + (rest if number == processes - 1 else 0) - len(some)
        items += some + short[:count]
        del short[:count]


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


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: making one from nothing takes Alembic."""
    path = tmp_path_factory.mktemp("empty") / "runner.db"
    migrate.upgrade(path)
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where databases with an empty queue can be had."""
    if request.param == "sqlite":
        empty = request.getfixturevalue("empty_database")
        return Files(empty, tmp_path_factory.mktemp("databases"))
    return Databases(request.getfixturevalue("postgres_server"))


@pytest.fixture
def database(place: Place) -> Iterator[str]:
    """The name of a database with an empty queue."""
    name = place.new()
    yield name
    place.drop(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = set(metafunc.fixturenames)
    if hasattr(metafunc.module, "a_house") and "tmp_path" in names and "place" not in names:
        marked = metafunc.definition.get_closest_marker
        places = ["sqlite"] if marked("in_a_file") else ["sqlite", "postgres"]
        places = ["postgres"] if marked("on_a_server") else places
        metafunc.parametrize("housing", places, indirect=True)


# For all, because pytest forgets a fixture that a test does not name itself.
@pytest.fixture(autouse=True)
def housing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where houses have their database."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield
        return
    house.PLACE = Databases(request.getfixturevalue("postgres_server"))
    yield
    house.PLACE = None
