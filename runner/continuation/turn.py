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
from runner.jobs.spec import JobSpec, OnUnverifiedSeam
from runner.jobs.traits import ModelTraits

_CUT = """\
Your answer above was cut off before its end. Go on with it from exactly where it stops, in the \
same form, as if there had been no interruption.
"""

_NOT_FINISHED = """\
Your answer above is not finished yet: it {missing}. Go on with it from where it stops, in the same \
form, until it is. If nothing can be added in earnest, repeat the last words alone.
"""

_HOW = """
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
    spec: JobSpec,
    traits: ModelTraits,
    document: GrowingDocument,
    resume_at: int,
    gap: str,
    *,
    accept_unverified: bool,
) -> Plan:
    """The next call, which goes on behind the document's last whole word.

    Args:
        gap: what stood behind the resume point: white space, and maybe half a word.
        accept_unverified: let in a reply whose seam nobody can tell.
    """
    return _plan(spec, traits, document, resume_at, gap, _CUT, accept_unverified=accept_unverified)


def nudge(
    spec: JobSpec,
    traits: ModelTraits,
    document: GrowingDocument,
    resume_at: int,
    gap: str,
    *,
    missing: str,
) -> Plan:
    """The next call for a document that the model ended before the user's condition was met.

    The document stands as its author ended it, and a reply that does not take up its last words
    is more often a comment ("It is complete.") than a continuation: it is never let in.

    Args:
        gap: the white space that stood behind the resume point.
        missing: what the document lacks, to follow the word "it".
    """
    # Words that the user or the document supplies may hold braces.
    request = _NOT_FINISHED.replace("{missing}", missing)
    return _plan(spec, traits, document, resume_at, gap, request, accept_unverified=False)


def _plan(
    spec: JobSpec,
    traits: ModelTraits,
    document: GrowingDocument,
    resume_at: int,
    gap: str,
    request: str,
    *,
    accept_unverified: bool,
) -> Plan:
    blocks = document.blocks(resume_at)
    whole = "".join(blocks)
    last_words = anchor.choose(whole)
    ask = request + _HOW.replace("{anchor}", last_words.text)
    return Plan(
        strategy=Strategy.TURN,
        resume_at=resume_at,
        messages=(
            *spec.messages,
            _turn("assistant", (whole,) if traits.one_block else blocks),
            _turn("user", (ask,)),
        ),
        splice=TurnSplice(
            whole[-2 * anchor.RECENT :],
            last_words,
            beginning=whole[: 4 * RESTART],
            gap=gap,
            accept_unverified=accept_unverified,
            accept_ambiguous=spec.continuation.on_unverified_seam is OnUnverifiedSeam.FLAG,
        ),
    )


def _turn(role: str, texts: tuple[str, ...]) -> Mapping[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}
