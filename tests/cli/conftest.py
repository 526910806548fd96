"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runner.cli.main import main
from tests.cli.filled import make

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def filled_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("filled") / "runner.db")


@pytest.fixture
def filled(filled_template: Path, tmp_path: Path) -> Path:
    """A database of the test's own, with a document of every kind."""
    path = tmp_path / "filled.db"
    for part in filled_template.parent.glob("runner.db*"):
        if part.is_file():
            (tmp_path / part.name.replace("runner.db", "filled.db")).write_bytes(part.read_bytes())
    return path


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
