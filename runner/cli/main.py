"""The command `runner`."""

import click


@click.group()
def main() -> None:
    """Turn a file of prompts into finished documents from Claude, however long."""
