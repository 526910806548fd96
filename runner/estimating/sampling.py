"""Asks the API how many input tokens prompts have, which costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.estimating.evidence import prompt_characters
from runner.estimating.survey import Kind
from runner.estimating.tokenizer import PAGE
from runner.jobs.spec import JobSpec
from runner.jobs.traits import ModelTraits
from runner.messages.client import MessagesClient

AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Counts:
    """What the API counted.

    Args:
        prompts: by kind of job, characters and tokens of each prompt that was counted.
        pages: by model, tokens of `tokenizer.PAGE`.
        asked: prompts it was asked to count.
    """

    prompts: Mapping[Kind, Sequence[tuple[int, int]]]
    pages: Mapping[str, int]
    asked: int

    def of_model(self, model: str) -> list[tuple[int, int]]:
        """Characters and tokens of the model's prompts that were counted."""
        return [one for kind, some in self.prompts.items() if kind.model == model for one in some]

    @property
    def counted(self) -> int:
        """Prompts that it counted."""
        return sum(map(len, self.prompts.values()))


NOTHING_COUNTED: Final = Counts({}, {}, 0)


async def count(
    client: MessagesClient,
    sample: Collection[tuple[Kind, JobSpec]],
    traits: Callable[[str], ModelTraits],
) -> Counts:
    """Have the prompts of a sample counted, and a page of our own by each of its models.

    What the endpoint cannot count is left out: many endpoints cannot at all.
    """
    prompts: dict[Kind, list[tuple[int, int]]] = {}
    pages: dict[str, int] = {}
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def count_prompt(kind: Kind, spec: JobSpec) -> None:
        loop = ContinuationLoop(spec, traits(spec.model))
        step = loop.next_step()
        if not isinstance(step, Send):
            return
        async with limiter:
            tokens = await client.count_tokens(loop.request(step))
        if tokens:
            prompts.setdefault(kind, []).append((prompt_characters(spec), tokens))

    async def count_page(model: str) -> None:
        async with limiter:
            tokens = await client.count_tokens(
                {"model": model, "messages": [{"role": "user", "content": PAGE}]}
            )
        if tokens:
            pages[model] = tokens

    async with anyio.create_task_group() as tasks:
        for model in {spec.model for _, spec in sample}:
            tasks.start_soon(count_page, model)
    # Who could not count the page is not waited for once more for each prompt.
    async with anyio.create_task_group() as tasks:
        for kind, spec in sample:
            if spec.model in pages:
                tasks.start_soon(count_prompt, kind, spec)
    return Counts(prompts, pages, len(sample))
