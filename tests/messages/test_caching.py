"""Where breakpoints may stand, and the rule by which a mark pays."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.jobs.price import Rates
from runner.messages.caching import MOST_BREAKPOINTS, Multiples, Ttl, layout, mark
from runner.simulator.problems import ApiProblem
from runner.simulator.validate import read_request

MINUTES, HOUR = Ttl.MINUTES, Ttl.HOUR

controls = st.none() | st.sampled_from([{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}])
words = st.text("ab \n", min_size=0, max_size=5)


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, object]:
    kind = draw(st.sampled_from(["text", "text", "text", "thinking"]))
    text = draw(words)
    if kind == "thinking":
        return {"type": "thinking", "thinking": text, "signature": "s"}
    control = draw(controls) if text.strip() and draw(st.integers(0, 4)) == 0 else None
    return {"type": "text", "text": text} | ({"cache_control": control} if control else {})


contents = words | st.lists(blocks(), min_size=1, max_size=6)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, object]:
    turns = draw(st.lists(contents, min_size=1, max_size=4))
    roles = ("user", "assistant")
    body: dict[str, object] = {
        "model": "m",
        "messages": [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)],
    }
    if draw(st.booleans()):
        body["system"] = draw(contents)
    if draw(st.integers(0, 5)) == 0:
        body["cache_control"] = draw(controls.filter(bool))
    return body


def breakpoints(body: dict[str, object]) -> list[Ttl]:
    return [place.own for place in layout(body).places if place.own is not None]


def without_marks(body: dict[str, object]) -> list[object]:
    """What the model is given: texts alone and texts in a block are the same."""
    parts = [body.get("system") or (), *(m["content"] for m in body["messages"])]
    return [
        [{k: v for k, v in b.items() if k != "cache_control"} for b in blocks]
        for part in parts
        for blocks in [[{"type": "text", "text": part}] if isinstance(part, str) else part]
    ]


@given(bodies(), st.data())
def test_marks_never_break_the_rules_and_change_nothing_else(body, data) -> None:
    places = layout(body).places
    some = data.draw(st.lists(st.tuples(st.sampled_from(places), st.sampled_from(Ttl)), max_size=6))
    before = copy.deepcopy(body)
    marked, made = mark(body, layout(body), some)
    assert body == before
    assert without_marks(marked) == without_marks(body)
    added = dict(made)
    assert set(added.items()) <= set(some)
    assert all(place.markable and place.own is None for place in added)
    own = len(breakpoints(body)) + ("cache_control" in body)
    assert len(breakpoints(marked)) == len(breakpoints(body)) + len(added)
    if added:
        assert own + len(added) <= MOST_BREAKPOINTS
        lives = [ttl.seconds for ttl in breakpoints(marked)]
        lives += [tail.seconds] if (tail := layout(body).tail) else []
        assert lives == sorted(lives, reverse=True)


def test_what_is_marked_the_api_takes() -> None:
    body = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 10,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Write."},
            {"role": "assistant", "content": [{"type": "text", "text": t} for t in "abcdef"]},
            {"role": "user", "content": "Go on."},
        ],
    }
    places = layout(body).places
    marked, made = mark(
        body, layout(body), [(places[-2], MINUTES), (places[0], HOUR), (places[1], HOUR)]
    )
    assert len(made) == 3
    assert len(read_request(marked, "2023-06-01").blocks) == len(places)
    # The other way round it would not, and so it is not done.
    assert len(mark(body, layout(body), [(places[0], MINUTES), (places[1], HOUR)])[1]) == 1
    marked["system"][0]["cache_control"] = {"type": "ephemeral"}
    with pytest.raises(ApiProblem, match="must not come after"):
        read_request(marked, "2023-06-01")


def test_a_users_own_breakpoints_count() -> None:
    own = {"cache_control": {"type": "ephemeral"}}
    texts = [{"type": "text", "text": t} | own for t in "abc"]
    body = {"model": "m", "messages": [{"role": "user", "content": [*texts, *"de"]}]}
    body["messages"][0]["content"][3:] = [{"type": "text", "text": t} for t in "de"]
    places = layout(body).places
    assert layout(body).free == 1
    assert [
        place.block for place, _ in mark(body, layout(body), [(p, MINUTES) for p in places])[1]
    ] == [3]


@given(
    st.floats(1.01, 3), st.floats(1.01, 3), st.floats(0.01, 0.9), st.integers(0, 50),
    st.sampled_from(Ttl),
)  # fmt: skip
def test_the_rule_is_which_bill_is_smaller(write_5m, write_1h, read, reads, ttl) -> None:
    multiples = Multiples(write_5m, write_1h, read)
    with_it = multiples.write(ttl) + sum([read] * reads)
    assert multiples.pays(ttl, reads) == (with_it < sum([1.0] * (reads + 1)) - 1e-12) or (
        abs(with_it - reads - 1) < 1e-9
    )


def test_the_multiples_are_a_prices() -> None:
    rates = Rates(input=4_000, output=20_000, cache_write_5m=5_000, cache_write_1h=8_000,
                  cache_read=200)  # fmt: skip
    assert Multiples.of(rates) == Multiples(1.25, 2.0, 0.05)
    assert Multiples.of(None) == Multiples.of(Rates(0, 0, 0, 0, 0)) == Multiples()
