"""What `runner doctor` looks at. Each check gives findings: what it saw, and how to mend it."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from runner.errors import RunnerError, StoreError
from runner.jobs.states import State
from runner.messages.client import MessagesClient
from runner.store.engine import database_path
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
_CLOCK_SKEW_S = 60
_EARLIEST_S = 1_767_225_600  # 2026-01-01: no machine that runs this program lives before it
_NETWORK_TIMEOUT_S = 5


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


def clock(now_s: float, server_s: float | None) -> Finding:
    """Whether this machine's clock can be right.

    Args:
        server_s: the time by the endpoint's clock; None where it was not asked.
    """
    mend = "Set the clock of this machine, best by NTP: leases and waiting times go by it."
    if now_s < _EARLIEST_S:
        return Finding("clock", Level.FAIL, "this machine's clock stands years in the past", mend)
    if server_s is not None and abs(now_s - server_s) > _CLOCK_SKEW_S:
        text = f"this machine's clock is {now_s - server_s:+,.0f} s from the endpoint's"
        return Finding("clock", Level.WARN, text, mend)
    return Finding("clock", Level.OK, "looks right")


def credentials() -> tuple[Finding, str | None]:
    """Whether there is a key (it is never shown), and the endpoint it would be sent to."""
    try:
        client = MessagesClient()
    except RunnerError as error:
        return Finding("key", Level.WARN, "no usable key", str(error)), None
    return Finding("key", Level.OK, "there is a key"), client.base_url


async def endpoint(base_url: str) -> tuple[Finding, float | None]:
    """Whether the endpoint answers at all, and the time by its clock where it tells."""
    parts = urlsplit(base_url)
    # A password in the address must not be shown.
    shown = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    try:
        timeout = aiohttp.ClientTimeout(total=_NETWORK_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(base_url, allow_redirects=False) as response,
        ):
            date = response.headers.get("date")
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        mend = "Check the network, a proxy, and ANTHROPIC_BASE_URL."
        text = f"{shown} does not answer ({type(error).__name__})"
        return Finding("endpoint", Level.FAIL, text, mend), None
    return Finding("endpoint", Level.OK, f"{shown} answers"), _seconds(date)


def _seconds(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None


async def database(path: Path, now_s: float) -> list[Finding]:
    """Whether the database opens, and what hangs in it."""
    try:
        async with await Store.open(path, create=False) as store:
            opened = Finding("database", Level.OK, f"{path} is of this program's version")
            return [opened, *[finding async for finding in _hanging(store, now_s)]]
    except StoreError as error:
        return [Finding("database", Level.FAIL, "cannot be used", str(error))]


def _not_there(path: Path) -> Finding:
    return Finding("database", Level.OK, f"{path} is not there yet; it is made on first use")


async def _hanging(store: Store, now_s: float) -> AsyncIterator[Finding]:
    stale = [
        worker
        for worker in await store.workers()
        if worker.alive is False or worker.lease_until_ms / 1000 < now_s
    ]
    if stale:
        names = ", ".join(f"process {worker.pid} on {worker.host}" for worker in stale[:5])
        yield Finding(
            "workers",
            Level.WARN,
            f"{len(stale)} of them are gone or give no sign of life ({names})",
            "`runner run` or `runner work` takes their jobs over.",
        )
    else:
        yield Finding("workers", Level.OK, "none is stale")
    batches = await store.batches()
    executing = sum(batch.count(State.EXECUTING) for batch in batches)
    if executing and not await store.workers():
        yield Finding(
            "jobs",
            Level.WARN,
            f"{executing:,} are marked as executing, and no process is there to do it",
            "`runner run` or `runner work` takes them over.",
        )
    for batch in batches:
        if batch.paused:
            yield Finding(
                "batch",
                Level.WARN,
                f"{batch.name} is paused ({batch.paused}): {batch.pause_reason or ''}",
                "Mend the cause, then `runner run` goes on with it.",
            )
        if batch.created_ms / 1000 > now_s + _CLOCK_SKEW_S:
            yield Finding(
                "clock",
                Level.WARN,
                f"{batch.name} was submitted in the future: the clock was set back",
                "Set the clock of this machine, best by NTP.",
            )


async def examine(name: str, *, network: bool) -> list[Finding]:
    """All checks.

    Args:
        name: the database, as --db names it.
        network: also ask the endpoint for an answer.
    """
    path = database_path(name)
    folder = path.parent.resolve()
    if not folder.is_dir():
        mend = "Make it, or name another database with --db."
        findings = [Finding("database", Level.FAIL, f"there is no folder {folder}", mend)]
    else:
        findings = [
            file_system(folder, _mountinfo()),
            permissions(path),
            disk_space(folder),
            *(await database(path, time.time()) if path.exists() else [_not_there(path)]),
        ]
    findings.append(sqlite_version())
    key, base_url = credentials()
    findings.append(key)
    server_s = None
    if network and base_url is not None:
        answer, server_s = await endpoint(base_url)
        findings.append(answer)
    findings.append(clock(time.time(), server_s))
    return findings


def _mountinfo() -> str | None:
    try:
        return Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return None
