"""How commands open their database and let go of it: a worker waits until it can be used, and a
signal ends what waits."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from runner.cli import common
from runner.store.store import Store
from tests.cli.conftest import Invoke
from tests.cli.jobs_files import write
from tests.cli.simulated import simulator
from tests.cli.test_processes import PATIENCE_S, RUNNER, submitted
from tests.places import postgres_only
from tests.postgres import Server
from tests.strangers import a_stranger

BEGINS = "the database can be used again; the work begins"


@contextmanager
def a_command(
    words: str, folder: Path, database: str, api: str = "http://127.0.0.1:1"
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*RUNNER, *words.split()],
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
    ) as command:
        try:
            yield command
        finally:
            command.kill()


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
            worker = stack.enter_context(a_command("work --no-live", tmp_path, database, api))
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
            worker = stack.enter_context(a_command("work --no-live", tmp_path, url))
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


@postgres_only
@pytest.mark.parametrize("words", ["db check", "cost"])
def test_a_signal_ends_a_question_that_takes_long(
    tmp_path: Path, database: str, words: str
) -> None:
    """The server would have an hour for the answer, and has it for nobody then."""
    asks = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'runner reads' AND wait_event_type = 'Lock'"
    )
    with a_stranger(database) as other, a_stranger(database) as watch:
        other.execute("BEGIN")
        other.execute("LOCK TABLE call IN ACCESS EXCLUSIVE MODE")
        with a_command(words, tmp_path, database) as command:
            while watch.execute(asks) != [(1,)]:
                assert command.poll() is None
                time.sleep(0.05)
            command.send_signal(signal.SIGINT)
            _, said = command.communicate(timeout=PATIENCE_S)
        other.execute("ROLLBACK")
    assert (command.returncode, said.strip()) == (130, "")


@pytest.mark.anyio
async def test_an_interrupted_command_does_not_wait_for_what_it_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow:
        async def close(self) -> None:
            await asyncio.Event().wait()

    async def opened(*_: object, **__: object) -> Slow:
        return Slow()

    async def ask() -> None:
        async with common.reading("any.db"):
            asking.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(Store, "open", opened)
    monkeypatch.setattr(common, "CLOSE_S", 0.01)
    asking = asyncio.Event()
    command = asyncio.create_task(ask())
    await asking.wait()
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(command, 60)
