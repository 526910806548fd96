"""What `runner doctor` looks at. Each check gives findings: what it saw, and how to mend it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
import anyio

from runner.cli.machine import (
    Finding,
    Level,
    disk_space,
    file_system,
    mountinfo,
    permissions,
    sqlite_version,
)
from runner.cli.pauses import pause_line
from runner.errors import RunnerError, StoreError
from runner.jobs.states import State
from runner.messages.client import MessagesClient
from runner.store import migrate
from runner.store.database import the_database
from runner.store.reading import ReadingStore

_CLOCK_SKEW_S = 60
_EARLIEST_S = 1_767_225_600  # 2026-01-01: no machine that runs this program lives before it
_NETWORK_TIMEOUT_S = 5


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


async def database(name: str) -> list[Finding]:
    """Whether the database opens, and what hangs in it. It is only read, and never migrated."""
    try:
        named = the_database(name)
        version = await anyio.to_thread.run_sync(named.current)
        if version is None:
            return [_not_there(named.shown)]
        if version != migrate.head():
            text = f"{named.shown} has schema version {version}; this program works with {migrate.head()}"
            mend = "It is brought up to date by itself, or by `runner db upgrade`."
            return [Finding("database", Level.WARN, text, mend)]
        async with await ReadingStore.open_to_read(name) as store:
            opened = Finding("database", Level.OK, f"{named.shown} is of this program's version")
            return [opened, *[finding async for finding in _hanging(store)]]
    except StoreError as error:
        return [_of_no_use(error)]


def _of_no_use(error: StoreError) -> Finding:
    return Finding("database", Level.FAIL, "cannot be used", str(error))


def _not_there(shown: str) -> Finding:
    return Finding("database", Level.OK, f"{shown} has no queue yet; it is made on first use")


async def _hanging(store: ReadingStore) -> AsyncIterator[Finding]:
    now_s = store.database.now_ms() / 1000  # of the clock by which leases are written
    workers = await store.workers()
    stale = [row for row in workers if row.alive is False or row.lease_until_ms / 1000 < now_s]
    if stale:
        names = ", ".join(f"{row.id[:8]}, process {row.pid} on {row.host}" for row in stale[:5])
        yield Finding(
            "workers",
            Level.WARN,
            f"{len(stale)} of {len(workers)} are gone or give no sign of life ({names})",
            "`runner run`, `runner work` or `runner rescue` frees their jobs; one that hangs needs "
            "`runner rescue --worker ID`.",
        )
    else:
        yield Finding("workers", Level.OK, f"{len(workers)} at work, none is stale")
    batches = await store.batches()
    held = [await store.held(row.id) for row in workers if row.alive is not False]
    executing = sum(batch.count(State.EXECUTING) for batch in batches)
    stuck = executing - sum(len(one.claims) for one in held)
    if stuck > 0:
        yield Finding(
            "jobs",
            Level.WARN,
            f"{stuck:,} are marked as executing, and no living process is there to do it",
            "`runner run` or `runner work` takes them over; `runner rescue` frees them now.",
        )
    for batch in batches:
        if batch.paused:
            yield Finding(
                "batch",
                Level.WARN,
                pause_line(batch).rpartition("; ")[0],
                pause_line(batch).rpartition("; ")[2],
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
    findings = await _of_the_place(name)
    key, base_url = credentials()
    findings.append(key)
    server_s = None
    if network and base_url is not None:
        answer, server_s = await endpoint(base_url)
        findings.append(answer)
    findings.append(clock(time.time(), server_s))
    return findings


async def _of_the_place(name: str) -> list[Finding]:
    """What a file needs of this machine, and the database itself."""
    try:
        path = the_database(name).path
    except StoreError as error:
        return [_of_no_use(error)]
    if path is None:
        return await database(name)
    folder = path.parent.resolve()
    if not folder.is_dir():
        mend = "Make it, or name another database with --db."
        findings = [Finding("database", Level.FAIL, f"there is no folder {folder}", mend)]
    else:
        findings = [
            file_system(folder, mountinfo()),
            permissions(path),
            disk_space(folder),
            *await database(name),
        ]
    return [*findings, sqlite_version()]
