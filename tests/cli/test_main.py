"""The group itself: lazy help, exit statuses, errors without tracebacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from runner.cli.main import COMMANDS, Commands, main
from runner.errors import NotFound, StoreError
from tests.cli.conftest import Invoke
from tests.cli.filled import HOSTILE

CONTEXT = click.Context(main)


def every_command() -> dict[str, click.Command]:
    commands: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = main.get_command(CONTEXT, name)
        assert command is not None
        commands[name] = command
        if isinstance(command, click.Group):
            commands |= {f"{name} {inner}": value for inner, value in command.commands.items()}
    return commands


@pytest.mark.parametrize("name", COMMANDS)
def test_kept_help_is_the_commands_own(name: str) -> None:
    command = every_command()[name]
    assert command.help is not None
    assert COMMANDS[name][1] == command.help.splitlines()[0]
    assert command.name == name


@pytest.mark.parametrize("name", sorted(every_command()))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert f"runner {name}" in result.stdout.partition("Example:")[2]


@pytest.mark.parametrize("name", sorted(every_command()))
def test_every_option_is_explained(name: str) -> None:
    for parameter in every_command()[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", ["status", "list", "show", "doctor", "db check"])
def test_reading_commands_take_json(name: str) -> None:
    assert "as_json" in {parameter.name for parameter in every_command()[name].params}


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from runner.cli.main import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {"sqlalchemy", "anthropic", "rich", "aiohttp", "alembic", "jinja2", "yaml", "asyncio", "anyio"}
print("imported:", sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "imported: []" in result.stdout


def test_version(runner: Invoke) -> None:
    assert runner("--version").stdout == f"runner {version('prefill-runner')}\n"


def test_wrong_usage_ends_with_2(runner: Invoke) -> None:
    for args in (
        ["nonsense"],
        ["run"],
        ["list", "--limit", "0"],
        ["show"],
        ["run", "--concurrency"],
    ):
        result = runner(*args)
        assert result.exit_code == 2, args
        assert "Error" in result.stderr


def test_no_command_shows_the_help(runner: Invoke) -> None:
    assert "Commands:" in runner().output


def failing(error: BaseException) -> Commands:
    @click.command()
    def fail() -> None:
        raise error

    class Failing(Commands):
        def get_command(self, *_: object) -> click.Command:
            return fail

    return Failing("runner")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no such job"), 2),
        (StoreError("disk"), 1),
        (ExceptionGroup("x", [StoreError("disk"), NotFound("job")]), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_errors_end_with_their_status_and_no_traceback(error: BaseException, status: int) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == status
    assert "Traceback" not in result.output
    assert result.stdout == ""
    if status in (1, 2):
        assert result.stderr.startswith("error: ")


def test_a_bug_of_ours_shows_itself() -> None:
    assert isinstance(
        CliRunner().invoke(failing(ZeroDivisionError()), ["fail"]).exception, ZeroDivisionError
    )


def test_error_messages_steer_no_terminal() -> None:
    result = CliRunner().invoke(failing(NotFound(HOSTILE)), ["fail"])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f‮]", result.stderr)


def test_a_terminal_that_cannot_show_a_letter() -> None:
    @click.command()
    def speak() -> None:
        click.echo("żółw")

    class Speaking(Commands):
        def get_command(self, *_: object) -> click.Command:
            return speak

    result = CliRunner(charset="latin-1").invoke(Speaking("runner"), ["speak"])
    assert result.stdout == "\\u017có\\u0142w\n"


def test_a_reader_that_has_seen_enough_is_no_error(filled: str) -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "runner", "list", "--db", filled],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert result.returncode == 0
    assert result.stderr == b""


def test_reading_commands_never_make_a_database(runner: Invoke, tmp_path: Path) -> None:
    for args in (
        ["status"],
        ["list"],
        ["show", "x"],
        ["tail", "x"],
        ["export"],
        ["db", "check"],
        ["db", "upgrade"],
        ["work", "--simulate"],
    ):
        result = runner(*args)
        assert result.exit_code == 1, args
        assert "error: no database" in result.stderr
        assert not list(tmp_path.glob("*.db*"))
    assert runner("doctor", "--no-network").exit_code == 0
    assert not list(tmp_path.glob("*.db*"))


def test_the_environment_names_the_database(
    runner: Invoke, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_DB", filled)
    assert "animals" in runner("status").stdout
