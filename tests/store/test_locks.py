"""Worker locks: the operating system's word on who lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runner.store.locks import WorkerLocks, private_folder

HOLDER = """
import sys, time
from pathlib import Path
from runner.store.locks import WorkerLocks
locks = WorkerLocks(Path(sys.argv[1]))
print(locks.acquire("w1"), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def database_file(tmp_path: Path) -> Path:
    return tmp_path / "runner.db"


def files(database_file: Path) -> list[str]:
    folder = database_file.with_name("runner.db.workers")
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_a_lock_is_seen_by_its_own_process_and_another(database_file: Path) -> None:
    ours, other = WorkerLocks(database_file), WorkerLocks(database_file)
    assert ours.alive("w1") is None
    assert ours.acquire("w1")
    assert ours.acquire("w1")
    assert ours.alive("w1") is True
    assert other.alive("w1") is True
    assert not other.acquire("w1")
    other.forget("w1")  # alive, so it stays
    assert files(database_file) == ["w1"]
    ours.release("w1")
    assert other.alive("w1") is None
    assert not database_file.with_name("runner.db.workers").exists()


def test_the_lock_of_a_killed_process_is_free_at_once(database_file: Path) -> None:
    locks = WorkerLocks(database_file)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(database_file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        assert locks.alive("w1") is True
        child.send_signal(signal.SIGKILL)
        child.wait(200)
    assert locks.alive("w1") is False
    assert locks.alive("w1") is False  # asking takes nothing
    locks.forget("w1")
    assert files(database_file) == []


def test_a_child_process_does_not_hold_the_lock_for_us(database_file: Path) -> None:
    locks, other = WorkerLocks(database_file), WorkerLocks(database_file)
    locks.acquire("w1")
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        child.stdout.readline()
        fd = locks._held.pop("w1")
        os.close(fd)  # as the kernel does at our death
        assert other.alive("w1") is False
        child.kill()


def test_a_forked_child_does_not_hold_the_lock_for_us(database_file: Path) -> None:
    locks, other = WorkerLocks(database_file), WorkerLocks(database_file)
    locks.acquire("w1")
    stop_reading, stop = os.pipe()
    forked, forked_writing = os.pipe()
    child = os.fork()
    if child == 0:  # the hook after the fork has run by now
        os.write(forked_writing, b"x")
        os.close(stop)
        os.read(stop_reading, 1)
        os._exit(0)
    os.read(forked, 1)
    os.close(locks._held.pop("w1"))  # as the kernel does at our death
    try:
        assert other.alive("w1") is False
    finally:
        for fd in (stop, stop_reading, forked, forked_writing):
            os.close(fd)
        os.waitpid(child, 0)


def test_ids_that_would_leave_the_folder(database_file: Path) -> None:
    locks = WorkerLocks(database_file)
    assert locks.alive("../x") is None
    with pytest.raises(ValueError, match="not a worker id"):
        locks.acquire("../x")


def test_where_no_folder_can_be_made_leases_alone_decide(database_file: Path) -> None:
    database_file.with_name("runner.db.workers").write_text("in the way")
    locks = WorkerLocks(database_file)
    assert not locks.acquire("w1")
    assert locks.alive("w1") is None


def test_a_folder_for_locks_that_others_could_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = private_folder()
    assert folder is not None
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    assert private_folder() is None
    folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    assert private_folder() is None


def test_a_platform_without_such_locks_needs_no_folder_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor has it to tell of users: a queue on a server is worked on from there as well."""
    monkeypatch.setattr("runner.store.locks.fcntl", None)
    monkeypatch.delattr("os.getuid")
    assert private_folder() is None
