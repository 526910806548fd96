"""One walk through the jobs: groups, places, what is done already; and never much memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.estimating.survey import (
    KEPT_PLACES,
    MAX_GROUPS,
    MAX_MODELS,
    OTHER_MODELS,
    Known,
    Survey,
    chosen,
)
from runner.jobs.spec import JobSpec
from runner.messages.models import traits


def survey() -> Survey:
    return Survey(lambda model: traits(model, "https://api.anthropic.com"))


def job(n: int, *, model: str = "claude-haiku-4-5", words: int = 900, more: str = "") -> JobSpec:
    content = f"Write {words} words. {more}"
    return JobSpec(f"j{n}", model, ({"role": "user", "content": content},), max_tokens=500)


def test_like_jobs_stand_in_one_group() -> None:
    found = survey()
    for n in range(300):
        found.take(job(n, words=900 if n % 3 else 5_000))
    assert sorted(group.jobs for group in found.groups.values()) == [100, 200]
    for group in found.groups.values():
        assert len(group.places) == KEPT_PLACES
        assert all((place % 3 == 0) is (group.jobs == 100) for place in group.places)


def test_what_is_final_is_left_out_and_what_is_begun_counted() -> None:
    found = survey()
    found.take(job(0), Known(final=True, output_tokens=0))
    found.take(job(1), Known(final=False, output_tokens=700))
    found.take(job(2), Known(final=False, output_tokens=0))
    found.take(job(3))
    (group,) = found.groups.values()
    assert (found.seen, found.done.total()) == (4, 1)
    assert (group.jobs, group.begun, group.paid_output_tokens) == (3, 1, 700)
    assert group.places == [1, 2, 3]


def test_a_file_of_jobs_all_unlike_is_held_together() -> None:
    found = survey()
    for n in range(6_000):
        found.take(
            JobSpec(
                f"j{n}",
                f"claude-model-{n % 500}",
                ({"role": "user", "content": "x" * (n % 1_000)},),
                max_tokens=n + 1,
            )
        )
    kinds = found.groups
    assert len({kind.model for kind in kinds}) == MAX_MODELS + 1
    assert any(kind.model == OTHER_MODELS for kind in kinds)
    assert len(kinds) <= MAX_GROUPS + 3 * (MAX_MODELS + 1)
    assert sum(group.jobs for group in kinds.values()) == 6_000


@given(
    st.lists(st.sampled_from([100, 300, 900, 3_000, 9_000]), min_size=1, max_size=120),
    st.integers(1, 40),
)
def test_the_sample_has_something_of_each(words: list[int], size: int) -> None:
    found = survey()
    for n, count in enumerate(words):
        found.take(job(n, words=count))
    places = chosen(found.groups.values(), size)
    assert len(places) == min(size, len(words))
    assert set(places) <= set(range(len(words)))
    assert len(set(places.values())) == min(size, len(found.groups))
    for place, kind in places.items():
        assert found.kind_of(job(0, words=words[place])) == kind


def test_the_same_jobs_give_the_same_sample() -> None:
    one, other = survey(), survey()
    for found in (one, other):
        for n in range(1_000):
            found.take(job(n))
    assert chosen(one.groups.values(), 20) == chosen(other.groups.values(), 20)
