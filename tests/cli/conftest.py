"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runner.cli.main import main
from tests.cli.filled import make
from tests.places import Place

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def filled_ones() -> dict[str, str]:
    """Filled databases to copy, by kind."""
    return {}


@pytest.fixture
def filled(place: Place, filled_ones: dict[str, str]) -> Iterator[str]:
    """A database of the test's own, with a document of every kind."""
    if place.kind not in filled_ones:
        filled_ones[place.kind] = make(place.new())
    database = place.copy(filled_ones[place.kind])
    yield database
    place.drop(database)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs a command in an empty folder, as in a pipe, without a key."""
    monkeypatch.chdir(tmp_path)
    for name in ("RUNNER_DB", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def invoke(*args: object) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def queue(runner: Invoke, database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database of all commands that name none; asked for by what runs on each kind. Other
    tests find `runner.db` in their folder, made on first use."""
    monkeypatch.setenv("RUNNER_DB", database)
    return database
