"""The switch of the fault points, as the environment sets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner import faults

JOB_FILE = """\
version: 1
batch: b
defaults: {model: claude-haiku-4-5, max_tokens: 100}
jobs:
  - {id: a, prompt: Write.}
"""


def submit(folder: Path, **environment: str) -> int:
    (folder / "jobs.yaml").write_text(JOB_FILE, encoding="utf-8")
    command = [sys.executable, "-m", "runner", "submit", "jobs.yaml"]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}).returncode


def test_a_process_dies_where_the_environment_says(tmp_path: Path) -> None:
    assert submit(tmp_path, RUNNER_FAULT="submit.slice:1") == -signal.SIGKILL
    assert submit(tmp_path, RUNNER_FAULT="migration.middle:1") == 0  # migrated already
    assert submit(tmp_path, RUNNER_FAULT="submit.slice:2") == 0  # there is but one


def test_a_process_tells_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert submit(tmp_path, RUNNER_FAULT_LOG=str(log)) == 0
    points = log.read_text(encoding="utf-8").split()
    assert points[:2] == ["migration.before", "migration.middle"]
    assert {"submit.slice", "commit.before", "commit.after"} <= set(points)


@pytest.mark.parametrize("fault", ["commit.before", "commit.before:", ":3", "commit.before:x"])
def test_a_fault_that_is_none_is_refused(fault: str) -> None:
    with pytest.raises(ValueError, match=r"NAME:N"):
        faults.arm(fault)
    assert not faults.armed
