"""The command as a process: signals, a terminal, and readers beside a writer."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, chdir, contextmanager
from pathlib import Path

import pyte
import pytest
from click.testing import CliRunner, Result

from runner.cli.main import main
from runner.library import follow, open_store, submit
from tests.cli.jobs_files import write
from tests.cli.simulated import simulator
from tests.places import Place
from tests.strangers import a_stranger

RUNNER = [sys.executable, "-m", "runner"]
PATIENCE_S = 60
# How another program keeps everybody from writing.
LOCKED_OUT = {
    "sqlite": ("BEGIN IMMEDIATE",),
    "postgres": ("BEGIN", "LOCK TABLE worker, chunk, job IN EXCLUSIVE MODE"),
}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a process that works against a slow simulator."""
    with simulator(tokens_per_second=100, tokens_per_event=4) as server:
        yield {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ANTHROPIC_BASE_URL": server.base_url,
            "LANG": "C.UTF-8",
        }


@pytest.fixture
def on_each(environment: dict[str, str], database: str) -> dict[str, str]:
    """The same with a database of each kind."""
    return environment | {"RUNNER_DB": database}


def read(environment: dict[str, str], folder: Path, *args: str) -> Result:
    """A command beside the process under test; this process is another one, so it does."""
    with chdir(folder):
        result = CliRunner().invoke(main, args, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


async def submitted(jobs: Path, database: str) -> None:
    """What `runner submit` does, without waiting for a process."""
    async with open_store(database) as store:
        await submit(store, jobs)


async def some_text(database: str) -> None:
    """Wait until there is some."""
    async with (
        open_store(database, create=False) as store,
        aclosing(follow(store, "job-0")) as text,
    ):
        await anext(text)


@contextmanager
def working(environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has begun to save text."""
    database = environment.get("RUNNER_DB", str(folder / "runner.db"))
    asyncio.run(submitted(write(folder), database))
    run = subprocess.Popen(
        [*RUNNER, "run", "jobs.yaml"],
        env=environment,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        try:
            asyncio.run(asyncio.wait_for(some_text(database), PATIENCE_S))
            yield run
        finally:
            run.kill()


@pytest.mark.parametrize(
    ("number", "place"),
    [(signal.SIGTERM, "sqlite"), (signal.SIGTERM, "postgres"), (signal.SIGHUP, "sqlite")],
    indirect=["place"],
)
def test_the_first_signal_saves_and_stops(
    on_each: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    environment = on_each
    with working(environment, tmp_path) as run:
        run.send_signal(number)
        _, said = run.communicate(timeout=PATIENCE_S)
        assert run.returncode == 130
    assert "stopping: saving what streams; press Ctrl-C again to stop at once" in said
    assert "animals: 2 documents: 2 unfinished" in said
    assert "Traceback" not in said
    (batch,) = json.loads(read(environment, tmp_path, "status", "--json").stdout)["batches"]
    assert batch["states"]["available"] == 2
    assert read(environment, tmp_path, "show", "job-0", "--text").stdout


def test_the_second_signal_ends_at_once(
    place: Place, on_each: dict[str, str], tmp_path: Path
) -> None:
    environment = on_each
    with (
        working(environment, tmp_path) as run,
        a_stranger(environment["RUNNER_DB"]) as other,
    ):
        # While another program keeps everybody from writing nothing can be saved, and so the first
        # signal alone does not end the run.
        for statement in LOCKED_OUT[place.kind]:
            other.execute(statement)
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        for said in run.stderr:
            if "press Ctrl-C again" in said:
                break
        run.send_signal(signal.SIGTERM)
        assert run.wait(PATIENCE_S) == 130
    assert read(environment, tmp_path, "db", "check").exit_code == 0
    assert read(environment, tmp_path, "show", "job-0", "--text").stdout


def test_reading_commands_work_while_a_run_writes(on_each: dict[str, str], tmp_path: Path) -> None:
    environment = on_each
    with working(environment, tmp_path) as run:
        (batch,) = json.loads(read(environment, tmp_path, "status", "--json").stdout)["batches"]
        assert batch["states"]["executing"] == 2
        assert "executing" in read(environment, tmp_path, "list").stdout
        assert "is being written" in read(environment, tmp_path, "show", "job-0").stdout
        assert read(environment, tmp_path, "tail", "job-0").stdout
        assert read(environment, tmp_path, "db", "check").exit_code == 0
        exported = read(environment, tmp_path, "export", "--unfinished")
        assert exported.exit_code == 1
        assert (tmp_path / "output/animals/cut/job-0.cut.md").exists()
        assert run.poll() is None


class Terminal:
    """A process on a terminal of so many cells, and what its screen shows."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.screen = pyte.Screen(90, 16)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 16, 90, 0, 0))
        self.process = subprocess.Popen(
            command,
            env=environment | {"TERM": "xterm-256color"},
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._own = own

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, seen: Callable[[str], bool]) -> str:
        """Feed the screen until it shows what is waited for."""
        end = time.monotonic() + PATIENCE_S
        while not seen(self.text):
            assert time.monotonic() < end, self.text
            if not self._feed(end - time.monotonic()):
                assert seen(self.text), self.text
        return self.text

    def to_the_end(self) -> int:
        while self._feed(PATIENCE_S):
            pass
        return self.process.wait(PATIENCE_S)

    def _feed(self, patience_s: float) -> bool:
        ready, _, _ = select.select([self._own], [], [], max(0.0, patience_s))
        assert ready, self.text
        try:
            data = os.read(self._own, 65_536)
        except OSError:  # what Linux says when the last process has closed the terminal
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def hang_up(self) -> None:
        """Close the window. The process is no leader of this terminal, so it gets no signal."""
        os.close(self._own)
        self._own = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._own >= 0:
            self.hang_up()


def test_the_live_screen(environment: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, count=3)
    terminal = Terminal([*RUNNER, "run", "jobs.yaml", "--concurrency", "2"], environment, tmp_path)
    try:
        shown = terminal.until(lambda text: "job-1  call 1" in text and "tokens/s  left –" in text)
        assert "runner animals" in shown
        assert "done 0  running 2  waiting 1  failed 0" in shown
        assert "0 of 3 documents final" in shown
        terminal.until(lambda text: " …" in text)  # last words of a document longer than the line
        assert len(terminal.screen.display) == 16
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.to_the_end() == 130
        assert "press Ctrl-C again" in terminal.text
        assert "animals: 3 documents: 3 unfinished" in terminal.text
        assert not terminal.screen.cursor.hidden
    finally:
        terminal.close()


def test_the_cursor_comes_back_after_the_second_signal(
    environment: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, count=3)
    terminal = Terminal([*RUNNER, "run", "jobs.yaml"], environment, tmp_path)
    try:
        terminal.until(lambda text: "job-1  call 1" in text)
        assert terminal.screen.cursor.hidden
        terminal.process.send_signal(signal.SIGSTOP)
        terminal.process.send_signal(signal.SIGINT)
        terminal.process.send_signal(signal.SIGTERM)
        terminal.process.send_signal(signal.SIGCONT)
        assert terminal.to_the_end() == 130
        assert not terminal.screen.cursor.hidden
    finally:
        terminal.close()


def test_a_terminal_that_is_gone_does_not_stop_the_work(
    environment: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path)
    terminal = Terminal([*RUNNER, "run", "jobs.yaml", "--simulate"], environment, tmp_path)
    try:
        terminal.until(lambda text: "job-1  call 1" in text)
        terminal.hang_up()
        assert terminal.process.wait(PATIENCE_S) == 0
    finally:
        terminal.close()


@pytest.mark.parametrize("setting", [{"TERM": "dumb"}, {"TERM": "xterm"}])
def test_plain_lines_where_nothing_can_be_drawn(
    environment: dict[str, str], tmp_path: Path, setting: dict[str, str]
) -> None:
    write(tmp_path)
    command = [*RUNNER, "run", "jobs.yaml", "--simulate"]
    if setting["TERM"] != "dumb":
        command.append("--no-live")
    terminal = Terminal(
        ["env", *(f"{k}={v}" for k, v in setting.items()), *command], environment, tmp_path
    )
    try:
        assert terminal.to_the_end() == 0
        assert b"\x1b" not in terminal.raw
        assert b"done 2  running 0  waiting 0  failed 0" in terminal.raw
    finally:
        terminal.close()


def test_no_color_is_respected(filled: str, environment: dict[str, str], tmp_path: Path) -> None:
    for setting, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        terminal = Terminal([*RUNNER, "list", "--db", filled], environment | setting, tmp_path)
        try:
            assert terminal.to_the_end() == 0
            assert (b"\x1b[1m" in terminal.raw) is coloured
        finally:
            terminal.close()


def test_hostile_documents_on_a_terminal(
    filled: str, environment: dict[str, str], tmp_path: Path
) -> None:
    for command in (
        ["show", "fox"],
        ["show", "fox", "--text"],
        ["tail", "fox"],
        ["list"],
        ["status"],
    ):
        settings = environment | {"NO_COLOR": "1"}
        terminal = Terminal([*RUNNER, *command, "--db", filled], settings, tmp_path)
        try:
            assert terminal.to_the_end() == 0
            assert b"\x1b" not in terminal.raw
            assert terminal.screen.title == ""
            assert "‮" not in terminal.raw.decode()
        finally:
            terminal.close()
