"""The short ways for jobs that are a prompt and nothing else give what the long ways give."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.jobs import request_lines
from runner.jobs.call import Strategy
from runner.jobs.jobfile import JobFileError, read_job_file
from runner.jobs.spec import (
    Caching,
    ContinuationSpec,
    JobSpec,
    canonical_json,
)

_SETTINGS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# What JSON writes in another way than it stands, and what has no UTF-8 form.
TEXT = st.text(st.sampled_from('ab"\\/\n\r\t\b\f\0\x1f\x7f é\u2028\ud83d\U0001f600'), max_size=8)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT})
    | st.fixed_dictionaries({"content": TEXT, "role": TEXT, "x": TEXT})
    | st.fixed_dictionaries({"role": TEXT, "content": st.lists(st.dictionaries(TEXT, TEXT))}),
    max_size=3,
).map(tuple)
SPECS = st.builds(
    JobSpec,
    id=st.just("a"),
    model=TEXT,
    messages=MESSAGES,
    max_tokens=st.none() | st.integers(1, 9),
    system=st.none() | TEXT | st.just(({"type": "text", "text": "s"},)),
    stop_sequences=st.just(()) | st.tuples(TEXT),
    params=st.just({}) | st.dictionaries(TEXT, TEXT, max_size=2),
    continuation=st.builds(
        ContinuationSpec,
        strategy=st.none() | st.sampled_from(Strategy),
        max_calls=st.integers(1, 3),
    ),
    metadata=st.just({}) | st.dictionaries(TEXT, TEXT, max_size=2),
    priority=st.integers(-1, 1),
    caching=st.sampled_from(Caching),
)


@_SETTINGS
@given(spec=SPECS)
def test_the_json_of_a_job_is_its_canonical_one(spec: JobSpec) -> None:
    assert spec.shape_data() == canonical_json(spec.shape()).encode(errors="surrogatepass")
    assert spec.settings_json() == canonical_json(spec.settings())


FIELDS: list[tuple[str, list[Any]]] = [
    ("model", ["claude-haiku-4-5", "", "a b", None, 3]),
    ("max_tokens", [1, 1_000_000, 1_000_001, 0, True, 1.0, None, "auto", "1"]),
    ("system", ["be brief", " ", None, [{"type": "text", "text": "s"}], 3]),
    ("thinking", [{"type": "enabled", "budget_tokens": 1024}, {}, None]),
    ("temperature", [0.5, 1e999]),
    ("stop_sequences", [["x"], [""], []]),
    ("x", [1]),
]
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "user", "assistant", "system", None, ["user"]]),
        "content": TEXT
        | st.sampled_from(["hello", "", None, [{"type": "text", "text": "t"}], [], 3]),
    },
    optional={"name": TEXT},
)
REQUESTS = st.fixed_dictionaries(
    {
        "custom_id": st.sampled_from(["a", "job-1", "", "a b", 3, None, "x" * 65]),
        "params": st.fixed_dictionaries(
            {"messages": st.lists(MESSAGE, max_size=2) | st.sampled_from([None, "hi", {}])},
            optional={name: st.sampled_from(values) for name, values in FIELDS},
        ),
    },
    optional={"prompt": st.just("p")},
)


def read(path: Path) -> tuple[list[JobSpec], str]:
    try:
        return list(read_job_file(path).jobs()), ""
    except JobFileError as refused:
        return [], str(refused)


@_SETTINGS
@given(
    request_=REQUESTS,
    ascii_=st.booleans(),
    twice=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "", " \n", "}\n", "\x0b\n"]),
)
def test_a_line_is_read_alike_quickly_and_with_care(
    tmp_path: Path, request_: dict[str, Any], ascii_: bool, twice: bool, end: str
) -> None:
    line = json.dumps(request_, ensure_ascii=ascii_)
    if twice:
        line = line[:-1] + ', "custom_id": "b"}'
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(b"\n" + (line + end).encode(errors="surrogatepass"))
    quickly = read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_lines, "_plain", lambda _: None)
        with_care = read(path)
    assert quickly == with_care


def test_most_lines_are_read_quickly() -> None:
    line = b'{"custom_id":"a","params":{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Tell\\nme"}]}}\n'
    assert request_lines._plain(line) == JobSpec(
        "a", "m", ({"role": "user", "content": "Tell\nme"},), 9
    )


def test_a_job_read_quickly_is_like_any_other() -> None:
    plain = JobSpec.plain("a", "m", ({"role": "user", "content": "x"},), 9, "s")
    made = JobSpec("a", "m", ({"role": "user", "content": "x"},), 9, system="s")
    assert plain == made
    assert repr(plain) == repr(made)
    assert JobSpec.from_json("a", plain.shape(), plain.settings()) == made
