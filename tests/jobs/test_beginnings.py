"""The beginnings of prompts: equal where prompts begin alike, and only there."""

from __future__ import annotations

from dataclasses import replace

from runner.jobs.beginnings import LEAST_CHARACTERS, MOST, beginnings
from runner.jobs.spec import JobSpec

LONG = "word " * LEAST_CHARACTERS


def spec(*texts: str, **changes: object) -> JobSpec:
    content = [{"type": "text", "text": text} for text in texts]
    base = JobSpec("a", "claude-haiku-4-5", ({"role": "user", "content": content},))
    return replace(base, **changes)


def hashes(job: JobSpec) -> set[bytes]:
    return {one.hash for one in beginnings(job)}


def test_short_prompts_have_none() -> None:
    assert beginnings(spec("short", system="be brief")) == ()


def test_each_block_ends_one_and_only_what_stands_before_it_counts() -> None:
    first, second = spec(LONG, "a", system=LONG), spec(LONG, "b", system=LONG)
    found = beginnings(first)
    assert [(one.message, one.block) for one in found] == [(None, 0), (0, 0), (0, 1)]
    assert [one.characters for one in found] == [len(LONG), 2 * len(LONG), 2 * len(LONG) + 1]
    assert len(hashes(first) & hashes(second)) == 2


def test_what_the_cache_tells_apart_is_told_apart() -> None:
    one = spec(LONG)
    for other in (
        spec(LONG, model="claude-opus-4-5"),
        spec(LONG, thinking={"type": "enabled", "budget_tokens": 2000}),
        spec(LONG, params={"tools": [{"name": "t"}]}),
        spec(LONG, system="x"),
        spec(LONG + "!"),
    ):
        assert not hashes(one) & hashes(other)


def test_what_it_does_not_is_not() -> None:
    text = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
    same = (
        spec(LONG, params={"metadata": {"user_id": "x"}}, max_tokens=7, id="b", priority=3),
        spec(messages=({"role": "user", "content": LONG},)),
        spec(messages=({"role": "user", "content": text},)),
    )
    assert all(hashes(spec(LONG)) == hashes(other) for other in same)
    assert hashes(spec("a", system=LONG)) == hashes(
        spec("a", system=({"type": "text", "text": LONG},))
    )


def test_there_are_never_many() -> None:
    found = beginnings(spec(*[LONG] * 40))
    assert len(found) == MOST
    assert found[-1].block == 39
