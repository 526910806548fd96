"""Exact books: what was asked, what was written, what was written twice."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from runner.simulator.cache import InputUsage
from runner.simulator.documents import Document
from runner.simulator.tokens import tokens_between

_LOG_LENGTH = 200
_EXCERPT_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Divergence:
    """A continuation whose given text is not a beginning of its true document.

    Args:
        offset: the first character that differs.
        given, expected: what stands there in the request and in the document, shortened.
    """

    prompt: str
    offset: int
    given: str
    expected: str


@dataclass(frozen=True, slots=True)
class Restart:
    """A prompt asked from its start although `generated_tokens` of it had been written before."""

    prompt: str
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class Bill:
    """What one request for a message was billed, written when its answer ended.

    Args:
        request_id: as its `request-id` header said it.
        prompt: digest of the prompt.
        input_tokens: those that were neither written to nor read from the prompt cache.
        output_tokens: of a broken stream, what was generated.
        stop_reason: None where the stream broke or the client went.
        began_ms, ended_ms: when its answer began and ended, milliseconds since 1970.
    """

    request_id: str
    model: str
    prompt: str
    input_tokens: int
    cache_creation_5m_tokens: int
    cache_creation_1h_tokens: int
    cache_read_tokens: int
    output_tokens: int
    stop_reason: str | None
    began_ms: int
    ended_ms: int


@dataclass(frozen=True, slots=True)
class Impatience:
    """A request that came within the time for which a 429 had asked for patience.

    Args:
        rate_class: the class of models whose limit it was.
        since_429_s: seconds since that 429 was answered. A few thousandths may mean that it was
            on its way already.
        early_s: seconds that were left. Both are the clients' seconds.
    """

    rate_class: str
    since_429_s: float
    early_s: float


class Coverage:
    """Which characters of a document were written already, as sorted spans that do not touch."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts = array("L")
        self._ends = array("L")

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add a span; what of it was there already is returned."""
        starts, ends = self._starts, self._ends
        if not starts:
            starts.append(start)
            ends.append(end)
            return []
        if start == ends[-1]:  # by far the most frequent: the stream goes on
            ends[-1] = end
            return []
        first = bisect_left(ends, start)
        last = first
        overlaps = []
        low, high = start, end
        while last < len(starts) and starts[last] <= end:
            if max(start, starts[last]) < min(end, ends[last]):
                overlaps.append((max(start, starts[last]), min(end, ends[last])))
            low, high = min(low, starts[last]), max(high, ends[last])
            last += 1
        starts[first:last] = array("L", [low])
        ends[first:last] = array("L", [high])
        return overlaps

    @property
    def characters(self) -> int:
        """How many characters were written at least once."""
        return sum(self._ends) - sum(self._starts)


@dataclass(slots=True)
class PromptBooks:
    """The books of one prompt."""

    digest: str
    document_tokens: int
    document_characters: int
    requests: int = 0
    tokens_generated: int = 0
    tokens_generated_twice: int = 0
    anchor_tokens: int = 0
    restarts: int = 0
    divergences: int = 0
    coverage: Coverage = field(default_factory=Coverage)

    def as_dict(self) -> dict[str, Any]:
        """The books as JSON tells them."""
        names = [name for name in self.__slots__ if name != "coverage"]
        told = {name: getattr(self, name) for name in names}
        return told | {"characters_generated": self.coverage.characters}


@dataclass
class Books:
    """What a simulator has seen and done since its start or the last reset.

    Args:
        tokens_generated: tokens handed to the transport.
        tokens_generated_twice: those of them that an earlier moment had generated already for the
            same prompt.
        anchor_tokens: those of them that are no part of the document: the last words repeated on
            request, an opening, a comment, a circle.
        output_tokens_billed: what the answers' own usage came to; a broken stream is billed for
            what was generated.
        billed_requests: answers that ended and were billed; `bills` has the latest of them.
        impatient: requests that came before the `retry-after` of a 429 was over.
    """

    requests: int = 0
    requests_by_kind: Counter[str] = field(default_factory=Counter)
    requests_by_status: Counter[str] = field(default_factory=Counter)
    stop_reasons: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    streams_open: int = 0
    streams_open_most: int = 0
    disconnects: int = 0
    tokens_generated: int = 0
    tokens_generated_twice: int = 0
    anchor_tokens: int = 0
    restarts: int = 0
    divergences: int = 0
    input_tokens: int = 0
    cache_creation_5m_tokens: int = 0
    cache_creation_1h_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens_billed: int = 0
    billed_requests: int = 0
    impatient: int = 0
    bills: deque[Bill] = field(default_factory=deque)
    impatient_log: list[Impatience] = field(default_factory=list)
    divergence_log: list[Divergence] = field(default_factory=list)
    restart_log: list[Restart] = field(default_factory=list)
    prompts: dict[str, PromptBooks] = field(default_factory=dict)
    _waiting: list[tuple[Callable[[Books], bool], asyncio.Future[None]]] = field(
        default_factory=list, repr=False
    )

    async def wait_for(self, condition: Callable[[Books], bool]) -> None:
        """Wait until `condition(books)` holds; it is looked at after every entry."""
        if condition(self):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        await future

    def reset(self) -> None:
        """Begin anew; streams that are open now stay counted as open."""
        fresh = Books(
            streams_open=self.streams_open,
            bills=deque(maxlen=self.bills.maxlen),
            _waiting=self._waiting,
        )
        self.__dict__.update(fresh.__dict__)

    def as_dict(self, *, detail: bool = False) -> dict[str, Any]:
        """The books as `GET /books` tells them; with `detail`, each prompt's too."""
        told: dict[str, Any] = {
            name: value
            for name, value in self.__dict__.items()
            if isinstance(value, (int, Counter))
        }
        told["impatient_log"] = [asdict(entry) for entry in self.impatient_log]
        told["divergence_log"] = [asdict(entry) for entry in self.divergence_log]
        told["restart_log"] = [asdict(entry) for entry in self.restart_log]
        told["prompts_seen"] = len(self.prompts)
        if detail:
            told["prompts"] = [prompt.as_dict() for prompt in self.prompts.values()]
        return told

    def bills_from(self, number: int) -> dict[str, Any]:
        """The kept bills from the `number`-th ever written on, from 0, as `GET /books/bills` does.

        `next` is the number to ask from the next time; `lost` says how many of those asked for
        are kept no more.
        """
        first = self.billed_requests - len(self.bills)
        bills = islice(self.bills, max(0, number - first), None)
        return {
            "bills": [asdict(bill) for bill in bills],
            "next": self.billed_requests,
            "lost": max(0, first - number),
        }

    def asked_too_early(self, rate_class: str, since_429_s: float, early_s: float) -> None:
        """A request came within the time for which a 429 had asked for patience."""
        self.impatient += 1
        if len(self.impatient_log) < _LOG_LENGTH:
            self.impatient_log.append(Impatience(rate_class, since_429_s, early_s))
        self._changed()

    def asked(self, kind: str) -> None:
        """A request came."""
        self.requests += 1
        self.requests_by_kind[kind] += 1
        self._changed()

    def asked_how(self, *, stream: bool) -> None:
        """A request for a message turned out to be for a stream, or for one in one piece."""
        self.requests_by_kind["messages_stream" if stream else "messages_plain"] += 1

    def answered(self, status: int) -> None:
        """Its answer began."""
        self.requests_by_status[str(status)] += 1
        self._changed()

    def struck(self, fault: str) -> None:
        """A fault struck."""
        self.faults[fault] += 1
        self._changed()

    def begun(self, document: Document, prefill: str, usage: InputUsage) -> PromptBooks:
        """An answer is about to be written: bill its input, look for restart and divergence."""
        prompt = self.prompts.get(document.digest)
        if prompt is None:
            prompt = PromptBooks(document.digest, len(document.ends), len(document.text))
            self.prompts[document.digest] = prompt
        prompt.requests += 1
        self.input_tokens += usage.input_tokens
        self.cache_creation_5m_tokens += usage.creation_5m_tokens
        self.cache_creation_1h_tokens += usage.creation_1h_tokens
        self.cache_read_tokens += usage.read_tokens
        if not prefill and prompt.tokens_generated:
            prompt.restarts += 1
            self.restarts += 1
            if len(self.restart_log) < _LOG_LENGTH:
                known = prompt.tokens_generated - prompt.tokens_generated_twice
                self.restart_log.append(Restart(prompt.digest, known))
        if not document.text.startswith(prefill):
            prompt.divergences += 1
            self.divergences += 1
            if len(self.divergence_log) < _LOG_LENGTH:
                self.divergence_log.append(_divergence(document, prefill))
        self._changed()
        return prompt

    def generated(
        self,
        prompt: PromptBooks,
        document: Document,
        start: int,
        end: int,
        tokens: int,
        apart: int = 0,
    ) -> None:
        """So many tokens were handed to the transport: the document's characters start to end.

        Args:
            tokens: all of them.
            apart: those of them that are no part of the document.
        """
        twice = 0
        if end > start:
            for low, high in prompt.coverage.add(start, end):
                twice += tokens_between(document.ends, low, high)
        # A span that begins or ends within a token has its part of it in common with the rest.
        twice = min(twice, tokens - apart)
        prompt.tokens_generated += tokens
        prompt.tokens_generated_twice += twice
        prompt.anchor_tokens += apart
        self.anchor_tokens += apart
        self.tokens_generated += tokens
        self.tokens_generated_twice += twice
        self._changed()

    def opened(self) -> None:
        """An answer is being written now."""
        self.streams_open += 1
        self.streams_open_most = max(self.streams_open_most, self.streams_open)
        self._changed()

    def closed(self, bill: Bill, *, disconnected: bool) -> None:
        """It ended: with a stop reason, or broken, or because the client went."""
        self.streams_open -= 1
        self.output_tokens_billed += bill.output_tokens
        self.billed_requests += 1
        self.bills.append(bill)
        self.disconnects += disconnected
        if bill.stop_reason is not None:
            self.stop_reasons[bill.stop_reason] += 1
        self._changed()

    def _changed(self) -> None:
        if not self._waiting:
            return
        waiting = [(c, f) for c, f in self._waiting if not f.done()]
        for condition, future in waiting:
            if condition(self):
                future.set_result(None)
        self._waiting[:] = [(c, f) for c, f in waiting if not f.done()]


def _divergence(document: Document, prefill: str) -> Divergence:
    low, high = 0, min(len(prefill), len(document.text))
    while low < high:  # the longest common beginning
        middle = (low + high + 1) // 2
        if document.text.startswith(prefill[:middle]):
            low = middle
        else:
            high = middle - 1
    return Divergence(
        document.digest,
        low,
        prefill[low : low + _EXCERPT_CHARACTERS],
        document.text[low : low + _EXCERPT_CHARACTERS],
    )
