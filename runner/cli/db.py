"""`runner db`."""

from __future__ import annotations

import click

from runner.cli.common import database_option, json_option, message, print_json, reading, run_async
from runner.cli.copying import copy
from runner.cli.harmless import one_line


@click.group()
def db() -> None:
    """Look after the database.

    \b
    Example:
      runner db check
    """


@db.command()
@database_option
def upgrade(database: str) -> None:
    """Bring the database to this program's version.

    This happens by itself whenever a command opens a database; here it can be done alone, for
    example before a night's run. It is all or nothing, takes seconds for a million jobs, and
    is refused while a worker of an older version is at work. There is no way back: copy the
    database first if you want one.

    \b
    Example:
      sqlite3 runner.db ".backup before.db"
      runner db upgrade --db runner.db
    """

    async def opened() -> str:
        async with reading(database) as store:
            return store.database.shown

    message(one_line(f"ok: {run_async(opened())} is of this program's version"))


@db.command()
@database_option
@json_option
def check(database: str, as_json: bool) -> int:
    """Check the database: its file, and its counts against its rows.

    With --json, one object with the key `problems`: a list of sentences, empty if all is well.

    \b
    Example:
      runner db check

    Exit status: 0 if all is well, 1 if not.
    """

    async def find() -> tuple[list[str], str]:
        async with reading(database) as store:
            return await store.check(), store.database.shown

    problems, shown = run_async(find())
    if as_json:
        print_json({"problems": problems})
    else:
        for problem in problems:
            click.echo(one_line(problem))
        message(one_line(f"{'damaged' if problems else 'ok'}: {shown}"))
    return 1 if problems else 0


db.add_command(copy)
