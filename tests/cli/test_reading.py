"""status, list, show, tail on a database with a document of every kind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.cli.filled import CUT, HALF, WHOLE
from tests.strangers import a_stranger

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f‮]")


def row(output: str, name: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.split()[:1] == [name]]
    return line.split()


def test_status_counts_every_kind(runner: Invoke, filled: str) -> None:
    result = runner("status", "--db", filled)
    assert result.exit_code == 0
    #                                    jobs complete cut failed cancelled executing waiting calls
    assert row(result.stdout, "animals")[1:9] == ["5", "1", "1", "1", "0", "1", "1", "4"]
    assert "dull is paused (credentials):" in result.stdout
    assert not STEERING.search(result.stdout)


def test_status_json(runner: Invoke, filled: str) -> None:
    batches = json.loads(runner("status", "--db", filled, "--json").stdout)["batches"]
    assert [batch["batch"] for batch in batches] == ["animals", "dull"]
    animals = batches[0]
    assert animals["states"]["completed"] == 2
    assert animals["finishes"] == {"end_turn": 1, "max_calls": 1}
    assert animals["complete"] == 1
    assert animals["cut"] == 1
    assert animals["usage"]["estimated"] is True


def test_status_of_an_unknown_batch(runner: Invoke, filled: str) -> None:
    result = runner("status", "--db", filled, "--batch", "plants")
    assert result.exit_code == 2
    assert "no batch plants" in result.stderr
    assert "animals" in result.stderr


def test_list_shows_and_filters(runner: Invoke, filled: str) -> None:
    result = runner("list", "--db", filled)
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "job", "heron", "badger", "fox", "owl", "mole", "heron",
    ]  # fmt: skip
    assert not STEERING.search(result.stdout)
    only = runner("list", "--db", filled, "--finish", "max_calls", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in only] == ["badger"]
    only = runner("list", "--db", filled, "--batch", "dull", "--json").stdout.splitlines()
    assert [json.loads(line)["batch"] for line in only] == ["dull"]
    assert len(runner("list", "--db", filled, "--limit", "2", "--json").stdout.splitlines()) == 2


def test_list_estimated_tokens_have_a_tilde(runner: Invoke, filled: str) -> None:
    assert "~400" in row(runner("list", "--db", filled).stdout, "fox")


def test_show_lets_every_seam_be_checked(runner: Invoke, filled: str) -> None:
    result = runner("show", "--db", filled, "animals/heron")
    assert result.exit_code == 0
    calls = [line.split() for line in result.stdout.splitlines() if "req_1" in line]
    #     call strategy   resume verdict  chars  stop          in, written, read, out, cost
    paid = ["100", "20", "30", "400", "$0.002128"]
    assert calls == [
        ["1", "-", "0", "-", "31", "max_tokens", *paid, "req_1"],
        ["2", "prefill", "30", "exact", "20", "end_turn", *paid, "req_1"],
    ]
    assert re.search(r"^cost +\$0\.004256$", result.stdout, re.MULTILINE)
    assert "complete (end_turn)" in result.stdout
    assert re.search(r"input tokens +300\n +read again +150", result.stdout)
    assert re.search(
        r"output tokens +800\n +again +1 characters that were taken back", result.stdout
    )


def test_show_json_holds_the_same(runner: Invoke, filled: str) -> None:
    shown = json.loads(runner("show", "--db", filled, "animals/heron", "--json").stdout)
    assert "text" not in shown
    assert shown["seams"] == [{"call": 2, "at": 30, "strategy": "prefill", "verdict": "exact"}]
    assert shown["calls"][1]["resume_at"] == 30
    assert shown["calls"][1]["request_id"] == "req_1"
    assert shown["input_tokens_read_again"] == 150
    assert shown["characters"] == len(WHOLE)
    shown = json.loads(runner("show", "--db", filled, "animals/heron", "--json", "--text").stdout)
    assert shown["text"] == WHOLE


def test_show_text_is_the_document_and_nothing_else(runner: Invoke, filled: str) -> None:
    assert runner("show", "--db", filled, "animals/heron", "--text").stdout == WHOLE


def test_show_says_how_it_ended_and_what_to_do(runner: Invoke, filled: str) -> None:
    assert "cut (max_calls)" in runner("show", "--db", filled, "badger").stdout
    assert "max_calls" in runner("show", "--db", filled, "badger").stdout
    failed = runner("show", "--db", filled, "fox").stdout
    assert re.search("ending +failed: ", failed)
    assert "--replace" in failed
    assert not STEERING.search(failed)
    assert "[bold]markup[/bold]" in failed
    assert "running" in runner("show", "--db", filled, "owl").stdout
    assert "waits for a worker" in runner("show", "--db", filled, "mole").stdout


@pytest.mark.parametrize("command", ["show", "tail"])
def test_a_job_that_is_not_there(runner: Invoke, filled: str, command: str) -> None:
    for reference in ("nobody", "heron", "plants/heron", "\x1b[31mfox"):
        result = runner(command, "--db", filled, reference)
        assert result.exit_code == 2, reference
        assert result.stderr.startswith("error: ")
        assert not STEERING.search(result.stderr)
    assert "animals/heron" in runner(command, "--db", filled, "heron").stderr


def test_tail_prints_the_end(runner: Invoke, filled: str) -> None:
    result = runner("tail", "--db", filled, "animals/heron")
    assert result.stdout == WHOLE
    assert result.stderr == "animals/heron: complete (end_turn): the model ended its turn\n"
    assert runner("tail", "--db", filled, "owl").stdout == HALF
    assert runner("tail", "--db", filled, "badger", "-n", "0").stdout == ""
    assert runner("tail", "--db", filled, "badger", "-f").stdout == CUT
    assert runner("tail", "--db", filled, "mole").stdout == ""


def test_db_check_and_upgrade(runner: Invoke, filled: str) -> None:
    result = runner("db", "check", "--db", filled)
    assert result.exit_code == 0
    assert json.loads(runner("db", "check", "--db", filled, "--json").stdout) == {"problems": []}
    assert runner("db", "upgrade", "--db", filled).exit_code == 0


def test_something_else_is_no_database(runner: Invoke, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a database, but long enough to be looked at twice" * 100)
    for args in (["status"], ["list"], ["db", "check"], ["export"]):
        result = runner(*args, "--db", other)
        assert result.exit_code == 2, args
        assert str(other) in result.stderr
    assert other.read_text().startswith("not a database")


def test_money_stands_wherever_calls_are_counted(runner: Invoke, filled: str) -> None:
    told = runner("status", "--db", filled).stdout.splitlines()
    # Four calls of animals, one of them broken; one of dull.
    assert [line.split()[-1] for line in told[:3]] == ["cost", "~$0.008512", "$0.002128"]
    (animals, dull) = json.loads(runner("status", "--db", filled, "--json").stdout)["batches"]
    assert (animals["cost_usd"], animals["unpriced_calls"]) == (0.008512, 0)
    assert (dull["cost_usd"], dull["max_cost_usd"]) == (0.002128, None)
    heron, *_, fox = runner("list", "--db", filled, "--limit", 3).stdout.splitlines()[1:]
    assert "$0.004256" in heron
    assert "~$0.002128" in fox
    shown = json.loads(runner("show", "--db", filled, "animals/heron", "--json").stdout)
    assert shown["cost_usd"] == 0.004256
    assert [call["cost_usd"] for call in shown["calls"]] == [0.002128, 0.002128]


def test_a_budget_and_what_has_no_price_are_told(runner: Invoke, filled: str) -> None:
    with a_stranger(filled) as stranger:
        ((limits,),) = stranger.execute("SELECT limits FROM batch WHERE name = 'animals'")
        budget = {"max_cost_nano_usd": 25_000_000_000, "max_output_tokens": 3000}
        stranger.execute(
            "UPDATE batch SET unpriced_calls = 12, reserved_nano_usd = 1000000000, limits = ?"
            " WHERE name = 'animals'",
            (json.dumps(json.loads(limits) | budget),),
        )
        stranger.execute("UPDATE batch SET unpriced_calls = 1, cost_nano_usd = 0 WHERE key = 2")
    told = runner("status", "--db", filled).stdout
    assert "animals: ~$0.01 of a budget of $25.00 spent, $1.00 set aside for running calls" in told
    assert "animals: 1,600 of a budget of 3,000 output tokens spent" in told
    assert "animals: price unknown: 12 calls" in told
    assert told.splitlines()[2].split()[-1] == "unknown"
    assert "dull: price unknown: 1 call," in told
