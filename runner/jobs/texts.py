"""Texts that stand in files of their own: `file://style.md`."""

from __future__ import annotations

from pathlib import Path

from runner.jobs.files import MAX_TEXT_BYTES, read_text

PREFIX = "file://"
TEMPLATE_SUFFIXES = (".j2", ".jinja")
CACHED_CHARACTERS = 64_000_000


class BadReference(Exception):
    """A `file://` name that may not be followed."""


class TextFiles:
    """Reads texts by their names in the job file, each once as long as memory allows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[tuple[str, bool], str] = {}
        self._characters = 0

    def read(self, reference: str, *, from_row: bool) -> str:
        """The text of the file that `reference` names.

        Args:
            reference: as it stands in the job file, after `file://`.
            from_row: a row had a part in the name. Rows are data, and data must not choose files
                outside the job file's folder.

        Raises:
            BadReference: the name is empty, or leads out of the folder.
            Unreadable: the file cannot be read as UTF-8 text.
        """
        key = (reference, from_row)  # the same name may be allowed to one and not to the other
        text = self._texts.get(key)
        if text is None:
            text = read_text(self._path(reference, from_row=from_row), MAX_TEXT_BYTES)
            if self._characters + len(text) > CACHED_CHARACTERS:
                self._texts.clear()
                self._characters = 0
            self._texts[key] = text
            self._characters += len(text)
        return text

    def _path(self, reference: str, *, from_row: bool) -> Path:
        if not reference.strip():
            raise BadReference("`file://` names no file")
        path = self._folder / reference
        if from_row:
            try:
                inside = path.resolve().is_relative_to(self._folder.resolve())
            except (OSError, ValueError, RuntimeError):
                inside = False
            if not inside:
                raise BadReference(
                    "a file name that is filled in from a row must stay in the job file's folder"
                )
        return path
