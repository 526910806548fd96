"""doctor: each check on machines that are well, and on machines that are not."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.cli import checks, machine
from runner.cli.machine import Level
from tests.cli.conftest import Invoke
from tests.cli.filled import HOSTILE
from tests.cli.simulated import simulator

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw shared:2 - nfs4 server:/home rw
31 30 8:2 / /home/me/scratch rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/my\\040share rw - cifs //server/share rw
33 22 0:42 / /mnt/vm rw master:1 - virtiofs tag rw
34 22 0:43 / /mnt/ssh rw - fuse.sshfs me@there: rw
35 22 0:44 / /over rw - nfs server:/over rw
36 22 8:3 / /over rw - btrfs /dev/sdc1 rw
short line
"""


@pytest.mark.parametrize(
    ("folder", "level"),
    [
        ("/work", Level.OK),
        ("/home/me", Level.FAIL),
        ("/home/me/scratch/x", Level.OK),
        ("/homely", Level.OK),
        ("/mnt/my share/x", Level.FAIL),
        ("/mnt/vm", Level.FAIL),
        ("/mnt/ssh/deep/er", Level.FAIL),
        ("/over", Level.OK),  # the later mount hides the earlier
    ],
)
def test_file_system(folder: str, level: Level) -> None:
    finding = machine.file_system(Path(folder), MOUNTS)
    assert finding.level is level
    assert (finding.mend is None) == (level is Level.OK)


def test_file_system_not_known() -> None:
    assert machine.file_system(Path("/work"), None).level is Level.WARN


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 40, 1), Level.WARN),
        ((3, 44, 5), Level.WARN),
        ((3, 44, 6), Level.OK),
        ((3, 45, 0), Level.WARN),
        ((3, 50, 6), Level.WARN),
        ((3, 50, 7), Level.OK),
        ((3, 51, 2), Level.WARN),
        ((3, 51, 3), Level.OK),
        ((3, 52, 0), Level.OK),
        ((4, 0, 0), Level.OK),
    ],
)
def test_sqlite_version(version: tuple[int, ...], level: Level) -> None:
    assert machine.sqlite_version(version).level is level


@pytest.mark.parametrize(
    ("now", "server", "level"),
    [
        (1.8e9, None, Level.OK),
        (1.8e9, 1.8e9 + 30, Level.OK),
        (1.8e9, 1.8e9 - 3600, Level.WARN),
        (1.8e9, 1.8e9 + 3600, Level.WARN),
        (1e9, None, Level.FAIL),
    ],
)
def test_clock(now: float, server: float | None, level: Level) -> None:
    assert checks.clock(now, server).level is level


@pytest.fixture
def not_root() -> Iterator[None]:
    """Root may write everywhere; the real user id is what `access` goes by."""
    root = os.getuid() == 0
    if root:
        os.setresuid(65534, 0, 0)
    yield
    if root:
        os.setresuid(0, 0, 0)


def test_permissions_of_a_folder_that_is_closed(not_root: None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        assert machine.permissions(folder / "runner.db").level is Level.OK
        folder.chmod(0o500)
        if os.getuid() != folder.stat().st_uid:
            folder.chmod(0o555)
        assert machine.permissions(folder / "runner.db").level is Level.FAIL


def test_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.permissions(tmp_path / "runner.db").level is Level.OK
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert machine.permissions(tmp_path / "runner.db").level is Level.FAIL


def test_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, level in ((1 << 40, Level.OK), (200 << 20, Level.WARN), (1 << 20, Level.FAIL)):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert machine.disk_space(tmp_path).level is level


def test_endpoint_that_answers_and_one_that_does_not() -> None:
    with simulator() as server:
        finding, now = asyncio.run(checks.endpoint(server.base_url))
    assert finding.level is Level.OK
    assert now is not None
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        finding, now = asyncio.run(checks.endpoint(f"http://me:secret@127.0.0.1:{port}/x"))
    assert finding.level is Level.FAIL
    assert "secret" not in finding.text
    assert now is None


def test_doctor_on_a_filled_database(runner: Invoke, filled: str) -> None:
    result = runner("doctor", "--db", filled, "--no-network")
    assert result.exit_code == 0
    assert "warn  workers: 1 of them are gone" not in result.stdout  # its lease is not over yet
    assert "dull is paused (credentials)" in result.stdout
    assert "key: no usable key" in result.stdout
    assert "\x1b" not in result.stdout
    assert HOSTILE not in result.stdout


def test_doctor_never_shows_the_key(
    runner: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-very-secret")
    with simulator() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        result = runner("doctor", "--json")
    assert result.exit_code == 0
    assert "very-secret" not in result.output
    levels = {f["check"]: f["level"] for f in json.loads(result.stdout)["findings"]}
    assert levels["key"] == levels["endpoint"] == levels["database"] == "ok"
    assert not list(tmp_path.glob("*.db*"))


def test_doctor_fails_on_what_cannot_work(runner: Invoke, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database, " * 100)
    for database in ("notes.txt", "no/such/folder/runner.db"):
        result = runner("doctor", "--no-network", "--db", database)
        assert result.exit_code == 1, database
        assert "fail  database" in result.stdout
