"""Good job files: what their keys come to, and that they are streamed."""

import json
import tracemalloc
from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.jobs.call import Strategy
from runner.jobs.jobfile import JobFile, JobFileError, read_job_file
from runner.jobs.spec import BatchLimits, ContinuationSpec, JobSpec, OnUnverifiedSeam, Until

EXAMPLE = Path(__file__).parents[2] / "jobs.example.yaml"


def read(folder: Path, text: str, **files: str) -> JobFile:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    path = folder / "jobs.yaml"
    path.write_text(text)
    return read_job_file(path)


def only(file: JobFile) -> JobSpec:
    (job,) = file.jobs()
    return job


def test_every_key(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """
version: 1
batch: night
limits: {concurrency: 3, concurrency_by_model: {m-2: 1}, max_attempts: 4}
defaults:
  model: m-1
  max_tokens: auto
  metadata: {a: 1, b: 2}
  params: {service_tier: auto, metadata: {user_id: u}}
  continuation: {strategy: prefill, max_calls: 9, max_output_tokens: 1_000}
  priority: -1
jobs:
  - id: one
    messages:
      - {role: user, content: hello}
      - {role: assistant, content: [{type: text, text: hi}]}
      - {role: user, content: [{type: document, source: {}}, {type: text, text: go on}]}
    model: m-2
    max_tokens: 77
    system: [{type: text, text: be brief, cache_control: {type: ephemeral}}]
    stop_sequences: ["END", "ENDE"]
    thinking: {type: disabled}
    output_config: {effort: low}
    metadata: {b: 3}
    params: {service_tier: standard_only}
    continuation: {max_calls: 5}
    until: {contains: "</end>"}
    priority: 2
""",
    )
    assert file.job_count == 1
    assert file.batch.name == "night"
    assert file.batch.limits == BatchLimits(3, {"m-2": 1}, 4)
    assert only(file) == JobSpec(
        id="one",
        model="m-2",
        messages=(
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "user",
                "content": [{"type": "document", "source": {}}, {"type": "text", "text": "go on"}],
            },
        ),
        max_tokens=77,
        system=({"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}},),
        stop_sequences=("END", "ENDE"),
        thinking={"type": "disabled"},
        output_config={"effort": "low"},
        params={"service_tier": "standard_only", "metadata": {"user_id": "u"}},
        continuation=ContinuationSpec(Strategy.PREFILL, 5, 1000),
        until=Until("</end>"),
        metadata={"a": 1, "b": 3},
        priority=2,
    )


def test_a_minimal_job_has_the_documented_defaults(tmp_path: Path) -> None:
    job = only(read(tmp_path, "version: 1\njobs: [{id: a, model: m, prompt: x}]"))
    assert job == JobSpec("a", "m", ({"role": "user", "content": "x"},))
    assert job.max_tokens is None
    assert job.continuation == ContinuationSpec(None, 50, None)


def test_every_form_of_until_and_of_continuation(tmp_path: Path) -> None:
    job = only(
        read(
            tmp_path,
            "version: 1\njobs:\n- id: a\n  model: m\n  prompt: x\n"
            "  continuation: {strategy: turn, seam_retries: 0, on_unverified_seam: fail, max_nudges: 5}\n"
            "  until:\n    stop: true\n    all:\n"
            "    - contains: END\n    - matches: '(?i)the end$'\n    - min_words: 10\n"
            "    - min_chars: 50\n    - closes_tags: true\n    - closes_tags: [b, c]\n    - closes_tags: d\n",
        )
    )
    assert job.continuation == ContinuationSpec(
        Strategy.TURN, seam_retries=0, on_unverified_seam=OnUnverifiedSeam.FAIL, max_nudges=5
    )
    assert job.until == Until(
        all=(
            Until(contains="END"),
            Until(matches="(?i)the end$"),
            Until(min_words=10),
            Until(min_chars=50),
            Until(closes_tags=True),
            Until(closes_tags=("b", "c")),
            Until(closes_tags=("d",)),
        ),
        stop=True,
    )
    assert JobSpec.from_json("a", job.shape(), job.settings()) == job


def test_words_that_look_like_something_else_stay_texts(tmp_path: Path) -> None:
    job = only(
        read(
            tmp_path,
            "version: 1\njobs:\n- id: on\n  model: m\n  prompt: no\n"
            "  metadata: {a: yes, b: 2026-11-22, c: 012, d: 1:30, e: 0x1f, f: ~, g: TRUE, h: 1.5e3,"
            " i: !!str 5, j: .inf}\n",
        )
    )
    assert job.id == "on"
    assert job.messages[0]["content"] == "no"
    assert job.metadata == {
        "a": "yes",
        "b": "2026-11-22",
        "c": "012",
        "d": "1:30",
        "e": "0x1f",
        "f": None,
        "g": True,
        "h": 1500.0,
        "i": "5",
        "j": ".inf",
    }


def test_aliases_and_merge_keys(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        "version: 1\ndefaults: &d {model: m, priority: 1}\njobs:\n"
        "- &first {id: a, prompt: x}\n- {<<: *first, id: b}\n- {<<: [*d, *first], id: c}\n",
    )
    assert [(job.id, job.priority) for job in file.jobs()] == [("a", 1), ("b", 1), ("c", 1)]


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    text = "\ufeffversion: 1\r\njobs:\r\n- id: a\r\n  model: m\r\n  prompt: |\r\n    x\r\n    y\r\n"
    path.write_bytes(text.encode())
    assert only(read_job_file(path)).messages[0]["content"] == "x\ny\n"


@pytest.mark.parametrize(
    ("name", "batch"),
    [("jobs.example.yaml", "jobs-example"), ("é.yml", "batch"), (f"{'a' * 70}.yaml", "a" * 64)],
)
def test_the_batch_is_named_after_the_file(tmp_path: Path, name: str, batch: str) -> None:
    path = tmp_path / name
    path.write_text("version: 1\njobs: [{id: a, model: m, prompt: x}]")
    assert read_job_file(path).batch.name == batch
    assert read_job_file(path, batch="mine").batch.name == "mine"
    with pytest.raises(UsageError, match="cannot be a batch's name"):
        read_job_file(path, batch="../mine")


def test_texts_in_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "p.md").write_text("prompt {{ not filled in }}\n")
    file = read(
        tmp_path,
        "version: 1\ndefaults: {model: m, system: 'file://style.md'}\njobs:\n"
        "- {id: a, prompt: 'file://sub/p.md'}\n"
        "- {id: b, messages: [{role: user, content: 'file://sub/p.md'}]}\n",
        style_md="be brief",
    )
    for job in file.jobs():
        assert job.messages[0]["content"] == "prompt {{ not filled in }}\n"
        assert job.system == "be brief"
    assert file.warnings == ()


def test_braces_without_rows_are_sent_as_they_stand_and_warned_of(tmp_path: Path) -> None:
    file = read(tmp_path, "version: 1\njobs: [{id: a, model: m, prompt: 'x {{ name }} {% y'}]")
    assert only(file).messages[0]["content"] == "x {{ name }} {% y"
    (warning,) = file.warnings
    assert '"{{ name }}"' in warning
    assert "line 2" in warning


def test_jobs_are_read_anew_each_time(tmp_path: Path) -> None:
    file = read(tmp_path, "version: 1\njobs: [{id: a, model: m, prompt: x}]")
    assert list(file.jobs()) == list(file.jobs())
    file.path.write_text("version: 1\njobs: [{id: a, model: m}]")
    with pytest.raises(JobFileError, match="the prompt is missing"):
        list(file.jobs())
    file.path.unlink()
    with pytest.raises(JobFileError, match="no such file"):
        list(file.jobs())


def request(number: int, **params: object) -> str:
    message = {"role": "user", "content": f"Write about {number}. " + "x" * 200}
    body = {"model": "m", "max_tokens": 100, "messages": [message], **params}
    return json.dumps({"custom_id": f"job-{number}", "params": body}) + "\n"


def test_message_batches_requests(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    path.write_text(
        "\ufeff"
        + request(1, system="s", stop_sequences=["END"], stream=False, metadata={"user_id": "u"})
        + "\n"
        + request(2, thinking={"type": "disabled"}, service_tier="auto", output_config={"a": 1})
    )
    file = read_job_file(path)
    assert (file.batch.name, file.job_count) == ("night", 2)
    one, two = file.jobs()
    assert (one.id, one.model, one.max_tokens, one.system) == ("job-1", "m", 100, "s")
    assert one.stop_sequences == ("END",)
    assert one.params == {"metadata": {"user_id": "u"}}
    assert one.metadata == {}
    assert two.thinking == {"type": "disabled"}
    assert two.output_config == {"a": 1}
    assert two.params == {"service_tier": "auto"}


def test_requests_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(request(1).replace("Write", "file://x {{ y }} \\ud83d\\ude00"))
    assert only(read_job_file(path)).messages[0]["content"].startswith("file://x {{ y }} 😀 about")


def test_twenty_thousand_requests_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("w") as out:
        for number in range(20_000):
            out.write(request(number))
    size = path.stat().st_size
    tracemalloc.start()
    try:
        file = read_job_file(path)
        jobs = sum(1 for _ in file.jobs())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.job_count == jobs == 20_000
    assert peak < 2_000_000 < size / 2


def test_the_example(tmp_path: Path) -> None:
    file = read_job_file(EXAMPLE)
    jobs = list(file.jobs())
    assert file.warnings == ()
    assert file.batch.name == "example"
    assert len(jobs) == file.job_count == len({job.id for job in jobs})
    assert jobs[0].id == "five-stories"
    assert jobs[0].max_tokens == 4096
    assert {job.model for job in jobs} == {"claude-haiku-4-5", "claude-haiku-5-5"}
