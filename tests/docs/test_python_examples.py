"""The Python examples of README.md and docs/library.md run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import anyio.to_thread
import pytest

from runner.simulator import Simulator

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
JOBS = """\
version: 1
defaults: {model: claude-haiku-4-5}
jobs: [{id: one, prompt: Write about one in 50 words.}]
"""


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
async def test_examples_run(page, tmp_path):
    (tmp_path / "jobs.yaml").write_text(JOBS)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    assert blocks
    async with Simulator() as simulator:
        environment = os.environ | {
            "ANTHROPIC_BASE_URL": simulator.base_url,
            "ANTHROPIC_API_KEY": "test-key",
        }
        for block in blocks:
            done = await anyio.to_thread.run_sync(
                lambda block=block: subprocess.run(
                    [sys.executable, "-W", "error", "-c", block],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=200,
                )
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert "end_turn" in done.stdout or "True" in done.stdout
