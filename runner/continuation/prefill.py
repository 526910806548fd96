"""The `prefill` strategy: the document so far is the beginning of the assistant's answer.

The answer holds only the continuation and goes on at the very character where the prefill ends
(Source: Messages API reference, `messages`). So the seam is exact by protocol, if the document is
cut where the prefill was: white space that the API refuses at a prefill's end leaves the document
by the resume point, and the model writes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.continuation.document import GrowingDocument
from runner.continuation.steps import Plan
from runner.continuation.text import Intake
from runner.jobs.call import Strategy, Verdict
from runner.jobs.spec import JobSpec
from runner.jobs.traits import ModelTraits


def resume_point(document: GrowingDocument, spec: JobSpec) -> int:
    """Where the next call's text attaches: at the document's clean end."""
    return document.clean_end(spec.stop_sequences)


def plan(spec: JobSpec, traits: ModelTraits, document: GrowingDocument, resume_at: int) -> Plan:
    """The next call, which goes on at the very character where the document is cut."""
    return Plan(
        strategy=Strategy.PREFILL,
        resume_at=resume_at,
        messages=(*spec.messages, _assistant_turn(document.blocks(resume_at), traits)),
        splice=Intake(Verdict.EXACT),
    )


def _assistant_turn(blocks: tuple[str, ...], traits: ModelTraits) -> Mapping[str, Any]:
    texts = ("".join(blocks),) if traits.one_block else blocks
    return {"role": "assistant", "content": [{"type": "text", "text": text} for text in texts]}
