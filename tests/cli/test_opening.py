"""A worker that starts before its database can be used: it waits, and a signal ends that."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.cli.jobs_files import write
from tests.cli.simulated import simulator
from tests.cli.test_processes import PATIENCE_S, RUNNER, submitted
from tests.places import postgres_only
from tests.postgres import Server

BEGINS = "the database can be used again; the work begins"


@contextmanager
def a_worker(
    folder: Path, database: str, api: str = "http://127.0.0.1:1"
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*RUNNER, "work", "--no-live"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ANTHROPIC_BASE_URL": api,
            "RUNNER_DB": database,
            "LANG": "C.UTF-8",
        },
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def told(worker: subprocess.Popen[str]) -> str:
    """Its first line."""
    assert worker.stderr is not None
    return worker.stderr.readline()


@postgres_only
def test_it_waits_for_a_server_that_starts_late(
    tmp_path: Path, database: str, postgres_server: Server
) -> None:
    asyncio.run(submitted(write(tmp_path), database))
    postgres_server.stop()
    with ExitStack() as stack:
        try:
            api = stack.enter_context(simulator()).base_url
            worker = stack.enter_context(a_worker(tmp_path, database, api))
            first = told(worker)
        finally:
            postgres_server.start()
        assert "does not answer" in first
        assert "the work begins by itself once it can" in first
        assert "run the same command again" not in first
        _, said = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 0
    assert (said.count(BEGINS), said.count("does not answer")) == (1, 0)
    assert "animals: 2 documents: 2 complete" in said


@pytest.mark.parametrize(
    ("says_nothing", "number"), [(False, signal.SIGINT), (True, signal.SIGTERM)]
)
def test_a_signal_ends_the_waiting(
    tmp_path: Path,
    number: signal.Signals,
    says_nothing: bool,
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if says_nothing:
            server.listen()
        url = f"postgresql+asyncpg://me:secret@127.0.0.1:{server.getsockname()[1]}/queue"
        with ExitStack() as stack:
            worker = stack.enter_context(a_worker(tmp_path, url))
            if says_nothing:
                stack.enter_context(server.accept()[0])  # a thread of the worker waits for a word
            else:
                assert "does not answer" in told(worker)
            worker.send_signal(number)
            _, said = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 130
    assert said == ""


def test_what_no_waiting_mends_ends_it(
    runner: Invoke, tmp_path: Path, postgres_server: Server
) -> None:
    missing = runner("work", "--simulate", "--db", tmp_path / "none.db")
    assert (missing.exit_code, "no database at" in missing.stderr) == (1, True)
    url = postgres_server.bare()
    empty = runner("work", "--simulate", "--db", url)
    assert (empty.exit_code, "no queue in the database" in empty.stderr) == (1, True)
    postgres_server.drop(url)
