"""The picture of a run, drawn on consoles of all sizes."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from runner.cli.display import Snapshot, draw, line, snapshot, tail_cells
from runner.cli.meter import Meter, duration
from runner.jobs.call import Usage
from runner.jobs.spec import BatchLimits
from runner.jobs.states import Finish, State
from runner.store.records import BatchRow, PauseCause
from runner.workers.progress import LiveJob, Progress
from tests.cli.filled import HOSTILE

COUNTS = {
    (State.COMPLETED, Finish.END_TURN): 35,
    (State.COMPLETED, Finish.MAX_CALLS): 2,
    (State.DISCARDED, None): 1,
    (State.EXECUTING, None): 20,
    (State.AVAILABLE, None): 60,
    (State.RETRYABLE, None): 3,
}


def batch(
    name: str = "animals", paused: PauseCause | None = None, reason: str | None = None
) -> BatchRow:
    return BatchRow(
        key=1,
        name=name,
        limits=BatchLimits(max_cost_nano_usd=25_000_000_000),
        paused=paused,
        pause_reason=reason,
        created_ms=0,
        counts=COUNTS,
        calls=240,
        usage=Usage(100_000, 10_000, 10_000, 340_000),
        cost_nano_usd=12_340_000_000,
    )


def progress(documents: int, words: str = "and then the heron went away") -> Progress:
    live = {key: LiveJob(f"story-{key}", "animals", 3, 12_340, words) for key in range(documents)}
    return Progress(live=live, output_characters=8000, calls=12)


def shot(documents: int = 2, words: str = "and then the heron went away") -> Snapshot:
    meter = Meter(0.0, 20, 338_000)
    meter.sample(20.0, 2000)
    meter.sample(30.0, 6000)
    return snapshot([batch()], progress(documents, words), meter)


def drawn(picture: Snapshot, width: int = 100, height: int = 30) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    console.print(draw(picture, width, height))
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()


def test_the_picture() -> None:
    lines = drawn(shot())
    assert lines[0].split() == ["runner", "animals", "0:00:30"]
    assert "38 of 121 documents final" in lines[1]
    assert lines[2].split("  ") == [
        *("done 35", "running 20", "waiting 63", "failed 1", "cut 2"),
        "cost $12.34 of $25.00",
    ]
    # 18 documents in 30 seconds, 83 to go; 4,000 characters in 10 seconds
    assert "calls 242" in lines[3]
    assert "tokens in 120,000, out 340,000" in lines[3]
    assert "100 tokens/s  left 2 min" in lines[3]
    assert re.fullmatch(
        r"story-0  call 3 +12,340 characters  and then the heron went away *", lines[4]
    )
    assert len(lines) == 6


def test_the_line_says_the_same() -> None:
    text = line(shot())
    assert text == (
        "0:00:30 done 35  running 20  waiting 63  failed 1  cut 2  cost $12.34 of $25.00; "
        "calls 242  tokens in 120,000, out 340,000  100 tokens/s  left 2 min"
    )


def test_what_is_not_known_is_not_guessed() -> None:
    meter = Meter(0.0, 38, 0)
    meter.sample(0.5, 100)
    picture = snapshot([batch()], progress(1), meter)
    assert picture.tokens_per_second is None
    assert picture.seconds_left is None
    assert "– tokens/s  left –" in drawn(picture)[3]


def test_a_pause_and_a_stop_are_said() -> None:
    meter = Meter(0.0, 0, 0)
    working = progress(0)
    working.stopping = True
    paused = batch(paused=PauseCause.CREDENTIALS, reason=HOSTILE)
    lines = drawn(snapshot([paused], working, meter))
    assert any("animals is paused (credentials): " in text for text in lines)
    assert any("stopping" in text for text in lines)


@pytest.mark.parametrize(
    "words", [HOSTILE, "日本語のテキスト" * 40, "👩‍🚀🏳️‍🌈👍🏽" * 30, "e\u0301" * 300, "[red]x[/red]"]
)
@pytest.mark.parametrize(
    ("width", "height"), [(200, 50), (80, 24), (40, 10), (20, 6), (10, 3), (1, 1)]
)
def test_it_fits_every_screen(words: str, width: int, height: int) -> None:
    lines = drawn(shot(30, words), width, height)
    assert len(lines) < max(2, height)
    assert all(cell_len(text) <= width for text in lines)
    assert not any(re.search(r"[\x00-\x1f\x7f-\x9f‮]", text) for text in lines)


def test_more_documents_than_lines() -> None:
    lines = drawn(shot(30), 100, 12)
    assert lines[-1].strip() == "… and 24 more"
    assert len(lines) == 11


def test_markup_in_model_text_is_text() -> None:
    assert "[bold red]x[/]" in drawn(shot(1, "[bold red]x[/]"))[4]


def test_ids_name_their_batch_where_there_are_several() -> None:
    meter = Meter(0.0, 0, 0)
    picture = snapshot([batch("animals"), batch("plants")], progress(1), meter)
    assert picture.writing[0].name == "animals/story-0"
    assert picture.title == "animals, plants"
    assert picture.total == 242


@given(st.text(max_size=300), st.integers(1, 60))
def test_the_tail_fits(text: str, cells: int) -> None:
    assert cell_len(tail_cells(text, cells)) <= cells


def test_the_tail_is_the_end() -> None:
    assert tail_cells("abcdef", 4) == "…def"
    assert tail_cells("abcdef", 6) == "abcdef"
    assert tail_cells("日本語", 5) == "…本語"
    assert tail_cells("日本語", 4) == "…語"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0, "0 s"),
        (59.4, "59 s"),
        (59.9, "1 min"),
        (90, "2 min"),
        (3599, "1 h 0 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_the_rate_is_of_the_last_seconds() -> None:
    meter = Meter(0.0, 0, 0)
    for second in range(1, 101):
        meter.sample(float(second), 4000 if second > 50 else 0)
    assert meter.tokens_per_second() == 0.0
    for second in range(101, 120):
        meter.sample(float(second), 4000 + (second - 100) * 400)
    assert meter.tokens_per_second() == pytest.approx(100)


def test_time_left_waits_for_a_few_documents() -> None:
    meter = Meter(0.0, 10, 0)
    meter.sample(30.0, 1)
    assert meter.seconds_left(12, 50) is None
    assert meter.seconds_left(13, 50) == pytest.approx(500)
    assert meter.seconds_left(13, 0) == 0.0
