"""Worker locks: files whose lock the kernel drops when their process dies, however it dies.

So a restart finds at once that its predecessor is dead, without waiting for a lease to run out.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on this platform: leases alone decide
    fcntl = None  # type: ignore[assignment]

_ANYBODY = 0o077
_SAFE_NAME = re.compile(r"(?!\.)[a-zA-Z0-9_.:-]{1,128}")


class WorkerLocks:
    """The locks beside one database: `held` by this process, or asked about."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(database.name + ".workers")
        self._held: dict[str, int] = {}
        _INSTANCES.add(self)

    def acquire(self, worker_id: str) -> bool:
        """Hold the worker's lock until `release` or the end of the process.

        False where the platform or the folder does not allow it; then leases alone decide.
        """
        if fcntl is None or worker_id in self._held:
            return fcntl is not None
        try:
            fd = self._create(self._file(worker_id))
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._held[worker_id] = fd
        return True

    def release(self, worker_id: str) -> None:
        """Give the lock back and take its file away."""
        fd = self._held.pop(worker_id, None)
        if fd is not None:
            self._remove(worker_id)
            os.close(fd)

    def release_all(self) -> None:
        for worker_id in list(self._held):
            self.release(worker_id)

    def alive(self, worker_id: str) -> bool | None:
        """Whether the worker's process lives; None where the locks cannot tell."""
        if fcntl is None or not _SAFE_NAME.fullmatch(worker_id):
            return None
        try:
            fd = os.open(self._file(worker_id), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None  # gone, or not ours to read: no proof of death
        try:
            # Shared, so that two who ask at the same time do not take each other for the owner.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        else:
            return False
        finally:
            os.close(fd)

    def forget(self, worker_id: str) -> None:
        """Take away what a dead worker left behind."""
        if self.alive(worker_id) is False:
            self._remove(worker_id)

    def _file(self, worker_id: str) -> Path:
        if not _SAFE_NAME.fullmatch(worker_id):
            raise ValueError(f"not a worker id: {worker_id!r}")
        return self._folder / worker_id

    def _create(self, file: Path) -> int:
        while True:
            self._folder.mkdir(exist_ok=True)
            try:
                # O_CLOEXEC, so that a child process cannot hold the lock beyond our death.
                return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # a worker that left took the empty folder away in between

    def _remove(self, worker_id: str) -> None:
        with contextlib.suppress(OSError):
            self._file(worker_id).unlink()
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # only goes when it is empty

    def _after_fork(self) -> None:
        """A forked child shares our locks; it must not keep them when we are gone."""
        for fd in self._held.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self._held.clear()


def private_folder() -> Path | None:
    """A folder of this machine and this user, for the locks of a database that is no file.

    None where others might write to it, who could make a worker look dead, and on platforms that
    have no such locks.
    """
    user = getattr(os, "getuid", None)
    if user is None:
        return None
    folder = Path(tempfile.gettempdir()) / f"runner-{user()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    ours = found.st_uid == os.getuid() and not found.st_mode & _ANYBODY
    return folder if ours and stat.S_ISDIR(found.st_mode) else None


_INSTANCES: weakref.WeakSet[WorkerLocks] = weakref.WeakSet()


def _drop_inherited() -> None:
    for locks in _INSTANCES:
        locks._after_fork()  # noqa: SLF001 - our own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_inherited)
