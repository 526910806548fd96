"""Whatever works in a house works in one with a file and in one on a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import house
from tests.places import Databases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if hasattr(metafunc.module, "a_house"):
        only = metafunc.definition.get_closest_marker("in_a_file")
        metafunc.fixturenames.append("housing")
        places = ["sqlite"] if only else ["sqlite", "postgres"]
        metafunc.parametrize("housing", places, indirect=True)


@pytest.fixture
def housing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where houses have their database."""
    if request.param == "sqlite":
        yield
        return
    house.PLACE = Databases(request.getfixturevalue("postgres_server"))
    yield
    house.PLACE = None
