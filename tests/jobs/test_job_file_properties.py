"""Whatever the bytes: a job file is read, or refused in our own words; specifications survive."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.jobs.call import Strategy
from runner.jobs.jobfile import JobFileError, read_job_file
from runner.jobs.spec import ContinuationSpec, JobSpec, Until, canonical_json, shape_hash

_SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PIECES = [
    "version: 1\n", "jobs:\n", "- ", "id: ", "a", "prompt: ", "model: m\n", "  ", "\n", "\t", ": ",
    "{", "}", "[", "]", "&a ", "*a", "<<: ", "!!str ", "!x ", "'", '"', "\\ud800", "{{ x }}", "{% ",
    "foreach: rows.csv\n", "file://", "file://jobs.yaml", "defaults: ", "null", "|\n", "---\n", "#",
    '{"custom_id": "a", "params": ', '{"model": "m", "messages": ', "é", "\0", "1e999", "?", ",",
]  # fmt: skip
SOUP = st.lists(st.sampled_from(PIECES), max_size=30).map(lambda pieces: "".join(pieces).encode())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = [
    "id",
    "prompt",
    "messages",
    "foreach",
    "model",
    "system",
    "max_tokens",
    "stop_sequences",
    "thinking",
    "output_config",
    "metadata",
    "priority",
    "params",
    "continuation",
    "until",
    "custom_id",
    "role",
    "content",
    "type",
    "text",
    "strategy",
    "contains",
    "max_calls",
    "x",
]
JOBLIKE = st.recursive(
    JSON | st.sampled_from(["a", "{{ x }}", "file://rows.csv", "rows.csv", "user", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=20,
)


def read(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.write_bytes(data)
    error = None
    try:
        file = read_job_file(path)
    except JobFileError as refused:
        error = refused
    if error is None:
        jobs = list(file.jobs())
        assert len(jobs) == file.job_count == len({job.id for job in jobs}) > 0
        for job in jobs:
            canonical_json(job.shape()).encode()
        return
    assert 0 < len(error.problems) <= 20
    assert len(error.problems) <= error.total
    assert all(line.isprintable() for line in str(error).splitlines())


@pytest.mark.parametrize("name", ["jobs.yaml", "jobs.jsonl"])
@_SETTINGS
@given(
    data=st.binary(max_size=60)
    | SOUP
    | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
def test_any_bytes(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "rows.csv").write_text("x\n1\n")
    read(tmp_path, name, data)


@_SETTINGS
@given(jobs=st.lists(JOBLIKE, min_size=1, max_size=3), defaults=JOBLIKE)
def test_any_yaml_values(tmp_path: Path, jobs: list[Any], defaults: Any) -> None:
    (tmp_path / "rows.csv").write_text("x\n1\n")
    value = {"version": 1, "defaults": defaults, "jobs": jobs}
    read(tmp_path, "jobs.yaml", json.dumps(value).encode())


@_SETTINGS
@given(value=JOBLIKE)
def test_any_request_values(tmp_path: Path, value: Any) -> None:
    read(tmp_path, "jobs.jsonl", json.dumps({"custom_id": "a", "params": value}).encode())


@_SETTINGS
@given(data=SOUP | st.binary(max_size=40), name=st.sampled_from(["rows.csv", "rows.jsonl"]))
def test_any_rows(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    job = {"id": "a{{ x }}", "model": "m", "prompt": "p {{ x }}", "foreach": name}
    read(tmp_path, "jobs.yaml", json.dumps({"version": 1, "jobs": [job]}).encode())


@_SETTINGS
@given(
    source=st.lists(
        st.sampled_from(
            [
                "{{",
                "}}",
                "{% ",
                " %}",
                "x",
                "for a in x",
                "endfor",
                "|",
                "join",
                "(",
                ")",
                ".",
                "~",
                "if",
                "set y = x",
                "'",
                "1",
                "*",
                " ",
            ]
        ),
        max_size=15,
    ).map("".join)
)
def test_any_template(tmp_path: Path, source: str) -> None:
    (tmp_path / "rows.csv").write_text("x\n1\n")
    job = {"id": "a{{ x }}", "model": "m", "prompt": "p" + source, "foreach": "rows.csv"}
    read(tmp_path, "jobs.yaml", json.dumps({"version": 1, "jobs": [job]}).encode())


OBJECT = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
SPECS = st.builds(
    JobSpec,
    id=st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True),
    model=st.text(min_size=1, max_size=9),
    messages=st.lists(OBJECT, min_size=1, max_size=3).map(tuple),
    max_tokens=st.none() | st.integers(1, 10**6),
    system=st.none() | st.text(max_size=9) | st.lists(OBJECT, max_size=2).map(tuple),
    stop_sequences=st.lists(st.text(max_size=4), max_size=3).map(tuple),
    thinking=st.none() | OBJECT,
    output_config=st.none() | OBJECT,
    params=OBJECT,
    continuation=st.builds(
        ContinuationSpec,
        strategy=st.none() | st.sampled_from(Strategy),
        max_calls=st.integers(1, 99),
        max_output_tokens=st.none() | st.integers(1, 10**9),
    ),
    until=st.none() | st.builds(Until, contains=st.text(min_size=1, max_size=9)),
    metadata=OBJECT,
    priority=st.integers(-9, 9),
)


@_SETTINGS
@given(spec=SPECS)
def test_specifications_come_back_from_json(spec: JobSpec) -> None:
    shape, rest = canonical_json(spec.shape()), canonical_json(spec.settings())
    back = JobSpec.from_json(spec.id, json.loads(shape), json.loads(rest))
    assert back == spec
    assert shape_hash(back.shape_data()) == shape_hash(shape.encode())
