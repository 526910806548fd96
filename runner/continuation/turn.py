"""The `turn` strategy: the document so far as an assistant turn, then a user turn asks to go on.

For models that take no prefill (Claude 4.6 and later). Source: Messages API documentation,
"Handling stop reasons", which asks by a user turn; that is a wish and no guarantee, so the reply
is asked to repeat the document's last words first, and `TurnSplice` looks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.continuation import anchor
from runner.continuation.document import GrowingDocument
from runner.continuation.steps import Plan
from runner.continuation.text import clean_end
from runner.continuation.turn_splice import RESTART, TurnSplice
from runner.jobs.call import Strategy
from runner.jobs.spec import JobSpec
from runner.jobs.traits import ModelTraits

_REQUEST = """\
Your answer above was cut off before its end. Go on with it from exactly where it stops, in the \
same form, as if there had been no interruption.

Begin your reply by repeating, character for character, the last words of your answer, which stand \
between the last_words tags below. Then go straight on with what follows them. Write no \
introduction and no comment, do not begin again, and do not write the tags.

<last_words>{anchor}</last_words>"""


def resume_point(document: GrowingDocument, spec: JobSpec) -> int:
    """Where the next call's text attaches: behind the last whole word."""
    tail = document.tail(anchor.RECENT)
    end = anchor.word_end(tail)
    return len(document) - len(tail) + clean_end(tail[:end], spec.stop_sequences)


def plan(
    spec: JobSpec, traits: ModelTraits, document: GrowingDocument, *, accept_unverified: bool
) -> Plan:
    """The next call, which goes on behind the document's last whole word."""
    resume_at = resume_point(document, spec)
    blocks = document.blocks(resume_at)
    before = document.tail(len(document) - resume_at + anchor.RECENT)
    gap = before[len(before) - (len(document) - resume_at) :] if resume_at < len(document) else ""
    before = before[: len(before) - len(gap)]
    last_words = anchor.choose(before)
    return Plan(
        strategy=Strategy.TURN,
        resume_at=resume_at,
        messages=(
            *spec.messages,
            _turn("assistant", ("".join(blocks),) if traits.one_block else blocks),
            _turn("user", (_REQUEST.format(anchor=last_words.text),)),
        ),
        splice=TurnSplice(
            before,
            last_words,
            beginning="".join(blocks)[: 4 * RESTART],
            glue=gap[: len(gap) - len(gap.lstrip())] or " ",
            accept_unverified=accept_unverified,
        ),
    )


def _turn(role: str, texts: tuple[str, ...]) -> Mapping[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}
