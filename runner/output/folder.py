"""Writing files so that each is there whole or not at all, and none lands outside its folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from runner import faults
from runner.errors import ExportError

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Folder:
    """An open folder. Everything below it is reached from its file descriptor and never through a
    symbolic link, so that nobody who can write into it can lead the export elsewhere.

    Raises (all methods):
        ExportError: the operating system said no, or a symbolic link stands in the way.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Open the folder that the user named, making it where it is missing, and lock it against
        other exports until it is closed. The name itself may be a symbolic link: that is the
        user's own word."""
        with _as_export_error(path):
            path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, _OPEN_FOLDER)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ExportError(
                f"{path}: another export is writing there. Wait for it, or take another --out."
            ) from error
        except OSError:
            pass  # a file system without locks: one export at a time is then up to the user
        return cls(descriptor, path)

    def folder(self, name: str) -> Folder:
        """The folder of that name inside this one, made where it is missing."""
        path = self.path / name
        with _as_export_error(path):
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._descriptor)
            descriptor = os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=self._descriptor)
        return Folder(descriptor, path)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file that takes the place of `name` when the block ends well, and leaves nothing
        behind when it does not."""
        path, part = self.path / name, f".{name}.part"
        with _as_export_error(path):
            self._refuse_link(name)
            self._remove(part)  # of an export that was killed
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(part, flags, 0o666, dir_fd=self._descriptor)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                faults.hit("export.before_rename")
                os.replace(part, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
                faults.hit("export.after_rename")
            except BaseException:
                self._remove(part)
                raise

    def remove(self, name: str) -> bool:
        """Remove the file of exactly that name; False when there is none."""
        with _as_export_error(self.path / name):
            self._refuse_link(name)
            return self._remove(name)

    def close(self) -> None:
        """Make the names durable, and give the folder back."""
        with _as_export_error(self.path):
            try:
                os.fsync(self._descriptor)
            finally:
                os.close(self._descriptor)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_link(self, name: str) -> None:
        try:
            mode = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _remove(self, name: str) -> bool:
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return False
        return True


@contextmanager
def _as_export_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ExportError(
                f"{path}: a symbolic link or a file stands in the way, and the export does not "
                f"follow it. Move it away, or take another --out."
            ) from error
        raise ExportError(
            f"{path}: cannot be written: {error.strerror or error}. Documents that were already "
            f"written are whole; mend this and export again."
        ) from error
