"""docs/command-line.md says what the commands say of themselves."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "command_line.py"


def test_the_page_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "RUNNER_DB"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("command_line", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.page()
    assert module.PAGE.read_text() == made, "run: python docs/command_line.py"
    assert "## runner export" in made
