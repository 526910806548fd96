"""The Messages API as far as the loop can see it, in memory: strict about what it is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import CannotContinue, Finished, Send
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.spec import JobSpec
from runner.jobs.traits import ModelTraits

TRAITS = ModelTraits(prefill=True, max_output_tokens=64_000, context_window=200_000)
PROMPT = ({"role": "user", "content": "Write."},)


class RequestRefused(AssertionError):
    """The real API would answer this request with a 400."""


@dataclass
class StrictApi:
    """One true document; every answer goes on at the very character where the prefill ends.

    Args:
        size: characters of the n-th answer (n from 0), given its max_tokens.
        tear: cut answers end in a torn character, as byte-level tokenizers do.
    """

    document: str
    size: Callable[[int, int], int]
    stop_sequences: tuple[str, ...] = ()
    tear: bool = False
    requests: list[Mapping[str, Any]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)  # offsets at which answers began

    @property
    def endless(self) -> str:
        """What one call without any cut would have given."""
        return self._until_stop(0)[0]

    def answer(self, body: Mapping[str, Any]) -> tuple[str, CallOutcome]:
        given = self._checked_prefill(body)
        if not self.document.startswith(given):
            raise RequestRefused(f"not a beginning of the document: {given[-40:]!r}")
        text, stop = self._until_stop(len(given))
        rest = text[len(given) :]
        # A cut may fall inside a stop sequence: then its beginning is part of the answer.
        whole = len(rest) + len(stop or "")
        size = self.size(len(self.requests), body["max_tokens"])
        self.requests.append(body)
        self.sent.append(len(given))
        usage = Usage(output_tokens=min(size, whole))
        if size < whole:
            torn = "\N{REPLACEMENT CHARACTER}" if self.tear else ""
            cut = self.document[len(given) : len(given) + size]
            return cut + torn, CallOutcome("max_tokens", usage=usage)
        if stop is not None:
            return rest, CallOutcome("stop_sequence", stop_sequence=stop, usage=usage)
        return rest, CallOutcome("end_turn", usage=usage)

    def _until_stop(self, start: int) -> tuple[str, str | None]:
        """The document up to the first stop sequence that is written after `start`."""
        found = [
            (at, sequence)
            for sequence in self.stop_sequences
            if (at := self.document.find(sequence, start)) >= 0
        ]
        # The one that is complete first stops the answer.
        at, stop = min(
            found, key=lambda f: (f[0] + len(f[1]), f[0]), default=(len(self.document), None)
        )
        return self.document[:at], stop

    def _checked_prefill(self, body: Mapping[str, Any]) -> str:
        if body["max_tokens"] < 1:
            raise RequestRefused("max_tokens below 1")
        last = body["messages"][-1]
        if last["role"] == "user":
            return ""
        texts = [block["text"] for block in last["content"]]
        for text in texts:
            if not text.strip():
                raise RequestRefused("text content blocks must contain non-whitespace text")
            text.encode()  # a lone surrogate cannot be sent
        if texts[-1] != texts[-1].rstrip():
            raise RequestRefused("final assistant content cannot end with trailing whitespace")
        return "".join(texts)


def job(**settings: Any) -> JobSpec:
    return JobSpec(id="j", model="claude-haiku-4-5", messages=PROMPT, **settings)


def units(text: str) -> list[str]:
    """Text as JSON may carry it: astral characters as two lone surrogates."""
    raw = text.encode("utf-16-le", "surrogatepass")
    return [raw[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(raw), 2)]


def run(
    loop: ContinuationLoop, api: StrictApi, pieces: Callable[[str], list[str]] = lambda text: [text]
) -> Finished | CannotContinue:
    """Run a job to its end."""
    while isinstance(step := loop.next_step(), Send):
        loop.begin(step)
        text, outcome = api.answer(loop.request(step))
        for piece in pieces(text):
            loop.feed(piece)
        loop.end(outcome)
    return step
