"""`runner export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli.common import database_option, message, reading, run_async
from runner.cli.harmless import one_line

if TYPE_CHECKING:
    from runner.output.export import ExportReceipt


@click.command()
@database_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("output"),
    show_default=True,
    metavar="DIR",
    help="The folder to write to, made where it is missing.",
)
@click.option("--batch", "batches", multiple=True, metavar="NAME", help="Only this batch.")
@click.option(
    "--format",
    type=click.Choice(["md", "jsonl", "both"]),
    default="both",
    show_default=True,
    help="One Markdown file a document, one JSON line a document, or both.",
)
@click.option(
    "--unfinished", is_flag=True, help="Also write documents that are still being written."
)
def export(
    database: str, out: Path, batches: tuple[str, ...], format: str, unfinished: bool
) -> int:
    """Write documents to files.

    Complete documents go to DIR/BATCH/ID.md and DIR/BATCH.jsonl. Those that are not complete (cut,
    failed, cancelled) are kept apart in DIR/BATCH/cut/ID.cut.md and DIR/BATCH.cut.jsonl, and say so
    in their first line and in the field `complete`. A JSON line holds the text, finish, calls,
    seams, usage and metadata of a document.

    \b
    Example:
      runner export --out books --batch five-animals

    Exit status: 0 if all documents are complete, 1 if some are not.
    """
    receipt = run_async(_export(database, out, batches, format, unfinished))
    for path in receipt.folders:
        message(one_line(f"written: {path}"))
    for path in receipt.removed:
        message(one_line(f"removed: {path} (the document stands elsewhere now)"))
    counts = ", ".join(f"{count:,} {word}" for word, count in receipt.counts.items() if count)
    message(f"{receipt.written:,} documents in files; in the database: {counts or 'no jobs'}")
    if receipt.doubtful:
        message(
            f"{receipt.doubtful:,} of them have seams that could not be verified: "
            "`runner show JOB` names the places"
        )
    return 0 if receipt.all_complete else 1


async def _export(
    database: str, out: Path, batches: tuple[str, ...], format: str, unfinished: bool
) -> ExportReceipt:
    from runner.output.export import Format
    from runner.output.export import export as export_documents

    async with reading(database) as store:
        return await export_documents(
            store, out, batches=batches or None, format=Format(format), unfinished=unfinished
        )
