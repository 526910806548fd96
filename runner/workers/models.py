"""What this process knows of models: the shipped table, what the API tells, what it has shown."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from runner.jobs.traits import ModelTraits, PrefillAnswer
from runner.messages import retirement
from runner.messages.client import MessagesClient
from runner.store.store import Store


class Models:
    """Knows each model from what the API answers, and keeps it for this endpoint in the store.

    No field of the API tells whether a model goes on from a prefill. So the first continuation of
    a model nobody has seen yet goes alone, holding `trial`, while others of the same model wait
    for what comes of it: a refusal is met once, and not once a job.

    Args:
        notice: told what the user should know, in words.
    """

    def __init__(self, store: Store, client: MessagesClient, notice: Callable[[str], None]) -> None:
        self._store = store
        self._client = client
        self._notice = notice
        self._looked_up: set[str] = set()
        self._looking_up: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._trials: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._prefill: dict[str, PrefillAnswer] = {}

    async def traits(self, model: str) -> ModelTraits:
        """What `model` can take, by all that is known now; the API is asked once a process."""
        async with self._looking_up[model]:
            if model not in self._looked_up:
                info = await self._client.model_info(model)
                today = datetime.now(UTC).date()
                if info and (words := retirement.warning(model, today, info)):
                    self._notice(words)
                await self.recall(model)
                self._looked_up.add(model)
        traits = self._client.traits(model)
        answer = self._prefill.get(model)
        if answer is None:
            return traits
        taken = answer is PrefillAnswer.TAKEN
        # Who went on rightly once does not begin afresh; a document that truly repeats its
        # beginning would be taken for it.
        return replace(traits, prefill=taken, may_restart=traits.may_restart and not taken)

    async def recall(self, model: str) -> PrefillAnswer | None:
        """How the model answered a prefill; None: nobody has seen it yet. Another process may have,
        so the store is asked as long as this one has not."""
        if model not in self._prefill:
            answer = await self._store.remembered(self._client.base_url, model)
            if answer is not None:
                self._prefill[model] = answer
        return self._prefill.get(model)

    def answer(self, model: str) -> PrefillAnswer | None:
        """How the model answered a prefill, as far as this process knows."""
        return self._prefill.get(model)

    def trial(self, model: str) -> asyncio.Lock:
        """To be held by whoever sends the first prefill, until something is learned or it fails."""
        return self._trials[model]

    async def learn(self, model: str, answer: PrefillAnswer) -> bool:
        """Remember how the model answered a prefill; whether that is news."""
        if self._prefill.get(model) is answer:
            return False
        self._prefill[model] = answer  # at once: others of this process wait for it
        await self._store.remember(self._client.base_url, model, answer)
        return True
