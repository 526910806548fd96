"""`runner simulate`, and the page that describes it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from click.testing import CliRunner

from runner.cli.simulate import simulate
from runner.simulator import FaultKind
from runner.simulator.control import CHANGEABLE

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"


def test_it_serves_until_it_is_told_to_stop() -> None:
    command = "from runner.cli.simulate import simulate; simulate()"
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            command,
            "--seed",
            "3",
            "--fault",
            "drop=0.1",
            "--fault-at",
            "1=stall",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}/books") as answer:  # noqa: S310 (our own address)
            assert json.load(answer)["requests"] == 0
        process.send_signal(signal.SIGTERM)
        _, books = process.communicate(timeout=200)
        assert process.returncode == 0
        assert json.loads(books)["tokens_generated"] == 0


def test_wrong_options_are_named() -> None:
    for words, said in (
        (["--fault", "drop"], "lacks a `=`"),
        (["--fault", "drop=often"], "a number from 0 to 1"),
        (["--fault", "drop=2"], "a number from 0 to 1"),
        (["--fault", "drip=0.5"], "'drip' is no fault"),
        (["--fault-at", "first=drop"], "named by its number"),
        (["--fault-at", "1=drip"], "'drip' is no fault"),
        (["--document-tokens", "9", "3"], "the least comes first"),
    ):
        result = CliRunner().invoke(simulate, words)
        assert result.exit_code == 2
        assert said in result.output.replace("\n", " "), result.output


def test_the_page_names_every_fault() -> None:
    page = PAGE.read_text()
    assert [kind for kind in FaultKind if f"`{kind}`" not in page] == []


def test_the_page_names_all_that_may_change() -> None:
    page = PAGE.read_text()
    assert [name for name in CHANGEABLE if f"`{name}`" not in page] == []
