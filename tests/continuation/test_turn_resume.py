"""A loop rebuilt from its saved calls does what the first would have done, wherever it died."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from runner.continuation.document import fold
from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import CannotContinue, Finished, PastCall, Send
from runner.jobs.call import CallOutcome, Usage, Verdict
from runner.jobs.spec import ContinuationSpec, OnUnverifiedSeam, Until
from runner.jobs.states import Finish
from tests.continuation.strict_api import job
from tests.continuation.test_never_silently_wrong import TRAITS, true_document
from tests.continuation.turn_model import ANCHOR, DECIDABLE, HOSTILE, UNDECIDABLE

END = " Here it ends. </s>"


def reply(random: Random, document: str, body) -> str:
    """To any request: the right one, one of the wrong ones, or the whole document."""
    messages = body["messages"]
    if len(messages) == 1:
        return document
    given = "".join(block["text"] for block in messages[-2]["content"])
    found = ANCHOR.search(messages[-1]["content"][-1]["text"])
    assert found
    if not document.startswith(given):
        return found[1] + " and so on." + END
    behaviour = random.choice((*DECIDABLE, *UNDECIDABLE, *HOSTILE))
    return behaviour(document, given, found[1])


def shown(step):
    if isinstance(step, Send):
        plan = step.plan
        return step.number, step.max_tokens, plan.strategy, plan.resume_at, plan.messages
    return step


@pytest.mark.parametrize("seed", range(300))
def test_resuming_at_any_point_does_the_same(seed):
    random = Random(seed)
    document = true_document(random) + END * random.randrange(2)
    until = random.choice((None, Until(contains="</s>")))
    policy = random.choice(tuple(OnUnverifiedSeam))
    spec = job(
        max_tokens=600,
        until=until,
        continuation=ContinuationSpec(max_calls=30, on_unverified_seam=policy),
    )
    loop, past, blocks = ContinuationLoop(spec, TRAITS), [], ()
    while True:
        step = loop.next_step()
        rebuilt = ContinuationLoop(spec, TRAITS, past)
        assert shown(rebuilt.next_step()) == shown(step)
        assert fold((call.resume_at, call.text) for call in past) == loop.document.text
        if not isinstance(step, Send):
            break
        if random.random() < 0.3:
            loop, step = rebuilt, rebuilt.next_step()  # the process died between two calls
        assert isinstance(step, Send)
        blocks = check_blocks(step, blocks)
        past.append(one_call(random, loop, step, document))
        if past[-1].outcome is None:
            loop = ContinuationLoop(spec, TRAITS, past)
    assert isinstance(step, Finished | CannotContinue)


def one_call(random, loop, step, document):
    """Makes one call, which may break, or die with its process, at any place."""
    loop.begin(step)
    text = reply(random, document, loop.request(step))
    size = random.randint(20, 900)
    outcome = CallOutcome("max_tokens" if size < len(text) else "end_turn")
    fate = random.random()
    if fate < 0.2:
        size, outcome = random.randrange(size), CallOutcome(None, error="dropped")
    text, saved = text[:size], ""
    for at in range(0, len(text), 50):
        saved += loop.feed(text[at : at + 50])
        if loop.closed is not None:
            outcome = CallOutcome(None, error="closed")
            break
    if fate < 0.1:
        return PastCall(step.plan.resume_at, saved, None, verdict=loop.verdict if saved else None)
    outcome = replace(outcome, usage=Usage(output_tokens=len(text) // 4))
    saved += loop.end(outcome)
    rejected = loop.rejected is not None
    return PastCall(step.plan.resume_at, saved, outcome, rejected, loop.verdict)


def check_blocks(step, before):
    """The blocks of one request are the beginning of the next one's, but for the last one's end:
    prompt caching finds only what stays the same."""
    if len(step.plan.messages) < 3:
        return ()
    blocks = [block["text"] for block in step.plan.messages[-2]["content"]]
    for old, new in list(zip(before, blocks, strict=False))[:-1]:
        assert old == new
    return tuple(blocks)


SENTENCES = [
    f"Sentence {n} says that {n * n} is the square of it, and no more. " for n in range(60)
]


def continued(loop, *replies, reason="max_tokens"):
    """Calls that end so; the verdicts, `rejected` among them, and the steps."""
    verdicts, steps = [], []
    for text in replies:
        step = loop.next_step()
        assert isinstance(step, Send)
        steps.append(step)
        loop.begin(step)
        loop.feed(text)
        loop.end(CallOutcome(reason))
        verdicts.append("rejected" if loop.rejected is not None else loop.verdict)
    return verdicts, steps


def test_after_two_unverified_seams_in_a_row_no_more_are_retried():
    loop = ContinuationLoop(job(max_tokens=600), TRAITS)
    strange = ["".join(SENTENCES[n * 8 + 8 : n * 8 + 16]) for n in range(4)]
    verdicts, _ = continued(
        loop,
        "".join(SENTENCES[:8]),
        *[strange[0]] * 3,
        *[strange[1]] * 3,
        strange[2],
        strange[3],
    )
    flagged = Verdict.UNVERIFIED
    again = ["rejected", "rejected", flagged]
    assert verdicts == [None, *again, *again, flagged, flagged]


def test_tries_that_bring_nothing_do_not_wear_the_document_away():
    """Nor do they lose what stood behind the resume point, or change what is asked."""
    loop = ContinuationLoop(job(max_tokens=600), TRAITS)
    continued(loop, "".join(SENTENCES[:8]) + "Then it we")
    first = loop.next_step()
    assert isinstance(first, Send)
    for _ in range(3):
        step = loop.next_step()
        assert isinstance(step, Send)
        assert shown(step)[3:] == shown(first)[3:]
        loop.begin(step)
        loop.end(CallOutcome(None, error="dropped"))
    last = loop.next_step()
    assert isinstance(last, Send)
    loop.begin(last)
    anchor = ANCHOR.search(last.plan.messages[-1]["content"][0]["text"])
    assert anchor
    loop.feed(anchor[1] + "\n\nwent home, and that was the end of all.")
    loop.end(CallOutcome("end_turn"))
    # The white space at the seam is the document's own, since the reply goes on with its half word.
    assert loop.document.text.endswith("Then it went home, and that was the end of all.")
    assert loop.next_step() == Finished(Finish.END_TURN)


WRONG = {
    "a word made longer": "{anchor}s and more of it came after that.",
    "a comment with the anchor": 'Your answer ended with "{anchor}". Shall I go on from there?',
    "a sentence that only looks like an opening": "Right, said the old king. {anchor} Then he left.",
    "a polite restart": "Sure! Here is the whole answer again:\n\n{whole}",
}


@pytest.mark.parametrize("form", WRONG.values(), ids=WRONG)
def test_replies_that_only_look_right_are_rejected(form):
    loop = ContinuationLoop(job(max_tokens=600), TRAITS)
    whole = "".join(SENTENCES[:8])
    continued(loop, whole.rstrip().rstrip(".") + " ")
    step = loop.next_step()
    assert isinstance(step, Send)
    anchor = ANCHOR.search(step.plan.messages[-1]["content"][0]["text"])
    assert anchor
    verdicts, _ = continued(loop, form.format(anchor=anchor[1], whole=whole), reason="end_turn")
    assert verdicts == ["rejected"]
