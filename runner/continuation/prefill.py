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
from runner.continuation.steps import CannotContinue, Plan
from runner.continuation.text import Intake
from runner.jobs.call import Strategy, Verdict
from runner.jobs.spec import JobSpec
from runner.jobs.traits import ModelTraits


def plan(spec: JobSpec, traits: ModelTraits, document: GrowingDocument) -> Plan | CannotContinue:
    """The next call, which goes on from the document's clean end."""
    resume_at = document.clean_end(spec.stop_sequences)
    if reason := _refusal(spec, traits):
        return CannotContinue(reason)
    return Plan(
        strategy=Strategy.PREFILL,
        resume_at=resume_at,
        messages=(*spec.messages, _assistant_turn(document.blocks(resume_at), traits)),
        splice=Intake(),
        verdict=Verdict.EXACT,
    )


def _refusal(spec: JobSpec, traits: ModelTraits) -> str | None:
    """Why this job cannot be continued by prefill, or None if it can."""
    if not traits.prefill:
        return (
            f"{spec.model} does not take a prefill, and this version knows no other way to go on; "
            "use a model that takes one (claude-haiku-4-5), or a max_tokens that the whole "
            "document fits into"
        )
    if spec.thinking is not None and spec.thinking.get("type") != "disabled":
        return (
            "the API takes no prefill while thinking is enabled; set thinking to "
            "{type: disabled}, or a max_tokens that the whole document fits into"
        )
    return None


def _assistant_turn(blocks: tuple[str, ...], traits: ModelTraits) -> Mapping[str, Any]:
    texts = ("".join(blocks),) if traits.one_block else blocks
    return {"role": "assistant", "content": [{"type": "text", "text": text} for text in texts]}
