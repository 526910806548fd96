"""Documents that go in circles are stopped; real texts that repeat themselves are not."""

from __future__ import annotations

import email
import json
from pathlib import Path
from random import Random

import pytest

from runner.continuation import circles
from runner.continuation.document import GrowingDocument
from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, PastCall, Send
from runner.jobs.call import CallOutcome
from runner.jobs.states import Finish
from tests.continuation.strict_api import TRAITS, job

LIBRARY = Path(json.__file__).parents[1]
PROSE = "".join(
    f"Sentence {n} of it says that {n * n} came and {n * 7919} went. " for n in range(200)
)
PARAGRAPH = "The otter swam to the other bank, looked about, and thought of its breakfast. "


def grown(text: str) -> GrowingDocument:
    document = GrowingDocument()
    document.add(text)
    return document


def alarmed(text: str) -> bool:
    """Whether any look at the growing text takes it for a circle."""
    ends = range(circles.LEAST, len(text) + circles.LOOK_EVERY, circles.LOOK_EVERY)
    return any(circles.find(grown(text[:end])) for end in ends)


def nearly(random: Random, words: list[str]) -> str:
    """A round in which now and then a word is another one."""
    changed = list(words)
    if random.random() < 0.3:
        changed[random.randrange(len(changed))] = random.choice(("well", "then", "so"))
    return " ".join(changed) + "\n"


ROUND = (PARAGRAPH * 3).split()
MADE = {
    "a word": "la " * 6_000,
    "a character": "0" * 20_000,
    "a line": "And so we sing the song again.\n" * 800,
    "a paragraph": (PARAGRAPH + "It was not hungry.\n\n") * 200,
    "a chapter": PROSE[:9_000] * 5,
    "nearly a line": "".join(nearly(Random(n), ROUND) for n in range(200)),
    "white space": "word" + "\n \n" * 9_000,
    "another script": "川の向こうに猫がいた。" * 2_000,
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_made_circles_are_caught(made):
    assert alarmed(PROSE + made)


@pytest.mark.parametrize("made", list(MADE.values())[:5], ids=list(MADE)[:5])
def test_the_place_is_told(made):
    circle = circles.find(grown(PROSE + made))
    assert circle is not None
    assert abs(circle.start - max(len(PROSE), len(PROSE + made) - circles.LONGEST)) < 100
    assert f"{circle.start:,}" in str(circle)


REAL = {
    "verse with a refrain": "".join(
        f"Verse {n}: the {n * 7919} of May,\nand so we sing the song again,\nhey ho, again.\n\n"
        for n in range(400)
    ),
    "a table": "".join(f"| {n} | {n % 3} | 0 | 0 | 0.0 | yes |\n" for n in range(2_000)),
    "a log": "".join(
        f"2026-11-{n % 28 + 1:02} 03:{n % 60:02}:{n * 7 % 60:02} INFO worker-{n % 4}: job {n} done\n"
        for n in range(1_000)
    ),
    "ten thousand zeros": PROSE + "0, " * 3_300 + PROSE,
    "JSON": json.dumps([{"id": n, "name": None, "tags": [], "size": n * n} for n in range(1_000)]),
}


@pytest.mark.parametrize("real", REAL.values(), ids=REAL)
def test_monotonous_texts_pass(real):
    assert not alarmed(real)


def test_real_texts_pass():
    texts = [*LIBRARY.glob("*.py"), *Path(email.__file__).parent.glob("*.py")]
    texts += Path("/usr/share/common-licenses").glob("*")
    large = [path for path in texts if path.stat().st_size > circles.LEAST]
    assert len(large) > 50
    wrong = [path for path in sorted(large)[::3] if alarmed(path.read_text()[:100_000])]
    assert wrong == []


def test_a_stream_in_circles_is_closed_and_the_document_stalled():
    loop = ContinuationLoop(job(max_tokens=60_000), TRAITS)
    step = loop.next_step()
    assert isinstance(step, Send)
    loop.begin(step)
    saved, given = "", 0
    while loop.closed is None:
        piece = PROSE if not given else PARAGRAPH
        given += len(piece)
        saved += loop.feed(piece)
        assert given < len(PROSE) + circles.LEAST + 2 * circles.LOOK_EVERY
    loop.end(CallOutcome(None, error="closed"))
    end = loop.next_step()
    assert isinstance(end, Finished)
    assert end.finish is Finish.STALLED
    assert "in circles from character" in (end.detail or "")
    assert loop.document.text == saved, "what was saved stays, and the place is told"
    again = ContinuationLoop(loop.spec, TRAITS, [PastCall(0, saved, CallOutcome(None))])
    assert again.next_step() == end


def test_a_circle_that_the_model_ended_is_its_own_affair():
    loop = ContinuationLoop(
        job(max_tokens=60_000), TRAITS, [PastCall(0, "la " * 6_000, CallOutcome("end_turn"))]
    )
    assert loop.next_step() == Finished(Finish.END_TURN)
