"""Documents to files: one Markdown file a document, and JSONL with everything about them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread

from runner.jobs.states import FINAL, State
from runner.output.batches import known_batches
from runner.output.document import ReadDocument, document_json, json_line, read_documents
from runner.output.endings import Standing, standing
from runner.output.folder import Folder
from runner.output.names import Names
from runner.store.records import BatchRow
from runner.store.store import Store


class Format(StrEnum):
    """What is written."""

    MARKDOWN = "md"
    JSONL = "jsonl"
    BOTH = "both"


@dataclass(slots=True)
class ExportReceipt:
    """What an export wrote.

    Args:
        counts: documents by what they are worth; unfinished ones count whether written or not.
        folders: where the documents of each batch are.
        written: documents that stand in files now.
        doubtful: documents with a seam that could not be verified.
        removed: files taken away, since their document now stands elsewhere.
    """

    counts: dict[Standing, int] = field(default_factory=lambda: dict.fromkeys(Standing, 0))
    folders: list[Path] = field(default_factory=list)
    written: int = 0
    doubtful: int = 0
    removed: list[Path] = field(default_factory=list)

    @property
    def all_complete(self) -> bool:
        return sum(self.counts.values()) == self.counts[Standing.COMPLETE]


async def export(
    store: Store,
    out: Path,
    *,
    batches: Collection[str] | None = None,
    format: Format = Format.BOTH,
    unfinished: bool = False,
) -> ExportReceipt:
    """Write documents to files, few documents in memory at a time.

    Complete documents go to `<out>/<batch>/<id>.md` and `<out>/<batch>.jsonl`; the others to
    `<out>/<batch>/cut/<id>.cut.md` and `<out>/<batch>.cut.jsonl`, marked for what they are. Each
    file is there whole or not at all.

    Args:
        out: the folder, made where it is missing.
        batches: names; None takes all.
        unfinished: also write documents that are still being written, as they are now.

    Raises:
        ExportError: a file could not be written.
        NotFound: a batch of that name is not in the database.
    """
    chosen = await known_batches(store, batches)
    names = Names()
    for row in await store.batches():
        names.add(row.name)
    receipt = ExportReceipt()
    with await anyio.to_thread.run_sync(Folder.open, out) as folder:
        for row in chosen:
            await _export_batch(
                store, row, names.name(row.name), folder, format, unfinished, receipt
            )
    return receipt


async def _export_batch(
    store: Store,
    batch: BatchRow,
    name: str,
    folder: Folder,
    format: Format,
    unfinished: bool,
    receipt: ExportReceipt,
) -> None:
    states = tuple(State) if unfinished else tuple(FINAL)
    with ExitStack() as stack:
        writers: list[_Markdown | _Lines] = []
        if format is not Format.JSONL:
            names = Names()
            async for job in store.jobs(batch=batch.name):
                names.add(job.id)
            writers.append(_Markdown(stack, folder, name, names, receipt))
        if format is not Format.MARKDOWN:
            writers.append(_Lines(stack, folder, name, receipt))
        jobs = store.jobs(batch=batch.name, states=states)
        async for documents in read_documents(store, jobs):
            found = [(document, standing(document.job)) for document in documents]
            if not unfinished:  # one may have been replaced while we looked
                found = [one for one in found if one[1] is not Standing.UNFINISHED]
            await anyio.to_thread.run_sync(_write, writers, [document for document, _ in found])
            for document, stands in found:
                receipt.counts[stands] += 1
                receipt.written += 1
                receipt.doubtful += bool(document.doubtful_seams)
        for writer in writers:
            writer.finish()
    if not unfinished:
        receipt.counts[Standing.UNFINISHED] += await store.unfinished([batch.key])


def _write(writers: Sequence[_Markdown | _Lines], documents: Sequence[ReadDocument]) -> None:
    for document in documents:
        for writer in writers:
            writer.write(document)


class _Markdown:
    """One file a document, each in the one place that says what it is worth."""

    def __init__(
        self, stack: ExitStack, out: Folder, name: str, names: Names, receipt: ExportReceipt
    ) -> None:
        self._stack, self._names, self._receipt = stack, names, receipt
        self._complete = stack.enter_context(out.folder(name))
        self._cut: Folder | None = None
        if (self._complete.path / "cut").is_dir():
            self._open_cut()
        receipt.folders.append(self._complete.path)

    def write(self, document: ReadDocument) -> None:
        name = self._names.name(document.job.id)
        plain, marked = f"{name}.md", f"{name}.cut.md"
        if document.complete:
            with self._complete.writing(plain) as file:
                file.write(_encoded(document.text))
            self._forget(self._cut, marked)
            return
        cut = self._cut or self._open_cut()
        with cut.writing(marked) as file:
            file.write(_encoded(f"{note(document)}\n\n{document.text}"))
        self._forget(self._complete, plain)

    def finish(self) -> None:
        """Files are in place as soon as they are written."""

    def _open_cut(self) -> Folder:
        self._cut = self._stack.enter_context(self._complete.folder("cut"))
        return self._cut

    def _forget(self, folder: Folder | None, name: str) -> None:
        """A document that was exported with another standing must not be found under that too."""
        if folder is not None and folder.remove(name):
            self._receipt.removed.append(folder.path / name)


class _Lines:
    """Two JSONL files: complete documents, and the others."""

    def __init__(self, stack: ExitStack, out: Folder, name: str, receipt: ExportReceipt) -> None:
        self._stack, self._out, self._receipt = stack, out, receipt
        self._names = {True: f"{name}.jsonl", False: f"{name}.cut.jsonl"}
        self._files: dict[bool, BinaryIO] = {}
        self._open(True)
        receipt.folders.append(out.path / self._names[True])

    def write(self, document: ReadDocument) -> None:
        file = self._files.get(document.complete) or self._open(document.complete)
        line = json_line(document_json(document, with_text=True))
        file.write(_encoded(line + "\n"))

    def finish(self) -> None:
        """Both files are put in place when the block of the stack ends; here goes what is stale."""
        if False not in self._files and self._out.remove(self._names[False]):
            self._receipt.removed.append(self._out.path / self._names[False])

    def _open(self, complete: bool) -> BinaryIO:
        file = self._stack.enter_context(self._out.writing(self._names[complete]))
        self._files[complete] = file
        return file


def note(document: ReadDocument) -> str:
    """The first line of a document that is not complete, to be seen by every reader. It quotes
    nothing that came from elsewhere."""
    job = document.job
    finish = f", {job.finish}" if job.finish else ""
    calls = f"{len(document.calls)} call{'' if len(document.calls) == 1 else 's'}"
    return f"> **This document is not complete** ({standing(job)}{finish}; state {job.state}, {calls})."


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")  # half a surrogate pair cannot stand in a file
