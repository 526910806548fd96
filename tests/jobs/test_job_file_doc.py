"""docs/job-file.md names every key, and its examples are read without fault."""

import re
from pathlib import Path

import pytest

from runner.jobs.fields import MAX_CALLS, MAX_TOKENS
from runner.jobs.jobfile import read_job_file
from runner.jobs.keys import KNOWN, REFUSED_PARAMS
from runner.jobs.limits import MAX_ATTEMPTS, MAX_CONCURRENCY
from runner.jobs.spec import BatchLimits, ContinuationSpec

DOC = (Path(__file__).parents[2] / "docs" / "job-file.md").read_text()
EXAMPLES = re.findall(r"^```(yaml|json)\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_examples(tmp_path: Path, kind: str, text: str) -> None:
    for name in ("style.md", "report.md"):
        (tmp_path / name).write_text("be brief")
    (tmp_path / "topics.csv").write_text("slug,topic,audience\na,b,c\n")
    path = tmp_path / ("jobs.yaml" if kind == "yaml" else "jobs.jsonl")
    path.write_text(text)
    assert read_job_file(path).job_count == 1


def test_every_key_is_in_the_tables() -> None:
    rows = "\n".join(line for line in DOC.splitlines() if line.startswith("| `"))
    for level, keys in KNOWN.items():
        if level in ("a message", "a request"):
            continue
        prefix = (
            level.strip("`") + "." if level in ("`limits`", "`continuation`", "`until`") else ""
        )
        for key in keys:
            parts = ("limits", "continuation", "until")
            assert f"`{prefix}{key}`" in rows or (key in parts and f"`{key}." in rows), key


def test_figures_in_the_tables() -> None:
    assert len(EXAMPLES) == 4
    assert f"| 1 to {MAX_TOKENS}, or `auto` | `auto` |" in DOC
    assert f"| 1 to {MAX_CONCURRENCY} | {BatchLimits().concurrency} |" in DOC
    assert f"| 1 to {MAX_ATTEMPTS} | {BatchLimits().max_attempts} |" in DOC
    assert f"| 1 to {MAX_CALLS} | {ContinuationSpec().max_calls} |" in DOC
    assert ContinuationSpec().max_output_tokens is None
    for key in ("tools", "stream"):
        assert key in REFUSED_PARAMS
