"""Bad input is refused whole, with its place, the key or row, and the fix."""

from pathlib import Path

import pytest

from runner.jobs.jobfile import JobFileError, read_job_file
from tests.jobs.bad_input import CASES, HEAD, BadInput


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(case: BadInput, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    with pytest.raises(JobFileError) as caught:
        read_job_file(path)
    error = caught.value
    message = str(error)
    first = error.problems[0]
    file = path if case.file is None else tmp_path / case.file
    assert (first.file, first.line, first.column) == (str(file), case.line, case.column), message
    for piece in case.says:
        assert piece in message
    assert error.total == case.total, message
    assert error.exit_status == 2
    # Every problem says what to do, in a sentence, and none can play tricks on a terminal.
    for problem in error.problems:
        assert problem.fix
        assert problem.fix[0].isupper() or problem.fix[0] == "`"
        assert problem.fix.endswith((".", "?")), problem.fix
        assert problem.message
        assert not problem.message.endswith(".")
        assert str(problem).isprintable()


def test_names_of_cases_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_the_first_twenty_problems_are_shown_together(tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_bytes(HEAD + b"".join(b"- {id: a b, prompt: x}\n" for _ in range(33)))
    with pytest.raises(JobFileError) as caught:
        read_job_file(path)
    assert len(caught.value.problems) == 20
    assert caught.value.total == 33
    message = str(caught.value)
    assert len(message.splitlines()) == 21
    assert message.startswith(f"{path}:4:8: jobs[0].id: ")
    assert message.endswith("and 13 more")


def test_problems_of_one_job_and_of_its_rows_are_shown_together(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("x\n1\n2,3\n")
    path = tmp_path / "jobs.yaml"
    path.write_bytes(
        HEAD + b"- {id: a b, prompt: 'file://no.md', max_tokens: 0}\n"
        b"- {id: 'a{{ x }}', prompt: '{{ y }}', foreach: r.csv, priority: low}\n"
    )
    with pytest.raises(JobFileError) as caught:
        read_job_file(path)
    places = [(Path(p.file).name, p.line, p.key) for p in caught.value.problems]
    assert places == [
        ("jobs.yaml", 4, "jobs[0].id"),
        ("jobs.yaml", 4, "jobs[0].prompt"),
        ("jobs.yaml", 4, "jobs[0].max_tokens"),
        ("jobs.yaml", 5, "jobs[1].prompt"),
        ("jobs.yaml", 5, "jobs[1].priority"),
        ("r.csv", 3, "row 2"),
    ]


def test_control_sequences_never_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_bytes(HEAD + b'- {id: "\\e[31m", prompt: x, "\\e]0;": y}\n')
    with pytest.raises(JobFileError) as caught:
        read_job_file(path)
    assert "\x1b" not in str(caught.value)
    assert caught.value.total == 2


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    import os

    path = tmp_path / "jobs.jsonl"
    os.mkfifo(path)
    with pytest.raises(JobFileError, match="a pipe or a device"):
        read_job_file(path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_bytes(HEAD)

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(JobFileError, match="may not be read"):
        read_job_file(path)
