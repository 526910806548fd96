"""Plain tables: aligned columns, nothing cut off, fit for eyes, grep and awk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import click
from rich.cells import cell_len, set_cell_size

from runner.cli.common import colour
from runner.cli.harmless import one_line

LOOK_AHEAD = 200  # rows that settle the widths of a table whose rows stream

# Tokens, money and shares, estimated ones too.
_NUMBER = re.compile(r"~?-?<?\$?[\d,]+(?:\.\d+)?%?|unknown")


class Table:
    """Lays out rows under a header. Numbers stand to the right; cells are made harmless.

    Args:
        header: the columns' names.
        first: the rows that settle the widths; a later cell that is wider moves its row only.
    """

    def __init__(self, header: Sequence[str], first: Iterable[Sequence[object]]) -> None:
        self._header = header
        columns = list(zip(*([_cell(cell) for cell in row] for row in first), strict=True))
        columns = columns or [() for _ in header]
        self._widths = [
            max(map(cell_len, (name, *cells))) for name, cells in zip(header, columns, strict=True)
        ]
        self._right = [
            any(map(_NUMBER.fullmatch, cells))
            and all(_NUMBER.fullmatch(cell) or cell == "-" for cell in cells)
            for cells in columns
        ]

    def head(self, *, bold: bool = False) -> str:
        line = self.line(self._header)
        return click.style(line, bold=True) if bold else line

    def line(self, row: Sequence[object]) -> str:
        """A row as one line of text."""
        return "  ".join(
            _pad(_cell(cell), width, right)
            for cell, width, right in zip(row, self._widths, self._right, strict=True)
        ).rstrip()


def echo_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, indent: str = ""
) -> None:
    """Print a table whose rows are all there."""
    table = Table(header, rows)
    click.echo(indent + table.head(bold=colour()))
    for row in rows:
        click.echo(indent + table.line(row))


def shortened(text: str, cells: int) -> str:
    """A text on one line, no wider than so many cells, with a … where something is left out."""
    text = one_line(text)
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else one_line(str(value))


def _pad(text: str, width: int, right: bool) -> str:
    gap = " " * max(0, width - cell_len(text))
    return gap + text if right else text + gap
