"""What the machine must give a database: a disk of its own, a sound SQLite, room, permissions."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.store.store import Store


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw.

    Args:
        mend: what to do about it; None where there is nothing to do.
    """

    check: str
    level: Level
    text: str
    mend: str | None = None


# File systems whose locks or memory maps do not hold between machines: SQLite's write-ahead log
# needs both. Source: SQLite documentation, write-ahead logging.
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "9p", "virtiofs", "afs", "ceph", "lustre"}
    | {"gfs2", "ocfs2", "glusterfs", "ncpfs", "vboxsf", "prl_fs", "vmhgfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.vmhgfs-fuse"}
)
_ONE_PROCESS = "Work with one process at a time on this database"
_LOW_BYTES, _NO_BYTES = 1 << 30, 50 << 20


def file_system(folder: Path, mountinfo: str | None) -> Finding:
    """Whether the database's folder lies on a file system that SQLite may use.

    Args:
        mountinfo: the text of /proc/self/mountinfo; None on systems without it.
    """
    kind = _mounted(folder, mountinfo or "")
    if kind is None:
        return Finding(
            "file system",
            Level.WARN,
            f"the file system of {folder} is not known",
            "Make sure that it is a disk of this machine, not a network or shared folder.",
        )
    if kind in _NETWORK:
        return Finding(
            "file system",
            Level.FAIL,
            f"{folder} is on {kind}, a network or shared file system: the database would be damaged",
            "Put the database on a disk of this machine, with --db or RUNNER_DB.",
        )
    return Finding("file system", Level.OK, f"{folder} is on {kind}")


def _mounted(folder: Path, mountinfo: str) -> str | None:
    """The type of the file system that a folder is on: the last mount on the longest path."""
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, types = before.split(), after.split()
        if len(fields) < 5 or not types:
            continue
        # Blanks and backslashes in a path are written in octal. Source: proc(5).
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if folder.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), types[0])
    return best and best[1]


def sqlite_version(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Finding:
    """Whether this SQLite may lose commits when several processes share a database.

    Source: SQLite release notes, the WAL-reset bug: mended in 3.51.3, 3.50.7 and 3.44.6.
    """
    words = ".".join(map(str, version))
    mended = (
        version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    )
    if mended:
        return Finding("SQLite", Level.OK, f"version {words}")
    return Finding(
        "SQLite",
        Level.WARN,
        f"version {words} can lose commits when several processes write to one database",
        f"{_ONE_PROCESS}, or use a Python with SQLite 3.51.3, 3.50.7, 3.44.6 or later.",
    )


def permissions(path: Path) -> Finding:
    """Whether the database and its folder can be written."""
    # SQLite makes files beside the database, so the folder counts as well.
    for place in (path.parent, *(file for file in (path,) if file.exists())):
        if not os.access(place, os.R_OK | os.W_OK | (os.X_OK if place.is_dir() else 0)):
            return Finding(
                "permissions",
                Level.FAIL,
                f"{place} cannot be read and written by this user",
                "Change its owner or mode, or name another database with --db.",
            )
    return Finding("permissions", Level.OK, f"{path.parent} can be written")


def disk_space(folder: Path) -> Finding:
    """Whether there is room for documents."""
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):,.1f} GiB free in {folder}"
    if free >= _LOW_BYTES:
        return Finding("disk space", Level.OK, text)
    level = Level.WARN if free >= _NO_BYTES else Level.FAIL
    return Finding("disk space", level, text, "Make room, or name a database elsewhere with --db.")


def mountinfo() -> str | None:
    """What is mounted where; None on systems that do not say so in /proc."""
    try:
        return Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return None


async def hazards(store: Store) -> list[str]:
    """What a run must be warned of, before it works on a database."""
    if store.path is None:
        return []  # a server's disks are not ours to judge
    findings = [file_system(store.path.parent.resolve(), mountinfo())]
    # A version that only several processes can hurt is no matter for one.
    if any(worker.alive is not False for worker in await store.workers()):
        findings.append(sqlite_version())
    return [
        f"{finding.text}. {finding.mend or ''}".strip()
        for finding in findings
        # A file system that nobody knows is doctor's to tell, not every run's.
        if finding.level is Level.FAIL or (finding.check == "SQLite" and finding.mend)
    ]
