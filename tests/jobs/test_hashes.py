"""Jobs are known by their hashes, also those that stand in databases of years ago."""

from __future__ import annotations

import pytest

from runner.jobs.call import Strategy
from runner.jobs.spec import ContinuationSpec, JobSpec, Until, canonical_json, shape_hash

MODEL = "claude-haiku-4-5"


def of(content: str, **fields: object) -> JobSpec:
    return JobSpec("a", MODEL, ({"role": "user", "content": content},), **fields)  # type: ignore[arg-type]  # fields of many kinds


# Never to be changed: with another hash each job of a user is a job whose prompt was changed.
GOLDEN = [
    (of("Tell me a story."), "a1449e423edc61449ad0247e400da97c"),
    (of("Tell me a story.", max_tokens=4096), "d50068663912f00b4932815d07f3e2ad"),
    (of('"Quoted" \\ back/slash\n\r\t\b\f\0\x1f\x7f'), "5f1887c8fde660b0f0dc3f0f43340d19"),
    (of("é € \u2028 \U0001f600 \ufeff"), "6270764258554bcc5e06492a8a54ea71"),
    (of("half \ud83d"), "8aa14f02b6117a126e399b1753f8f8e9"),
    (of("a", system='Be "brief".\n'), "d040e5ae53fa8dfd6f554fd64ed0ca14"),
    (of("a", system=({"type": "text", "text": "s"},)), "b77979578cfc231ae29d80ca89860c17"),
    (
        JobSpec(
            "a",
            "m",
            (
                {"role": "user", "content": "one"},
                {"content": "two", "role": "assistant"},
                {"role": "user", "content": [{"type": "text", "text": "three"}]},
            ),
        ),
        "775d7010620db069a0bf8d8c83c5ce8b",
    ),
    (
        of("a", params={"temperature": 0.1, "top_k": 10**20, "é": 1e16}),
        "8ffae6700e67125518a085c31e2ff254",
    ),
    (
        of(
            "a",
            stop_sequences=("</s>",),
            thinking={"type": "disabled"},
            output_config={"effort": "low"},
        ),
        "a6dd8c71552a0c0171733b035f9b25d1",
    ),
    (
        of(
            "a",
            until=Until(contains="the end", stop=True),
            continuation=ContinuationSpec(Strategy.PREFILL),
        ),
        "a166be7d067ebc1833cb6107dde37cd2",
    ),
]


@pytest.mark.parametrize(("spec", "known"), GOLDEN)
def test_a_hash_never_changes(spec: JobSpec, known: str) -> None:
    assert shape_hash(spec.shape_data()).hex() == known
    long_way = canonical_json(spec.shape()).encode(errors="surrogatepass")
    assert shape_hash(long_way).hex() == known


def test_a_hash_does_not_depend_on_what_was_hashed_before() -> None:
    whole, other = (
        of("a", max_tokens=4096),
        of("a", max_tokens=4096.0),
    )  # equal, and not written alike
    assert shape_hash(whole.shape_data()).hex() != shape_hash(other.shape_data()).hex()
    assert shape_hash(other.shape_data()) == shape_hash(canonical_json(other.shape()).encode())
