"""What calls were for: the parts always sum to the whole, in tokens and in money."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass, fields
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from runner.jobs.price import Rates
from runner.store.purposes import SPLIT_SQL, Purpose, Split

COLUMNS = (
    "key", "job_key", "number", "resume_at", "superseded", "input_tokens",
    "cache_creation_input_tokens", "cache_creation_1h_input_tokens", "cache_read_input_tokens",
    "output_tokens", "prompt_tokens", "lost_output_tokens", "dropped_output_tokens",
)  # fmt: skip
TOKENS = st.integers(0, 10**7)


@dataclass(frozen=True)
class Row:
    """A call's row; `written_1h` is part of `written`."""

    input: int = 0
    written: int = 0
    written_1h: int = 0
    read: int = 0
    output: int = 0
    prompt: int | None = None
    lost: int = 0
    dropped: int = 0
    number: int = 1
    resume_at: int = 0
    superseded: int = 0

    @property
    def whole_input(self) -> int:
        return self.input + self.written + self.read


@st.composite
def rows(draw: st.DrawFn) -> Row:
    written, output = draw(TOKENS), draw(TOKENS)
    return Row(
        input=draw(TOKENS),
        written=written,
        written_1h=draw(st.integers(0, written)),
        read=draw(TOKENS),
        output=output,
        prompt=draw(st.none() | TOKENS),
        lost=draw(st.integers(0, output)),
        dropped=draw(TOKENS),
        number=draw(st.integers(1, 3)),
        resume_at=draw(st.integers(0, 1) | st.just(100_000)),
        superseded=draw(st.integers(0, 1)),
    )


def splits(*calls: Row) -> list[Split]:
    """The splits of one job's calls, by SQLite."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE call ({', '.join(COLUMNS)})")
    for key, row in enumerate(calls, 1):
        values = (
            key, 1, row.number, row.resume_at, row.superseded, row.input, row.written,
            row.written_1h, row.read, row.output, row.prompt, row.lost, row.dropped,
        )  # fmt: skip
        connection.execute(f"INSERT INTO call VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
    found = connection.execute(f"SELECT {', '.join(SPLIT_SQL.values())} FROM call ORDER BY key")  # noqa: S608
    result = [Split(*values) for values in found]
    connection.close()
    return result


@given(st.lists(rows(), min_size=1, max_size=5))
def test_the_parts_of_a_call_sum_to_its_tokens(calls: list[Row]) -> None:
    for row, split in zip(calls, splits(*calls), strict=True):
        parts = astuple(split)
        assert sum(parts[:6]) == row.whole_input
        assert sum(parts[6:]) == row.output
        assert sum(split.tokens.values()) == row.whole_input + row.output
        assert min(parts[:6]) >= 0
        assert split.output_lost >= 0
        # The prompt is read either first or again, never both.
        assert 0 in (split.prompt_first, split.prompt_again)


@given(rows(), st.tuples(*[st.integers(0, 10**11)] * 5), st.integers(0, 10**15))
def test_the_shares_of_a_cost_sum_to_it(row: Row, prices: tuple[int, ...], cost: int) -> None:
    (split,) = splits(row)
    rates = Rates(*prices)
    shares = split.shares(cost, rates)
    paid = sum(
        count * rate
        for count, rate in (
            (row.input, rates.input),
            (row.written - row.written_1h, rates.cache_write_5m),
            (row.written_1h, rates.cache_write_1h),
            (row.read, rates.cache_read),
            (row.output, rates.output),
        )
    )
    assert sum(shares.values()) == (cost if paid else 0)
    assert all(tokens or not shares[purpose] for purpose, tokens in split.tokens.items())
    # At its true cost each purpose gets what its tokens cost, give or take the rounding.
    true = split.shares(paid // 10**6, rates)
    assert abs(true[Purpose.CACHE_READ] - row.read * rates.cache_read / 10**6) <= 2
    assert abs(true[Purpose.PROMPT_FIRST] - split.prompt_first * rates.input / 10**6) <= 2


def test_what_was_read_outside_the_cache_is_the_end_of_the_request() -> None:
    # Prompt 1,000, document 500. The cache holds the prompt and 200 of the document.
    (split,) = splits(Row(input=300, read=1_200, prompt=1_000, number=2, resume_at=9))
    assert (split.document_again, split.prompt_again, split.cache_read) == (300, 0, 1_200)
    # It holds 900 of the prompt only.
    (split,) = splits(Row(input=600, read=900, prompt=1_000, number=2, resume_at=9))
    assert (split.document_again, split.prompt_again, split.cache_read) == (500, 100, 900)


def test_the_prompt_is_read_first_by_the_first_call_that_read_anything() -> None:
    first = Row(input=100, output=50, prompt=100)
    second = Row(input=150, output=50, prompt=100, number=2, resume_at=9)
    told = [(s.prompt_first, s.prompt_again, s.document_again) for s in splits(first, second)]
    assert told == [(100, 0, 0), (0, 100, 50)]
    turned_away = Row()
    anew = Row(input=100, prompt=100, number=2)
    assert [s.prompt_first for s in splits(turned_away, anew)] == [0, 100]
    assert [s.prompt_first for s in splits(first, anew)] == [100, 0]
    superseded = Row(input=100, output=50, prompt=100, superseded=1)
    told = [(s.prompt_first, s.prompt_again, s.output_lost) for s in splits(superseded, first)]
    assert told == [(0, 100, 50), (100, 0, 0)]


def test_output_is_lost_where_it_never_entered_the_document_or_left_it() -> None:
    (split,) = splits(Row(output=100, lost=30, dropped=5))
    assert (split.output_kept, split.output_lost) == (65, 35)
    (split,) = splits(Row(output=100, lost=30, dropped=500, superseded=1))
    assert (split.output_kept, split.output_lost) == (0, 100)


def test_every_part_has_its_expression() -> None:
    assert list(SPLIT_SQL) == [field.name for field in fields(Split)]


@given(st.lists(rows(), max_size=4))
def test_splits_add_up(calls: list[Row]) -> None:
    parts = splits(*calls) if calls else []
    *_, whole = accumulate(parts, initial=Split())
    assert sum(astuple(whole)) == sum(row.whole_input + row.output for row in calls)
