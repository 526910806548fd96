"""`runner doctor`."""

from __future__ import annotations

import click

from runner.cli.common import colour, database_option, json_option, print_json, run_async
from runner.cli.harmless import one_line

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@database_option
@click.option("--no-network", is_flag=True, help="Do not ask the endpoint for an answer.")
@json_option
def doctor(database: str, no_network: bool, as_json: bool) -> int:
    """Say what is wrong on this machine, and how to mend it.

    Looks at the database's file system, permissions and disk, at the database itself (version,
    workers that are gone, jobs that hang, paused batches), at SQLite, key, endpoint and clock. Asks
    the endpoint for a page; spends nothing. With --json, one object with the key `findings`.

    \b
    Example:
      runner doctor --no-network

    Exit status: 1 if something fails, 0 otherwise.
    """
    # Imported here: `--help` must not wait for the SDK.
    from runner.cli.checks import examine
    from runner.cli.machine import Level

    findings = run_async(examine(database, network=not no_network))
    if as_json:
        print_json(
            {
                "findings": [
                    {"check": f.check, "level": f.level, "text": f.text, "mend": f.mend}
                    for f in findings
                ]
            }
        )
    else:
        for finding in findings:
            level = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level])
            line = f"{level}  {one_line(f'{finding.check}: {finding.text}')}"
            click.echo(line, color=colour())
            if finding.mend:
                click.echo("      " + one_line(finding.mend))
    return 1 if any(finding.level is Level.FAIL for finding in findings) else 0
