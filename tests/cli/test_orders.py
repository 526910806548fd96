"""cancel, retry, pause, resume, rescue and prune as commands; what status and doctor tell."""

# ruff: noqa: F811  fixtures are imported, and asked for by name
from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runner.cli import machine
from runner.cli.status import seconds_left
from runner.jobs.call import Usage
from runner.jobs.spec import BatchLimits
from runner.jobs.states import State
from runner.store import migrate
from runner.store.records import BatchRow
from tests.cli.conftest import Invoke
from tests.cli.jobs_files import write
from tests.cli.test_processes import PATIENCE_S, RUNNER, environment, on_each, read, working  # noqa: F401
from tests.places import sqlite_only
from tests.strangers import a_stranger


def state(runner: Invoke, db: str, job: str) -> str:
    value: str = json.loads(runner("show", job, "--json", "--db", db).stdout)["state"]
    return value


def test_cancel_and_retry(runner: Invoke, filled: str) -> None:
    result = runner("cancel", "mole", "badger", "--db", filled)
    assert result.exit_code == 1
    assert "1 job cancelled" in result.stderr
    assert "animals/badger was completed already; it stays as it is" in result.stderr
    assert runner("cancel", "mole", "--db", filled).exit_code == 0
    result = runner("retry", "--batch", "animals", "--db", filled)
    assert "3 jobs back in the queue" in result.stderr  # badger, fox, mole
    assert state(runner, filled, "mole") == "available"
    result = runner("retry", "animals/heron", "--db", filled)
    assert (result.exit_code, "--afresh has it written anew" in result.stderr) == (1, True)
    assert runner("retry", "animals/heron", "--afresh", "--db", filled).exit_code == 0
    assert runner("show", "animals/heron", "--text", "--db", filled).stdout == ""


@pytest.mark.parametrize("command", ["cancel", "retry", "prune"])
def test_nothing_chosen_is_refused(runner: Invoke, filled: str, command: str) -> None:
    assert runner(command, "--db", filled).exit_code == 2
    assert runner(command, "--batch", "nobody", "--db", filled).exit_code == 2
    assert runner("cancel", "mole", "--batch", "animals", "--db", filled).exit_code == 2


def test_pause_and_resume(runner: Invoke, filled: str) -> None:
    assert runner("pause", "animals", "--reason", "lunch", "--db", filled).exit_code == 0
    said = runner("status", "--db", filled).stdout
    assert "animals is paused (user): lunch; `runner resume animals` lets it go on" in said
    result = runner("resume", "animals", "dull", "--db", filled)
    assert "animals goes on" in result.stderr
    assert "paused" not in runner("status", "--db", filled).stdout
    assert "animals was not paused" in runner("resume", "animals", "--db", filled).stderr


def test_rescue_of_one_that_hangs(runner: Invoke, filled: str) -> None:
    assert "0 jobs back in the queue" in runner("rescue", "--db", filled).stderr
    assert state(runner, filled, "owl") == "executing"
    assert runner("rescue", "--worker", "nobody", "--db", filled).exit_code == 2
    assert "1 job back in the queue" in runner("rescue", "--worker", "w1", "--db", filled).stderr
    assert state(runner, filled, "owl") == "available"


def test_prune(runner: Invoke, filled: str) -> None:
    result = runner("prune", "--older-than", "30d", "--db", filled)
    assert "0 jobs deleted" in result.stderr
    result = runner("prune", "--batch", "animals", "--db", filled)
    assert result.exit_code == 2
    assert "Delete 3 jobs with their documents? Nobody can be asked here" in result.stderr
    assert runner("prune", "--older-than", "soon", "--db", filled).exit_code == 2
    result = runner("prune", "--batch", "animals", "--state", "discarded", "--yes", "--db", filled)
    assert "1 job deleted" in result.stderr
    assert runner("prune", "--older-than", "0s", "--yes", "--db", filled).exit_code == 0
    rows = json.loads(runner("status", "--json", "--db", filled).stdout)["batches"]
    assert [(row["batch"], row["jobs"]) for row in rows] == [("animals", 2)]
    assert runner("db", "check", "--db", filled).exit_code == 0


def test_show_events(runner: Invoke, filled: str) -> None:
    runner("cancel", "owl", "--db", filled)
    shown = json.loads(runner("show", "owl", "--events", "--json", "--db", filled).stdout)
    kinds = [event["kind"] for event in shown["events"]]
    assert kinds == ["submitted", "claimed", "call_broken", "cancelled"]
    text = runner("show", "owl", "--events", "--db", filled).stdout
    assert "call 1: cancelled by the user" in text
    assert "\x1b" not in runner("show", "fox", "--events", "--db", filled).stdout
    assert runner("show", "owl", "--events", "--text", "--db", filled).exit_code == 2


@pytest.mark.usefixtures("queue")
def test_simulated_and_real_never_mix(runner: Invoke, tmp_path: Path) -> None:
    jobs = write(tmp_path)
    assert runner("submit", jobs, "--simulate").exit_code == 0
    for again in (("submit", jobs), ("submit", jobs, "--replace")):
        result = runner(*again)
        assert result.exit_code == 2
        assert "batch 'animals' holds simulated documents" in result.stderr
    assert runner("submit", jobs, "--batch", "real").exit_code == 0
    assert runner("work", "--simulate", "--batch", "real").exit_code == 2
    result = runner("work", "--simulate")
    assert result.exit_code == 0
    assert "real holds real documents and is left alone" in result.stderr
    assert "animals (simulated)" in runner("status").stdout
    assert "animals (simulated)" in runner("list").stdout
    rows = [json.loads(line) for line in runner("list", "--json").stdout.splitlines()]
    assert [(row["simulated"], row["complete"]) for row in rows] == [(True, True)] * 2 + [
        (False, False)
    ] * 2


@sqlite_only
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_output_gets_a_word(filled: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*RUNNER, "list", "--db", filled],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output could not be written: No space left on device")
    assert "Traceback" not in done.stderr


def test_doctor_tells_and_changes_nothing(runner: Invoke, filled: str) -> None:
    with a_stranger(filled) as stranger:
        stranger.execute("UPDATE worker SET id = 'gone', pid = 7")
    text = runner("doctor", "--no-network", "--db", filled).stdout
    assert "1 are marked as executing" in text
    assert "`runner rescue` frees them now" in text
    assert "dull is paused (credentials)" in text


@sqlite_only
def test_doctor_leaves_an_old_schema_as_it_is(
    runner: Invoke, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path(filled).read_bytes()
    monkeypatch.setattr(migrate, "head", lambda: "9999")
    result = runner("doctor", "--no-network", "--db", filled)
    assert f"schema version {migrate.SCHEMA_VERSION}; this program works with 9999" in result.stdout
    assert Path(filled).read_bytes() == before


@sqlite_only
def test_a_run_is_warned_of_what_can_hurt_it(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.store.store import Store

    async def told(*, with_worker: bool) -> list[str]:
        async with await Store.open(filled) as store:
            if not with_worker:
                await store.rescue("w1", max_rescues=3)
            return await machine.hazards(store)

    mounts = f"22 1 0:1 / {Path(filled).parent.resolve()} rw - nfs4 server:/x rw\n"
    old = machine.sqlite_version((3, 40, 1))
    monkeypatch.setattr(machine, "mountinfo", lambda: mounts)
    monkeypatch.setattr(machine, "sqlite_version", lambda: old)
    both = asyncio.run(told(with_worker=True))
    assert "network or shared file system" in both[0]
    assert "version 3.40.1 can lose commits" in both[1]
    monkeypatch.setattr(machine, "mountinfo", lambda: None)
    assert asyncio.run(told(with_worker=False)) == []


def test_time_left_is_told_by_the_last_ends() -> None:
    counts = {(State.AVAILABLE, None): 10}
    row = BatchRow(1, "b", BatchLimits(), None, None, 0, counts, 0, Usage())
    assert seconds_left([row], [(1, 4000), (1, 3000), (1, 2000)], 5000) == {1: 10.0}
    assert seconds_left([row], [(1, 4000), (2, 3000), (1, 2000)], 5000) == {}


def test_a_running_job_is_cancelled_from_another_process(
    on_each: dict[str, str],
    tmp_path: Path,
) -> None:
    environment = on_each
    with working(environment, tmp_path) as run:
        told = json.loads(read(environment, tmp_path, "status", "--json").stdout)
        assert [worker["pid"] for worker in told["workers"]] == [run.pid]
        done = read(environment, tmp_path, "cancel", "--batch", "animals")
        assert (done.exit_code, "2 jobs cancelled" in done.stderr) == (0, True)
        _, said = run.communicate(timeout=PATIENCE_S)  # all its jobs are final, so the run ends
        assert run.returncode == 1
    assert "2 cancelled" in said
    assert "Traceback" not in said
    assert read(environment, tmp_path, "show", "job-0", "--text").stdout


def test_pause_and_resume_while_a_run_is_going(
    on_each: dict[str, str],
    tmp_path: Path,
) -> None:
    environment = on_each
    with working(environment, tmp_path) as run:
        assert read(environment, tmp_path, "pause", "animals").exit_code == 0
        deadline = time.monotonic() + PATIENCE_S
        states: dict[str, int] = {}
        while states.get("available") != 2:
            assert time.monotonic() < deadline
            (batch,) = json.loads(read(environment, tmp_path, "status", "--json").stdout)["batches"]
            states = batch["states"]
        assert run.poll() is None
        assert read(environment, tmp_path, "resume", "animals").exit_code == 0
        while states.get("executing") != 2:
            assert time.monotonic() < deadline
            (batch,) = json.loads(read(environment, tmp_path, "status", "--json").stdout)["batches"]
            states = batch["states"]
        shown = json.loads(read(environment, tmp_path, "show", "job-0", "--json").stdout)
        assert all(call["stop_reason"] for call in shown["calls"] if call["ended_ms"])
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=PATIENCE_S)
        assert run.returncode == 130
