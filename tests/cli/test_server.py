"""A database on a server: every command takes its URL, and every mistake with it gets a word."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result
from sqlalchemy.engine import make_url

from runner.store import postgres_migrate
from tests.cli.conftest import Invoke
from tests.cli.jobs_files import write
from tests.cli.test_main import every_command
from tests.places import postgres_only
from tests.postgres import GUARDED, PASSWORD, Server

WRONG = "wrong-secret"
# What every command is given that takes a database; in this order on the filled one.
WORDS: dict[str, list[str]] = {
    "status": [],
    "list": [],
    "show": ["owl"],
    "tail": ["owl"],
    "cost": [],
    "limits": [],
    "db check": [],
    "db upgrade": [],
    "doctor": ["--no-network"],
    "export": ["--batch", "dull"],
    "estimate": ["jobs.yaml"],
    "cancel": ["mole"],
    "retry": ["mole"],
    "pause": ["animals"],
    "resume": ["animals"],
    "rescue": ["--worker", "w1"],
    "prune": ["--batch", "dull", "--yes"],
    "submit": ["jobs.yaml", "--batch", "new"],
    "run": ["jobs.yaml", "--simulate", "--batch", "other"],
    "work": ["--simulate"],
}


def takes_a_database(command: click.Command) -> bool:
    return "database" in {parameter.name for parameter in command.params}


@postgres_only
def test_every_command_takes_a_url(runner: Invoke, filled: str, tmp_path: Path) -> None:
    names = {name for name, command in every_command().items() if takes_a_database(command)}
    assert names == set(WORDS)
    write(tmp_path)
    for name, words in WORDS.items():
        result = runner(*name.split(), *words, "--db", filled)
        assert result.exit_code == 0, (name, result.output)
        assert "Traceback" not in result.output
    assert not list(tmp_path.glob("*.db*"))


def url_of(server: Server, database: str, user: str, password: str = WRONG) -> str:
    url = server.url("x").set(database=database, username=user, password=password)
    return url.render_as_string(hide_password=False)


def wrong_password(server: Server) -> str:
    return url_of(server, "empty", GUARDED)


def no_such_database(server: Server) -> str:
    return url_of(server, "nowhere", "postgres")


def no_right_to_make_tables(server: Server) -> str:
    server.run("CREATE DATABASE closed")
    return url_of(server, "closed", GUARDED, PASSWORD)


def unknown_option(server: Server) -> str:
    return url_of(server, "empty", "postgres") + "&shiny=1"


def option_of_no_sense(server: Server) -> str:
    return url_of(server, "empty", "postgres") + "&ssl=perhaps"


def nobody_listens(_: Server) -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"postgresql+asyncpg://me:{WRONG}@127.0.0.1:{closed.getsockname()[1]}/queue"


def no_such_host(_: Server) -> str:
    return f"postgresql://me:{WRONG}@nowhere.invalid/queue"


def no_port(_: Server) -> str:
    return f"postgresql+asyncpg://me:{WRONG}@here:port/queue"


def a_slash_too_few(_: Server) -> str:
    return f"postgresql+asyncpg:/me:{WRONG}@here/queue"


def another_kind(_: Server) -> str:
    return f"mysql://me:{WRONG}@here:port/queue"


MISTAKES: dict[Callable[[Server], str], tuple[str, str]] = {
    wrong_password: ("the server refused you the database 'empty'", "PGPASSWORD"),
    no_such_database: ("there is no database 'nowhere'", "createdb"),
    unknown_option: ("an option that the driver does not know: ", "shiny. Leave it out"),
    option_of_no_sense: ("an option that the driver does not take", "ssl"),
    nobody_listens: ("the server of the database 'queue' on 127.0.0.1", "Check that it runs"),
    no_such_host: ("the server of the database 'queue' on nowhere.invalid", "the network"),
    no_port: ("that is not a database URL", "postgresql+asyncpg://USER@HOST:PORT/DATABASE"),
    a_slash_too_few: ("that is not a database URL", "postgresql+asyncpg://USER@HOST:PORT/DATABASE"),
    another_kind: ("that is not a database URL", "postgresql+asyncpg://USER@HOST/DATABASE"),
}


def assert_told(result: Result, *words: str) -> None:
    assert result.exit_code in {1, 2}, result.output
    told = " ".join(result.output.split())
    for piece in words:
        assert piece in told
    for never in ("Traceback", WRONG, PASSWORD, "None"):
        assert never not in told


@pytest.mark.parametrize("by_environment", [False, True], ids=["option", "RUNNER_DB"])
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_gets_a_word(
    runner: Invoke,
    tmp_path: Path,
    postgres_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[Server], str],
    by_environment: bool,
) -> None:
    url = mistake(postgres_server)
    named = [] if by_environment else ["--db", url]
    if by_environment:
        monkeypatch.setenv("RUNNER_DB", url)
    jobs = write(tmp_path)
    for command in (["status"], ["run", jobs, "--simulate"], ["estimate", jobs]):
        assert_told(runner(*command, *named), *MISTAKES[mistake])
    assert_told(runner("doctor", "--no-network", *named), "fail database: ", *MISTAKES[mistake])
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.yaml"]


NO_DRIVER = """\
import sys
sys.modules["asyncpg"] = None
from runner.cli.main import main
sys.argv[0] = "runner"
main()
"""


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path) -> None:
    database = ["--db", f"postgresql+asyncpg://me:{WRONG}@127.0.0.1/queue"]
    ended = subprocess.run(
        [sys.executable, "-c", NO_DRIVER, "status", *database],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "pip install 'prefill-runner[postgres]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_who_may_make_no_tables_is_told_and_makes_none(
    runner: Invoke, tmp_path: Path, postgres_server: Server
) -> None:
    url = no_right_to_make_tables(postgres_server)
    result = runner("submit", write(tmp_path), "--db", url)
    assert_told(result, "you may not do this in the database 'closed'", "may create them")
    assert_told(runner("status", "--db", url), "no queue in the database 'closed'")
    postgres_server.drop(url)


@postgres_only
def test_a_server_that_is_too_old(
    runner: Invoke, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_migrate, "OLDEST_SERVER", 999)
    for command in (["status"], ["work", "--simulate"]):
        assert_told(runner(*command, "--db", database), "is PostgreSQL 1", "999 or newer is needed")


def test_the_right_password_opens(runner: Invoke, tmp_path: Path, postgres_server: Server) -> None:
    """In the URL or, as with other programs, in the environment."""
    bare = postgres_server.bare()
    name = str(make_url(bare).database)
    postgres_server.run(f"ALTER DATABASE {name} OWNER TO {GUARDED}")
    url = url_of(postgres_server, name, GUARDED, PASSWORD)
    result = runner("submit", write(tmp_path), "--db", url)
    assert (result.exit_code, PASSWORD in result.output) == (0, False)
    for command in (["status"], ["status", "--json"], ["doctor", "--no-network"], ["db", "check"]):
        result = runner(*command, "--db", url)
        assert (result.exit_code, PASSWORD in result.output) == (0, False)
    postgres_server.drop(bare)


def test_a_refused_file_makes_no_tables(
    runner: Invoke, tmp_path: Path, postgres_server: Server
) -> None:
    bare = postgres_server.bare()
    (tmp_path / "bad.yaml").write_text("version: 1\njbos: []\n")
    assert runner("run", "bad.yaml", "--simulate", "--db", bare).exit_code == 2
    assert runner("run", write(tmp_path), "--db", bare).exit_code == 4  # there is no key
    assert "no queue in the database" in runner("status", "--db", bare).stderr
    for command in (["work", "--simulate"], ["export"], ["db", "upgrade"]):
        result = runner(*command, "--db", bare)
        assert result.exit_code == 1
        assert "no queue in the database" in result.stderr
    database = make_url(bare).database
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert postgres_server.run(tables, database=str(database)) == []
    postgres_server.drop(bare)
