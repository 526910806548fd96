"""Promise 5 in numbers: of 10,000 documents none is whole, unflagged and wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Finished, Send
from runner.jobs.call import Strategy, Verdict
from runner.jobs.spec import ContinuationSpec, OnUnverifiedSeam
from runner.jobs.traits import ModelTraits
from tests.continuation.strict_api import job
from tests.continuation.turn_model import DECIDABLE, HOSTILE, UNDECIDABLE, TurnModel

TRAITS = ModelTraits(prefill=False, max_output_tokens=128_000, context_window=1_000_000)
CASES = 10_000
WORDS = [
    "right",
    "sure",
    "here",
    "the",
    "old",
    "king",
    "sang",
    "of",
    "rivers",
    "and",
    "his",
    "cat",
    "sat",
    "on",
    "the",
    "wall",
    "while",
    "it",
    "rained",
    "again",
    "so",
    "they",
    "continued",
    "to",
    "the",
    "rest",
    "of",
    "an",
    "evening,",
    "0",
    "0.5",
]
FOREIGN = ["naïve", "café", "漢字かな", "👩\u200d👩\u200d👧"]
CHORUSES = (
    "And so we sing the song again, again, again.\n",
    "| 0 | 0 | 0 | 0 | 0 |\n",
    "Sure, here we go on and on.\n",
    "Right, he said. ",
    "I love you so very much, my darling. ",
    "</item>\n<item>\n",
    "```\ncode()\n```\n",
)


def true_document(random: Random) -> str:
    """Prose, verse and tables in which much is said twice, now and then twice in a row."""
    parts: list[str] = []
    words = WORDS + FOREIGN * (random.random() < 0.2)
    choruses = random.sample(CHORUSES, 2)
    for _ in range(random.randint(10, 40)):
        if random.random() < 0.3:
            parts.append(random.choice(choruses) * random.choice((1, 1, 1, 2, 3)))
            continue
        sentence = random.choices(words, k=random.randint(3, 12))
        if random.random() < 0.8:
            sentence.insert(random.randrange(len(sentence)), f"n{random.randrange(9999)}")
        end = random.choice((". ", ".\n", ".\n\n", "? ", ', "so he said." ', "\n- "))
        parts.append(" ".join(sentence).capitalize() + end)
    return "".join(parts).strip() + f" The end {random.randrange(999)}."


def outcome_of(seed: int) -> str:
    """Runs one case to its end, or to the first seam that is flagged."""
    random = Random(seed)
    document = true_document(random)
    behaviours = random.choices((*DECIDABLE * 2, *UNDECIDABLE, *HOSTILE), k=4)
    base = [random.randint(300, 900) for _ in range(4)]
    api = TurnModel(
        document,
        lambda n, max_tokens: base[n % 4] * max(1, max_tokens // 600),
        lambda n: behaviours[n % 4],
    )
    policy = random.choice(tuple(OnUnverifiedSeam))
    bounds = ContinuationSpec(max_calls=40, on_unverified_seam=policy)
    loop = ContinuationLoop(job(max_tokens=600, continuation=bounds), TRAITS)
    while isinstance(step := loop.next_step(), Send):
        assert step.plan.strategy in (None, Strategy.TURN)
        loop.begin(step)
        text, outcome = api.answer(loop.request(step))
        at = 0
        while at < len(text) and loop.rejected is None:
            size = random.choice((7, 40, 400))
            loop.feed(text[at : at + size])
            at += size
        loop.end(outcome)
        if loop.verdict is Verdict.UNVERIFIED:
            return "flagged"
        if not document.startswith(loop.document.text):
            return "SILENTLY WRONG"
    if isinstance(step, Finished) and step.finish.complete:
        return "true" if loop.document.text == document else "SILENTLY WRONG"
    return "cut"


@pytest.mark.parametrize("tenth", range(10))
def test_no_document_is_silently_wrong(tenth):
    seeds = range(tenth, CASES, 10)
    outcomes = Counter(map(outcome_of, seeds))
    wrong = [seed for seed in seeds if outcomes["SILENTLY WRONG"] and outcome_of(seed).isupper()]
    assert outcomes["SILENTLY WRONG"] == 0, f"seeds {wrong[:10]}"
    # The figures mean something only if most cases are not given up.
    assert outcomes["true"] > len(seeds) // 3
    assert outcomes["flagged"] > 0
    assert outcomes["cut"] > 0
