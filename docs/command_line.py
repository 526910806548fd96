"""Writes docs/command-line.md from the commands' own help: `python docs/command_line.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from runner.cli.main import COMMANDS, main

PAGE = Path(__file__).with_name("command-line.md")

_HEAD = """\
# The command line

Made from the commands' own help by `docs/command_line.py`; do not edit by hand.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_section(name, text) for name, text in _helps("runner", main, None))


def _helps(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, str]]:
    # A width of its own: the page must not depend on the terminal it is made on.
    context = command.make_context(
        name, [], parent, resilient_parsing=True, terminal_width=88, max_content_width=88
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for inner_name in command.list_commands(context):
            inner = command.get_command(context, inner_name)
            if inner is not None:
                yield from _helps(inner_name, inner, context)


def _section(name: str, text: str) -> str:
    level = "##" if name.split()[-1] in COMMANDS or name == "runner" else "###"
    return f"\n{level} {name}\n\n```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page())
