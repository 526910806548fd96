"""A process dies at every fault point, at every occurrence of it; another finishes the run.

The points and how often each is reached come from the run itself, so a new point is tried as soon
as it is there. What is checked of each death stands in `deaths.py`.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from tests.places import Place

ROOT = Path(__file__).parents[2]
PROCESSES = 2
# How often some points are reached hangs on timing (how many saves share a commit), so each is
# tried beyond the count until so many processes in a row have not met their death.
SURVIVALS = 1
# Points that only a process with a dead predecessor reaches, and one that this run does not.
AFTER_A_DEATH = ("rescue.before", "rescue.after")
PREDECESSOR = "event.content_block_delta:9"


COMMIT = ("commit.before", "commit.after", "commit.acknowledged")


def tried_here(place: Place, name: str, occurrence: int) -> bool:
    """The first death at each point is tried on both databases. Of the others, those on a server,
    each of which takes three times as long, are every eighth, and in a file from the fourth on
    every second. Each commit is died at once: before it, after it, or when it was told, for of
    most commits these are one moment to all others."""
    if occurrence == 1:
        return True
    if name in COMMIT and COMMIT[occurrence % 3] != name:
        return False
    if place.kind == "postgres":
        return occurrence % 8 == 0
    return occurrence <= 4 or occurrence % 2 == 1


class Deaths:
    """The process that forks the cases; see `deaths.py`."""

    def __init__(self, place: Place, folder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.deaths", place.address, folder],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def case(self, faults: list[str], log: str = "") -> dict[str, Any]:
        """Let processes die at these faults, one after the other, and a last one finish."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([faults, log]) + "\n")
        self._process.stdin.flush()
        result: dict[str, Any] = json.loads(self._process.stdout.readline())
        return result

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def deaths(place: Place) -> Iterator[Deaths]:
    with tempfile.TemporaryDirectory() as folder:
        helper = Deaths(place, folder)
        try:
            yield helper
        finally:
            helper.close()


def points_in_the_source() -> set[str]:
    """The names of all fault points that stand in the code."""
    names: set[str] = set()
    for file in (ROOT / "runner").rglob("*.py"):
        names.update(re.findall(r'faults\.hit\("([a-z_.]+)"\)', file.read_text(encoding="utf-8")))
    return names


@pytest.fixture
def reached(place: Place, tmp_path: Path) -> Counter[str]:
    """How often an undisturbed run reaches each point."""
    log = tmp_path / "log"
    with deaths(place) as helper:
        # On a migration's case the database is made by the run itself.
        undisturbed = helper.case(["migration.before:1"], str(log))
    assert undisturbed == {"statuses": [-signal.SIGKILL], "wrong": []}
    return Counter(log.read_text(encoding="utf-8").split())


def assert_every_point_in_the_source_is_tried(reached: Counter[str]) -> None:
    assert points_in_the_source() == {
        name for name in [*reached, *AFTER_A_DEATH] if not name.startswith("event.")
    }
    assert {name for name in reached if name.startswith("event.")} == {
        "event.message_start",
        "event.content_block_start",
        "event.ping",
        "event.content_block_delta",
        "event.content_block_stop",
        "event.message_delta",
        "event.message_stop",
        "event.error",
    }


def test_a_run_outlives_every_death(place: Place, reached: Counter[str]) -> None:
    assert_every_point_in_the_source_is_tried(reached)
    assert sum(reached.values()) > 150
    stories = [([], name, count) for name, count in reached.items()]
    stories += [([PREDECESSOR], name, 1) for name in AFTER_A_DEATH]
    waiting: SimpleQueue[tuple[list[str], str, int]] = SimpleQueue()
    for story in sorted(stories, key=lambda story: -story[2]):  # the long ones first
        waiting.put(story)
    wrong: list[str] = []
    died: Counter[str] = Counter()

    def work() -> None:
        with deaths(place) as helper:
            while len(wrong) < 5:
                try:
                    before, name, count = waiting.get_nowait()
                except Empty:
                    return
                occurrence = survivals = 0
                while occurrence < count or survivals < SURVIVALS:
                    occurrence += 1
                    if occurrence <= count and not tried_here(place, name, occurrence):
                        continue
                    result = helper.case([*before, f"{name}:{occurrence}"])
                    if result["wrong"]:
                        wrong.append(f"{name}:{occurrence}: {result}")
                    if result["statuses"][len(before) :] == [-signal.SIGKILL]:
                        died[name] += 1
                        survivals = 0
                    else:
                        survivals += 1

    threads = [threading.Thread(target=work) for _ in range(PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    print(sum(died.values()), died)
    assert died.keys() == {*reached, *AFTER_A_DEATH}
