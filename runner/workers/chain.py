"""What is known of one job's own calls, and where its next request may be marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runner.continuation import outlook
from runner.continuation.loop import ContinuationLoop
from runner.continuation.steps import Send
from runner.jobs.beginnings import Beginning
from runner.jobs.call import CallOutcome
from runner.jobs.spec import Caching
from runner.messages.caching import Place, Ttl, characters, layout
from runner.messages.thrift import Outlook
from runner.store.records import SavedCall
from runner.workers.needs import Need

# Tokens that follow a mark at the document's end, with a request to go on; and at the prompt's end.
_BEHIND_DOCUMENT: Final = 400
_BEHIND_PROMPT: Final = 8


@dataclass(slots=True)
class Chain:
    """What a job's calls so far have come to, and what they left in the cache.

    Args:
        warm_tokens: what its last marked request has left there.
        warm_until_ms: until then.
        end: characters of the document up to that mark; 0: it stood at the prompt's end.
        ttl: how long it was written for.
        answered: calls that the API answered to their end.
        cut: those of them that `max_tokens` cut.
        going_on: the last answer was cut, so the document is not finished.
        input_tokens: of all calls, from the cache or not.
        output_tokens: of all calls.
        began_ms: when its last call began; None: it had none.
    """

    warm_tokens: int = 0
    warm_until_ms: int = 0
    end: int = 0
    ttl: Ttl = Ttl.MINUTES
    answered: int = 0
    cut: int = 0
    going_on: bool = True
    input_tokens: int = 0
    output_tokens: int = 0
    began_ms: int | None = None

    def ended(self, outcome: CallOutcome) -> None:
        """A call ended."""
        self.input_tokens += outcome.usage.total_input_tokens
        self.output_tokens += outcome.usage.output_tokens
        if outcome.stop_reason is None:
            return
        self.answered += 1
        self.going_on = outcome.stop_reason == "max_tokens"
        if self.going_on:
            self.cut += 1

    def warmed(self, tokens: int, end: int, ttl: Ttl, now_ms: int) -> None:
        """A marked request has left so much in the cache."""
        self.warm_tokens, self.end, self.ttl = tokens, end, ttl
        self.warm_until_ms = now_ms + 1000 * ttl.seconds

    @classmethod
    def of(cls, calls: Sequence[SavedCall]) -> Chain:
        """What earlier calls have left, those of other processes too."""
        chain = cls()
        for call in calls:
            chain.began_ms = call.started_ms
            if call.outcome is None:
                continue
            chain.ended(call.outcome)
            usage = call.outcome.usage
            cached = usage.cache_creation_input_tokens + usage.cache_read_input_tokens
            # What is left says where the mark stood: all else was a beginning shared with others.
            behind = _BEHIND_DOCUMENT if call.resume_at else _BEHIND_PROMPT
            if cached and usage.input_tokens <= behind:
                hour = usage.cache_creation_1h_input_tokens > 0
                ttl = Ttl.HOUR if hour else chain.ttl
                chain.warmed(cached, call.resume_at, ttl, call.started_ms)
        return chain


class Request:
    """A job's next request, with what stands before the end of each of its blocks.

    Args:
        tokens_per_character: of the batch's input so far; None: nothing was counted yet.
    """

    def __init__(
        self,
        loop: ContinuationLoop,
        send: Send,
        body: Mapping[str, Any],
        need: Need,
        tokens_per_character: float | None,
    ) -> None:
        self.body = body
        self.need = need
        self.send = send
        self._loop = loop
        self.plan = layout(body)
        messages = len(loop.spec.messages)
        self.users = self.plan.marked_by_user(messages)
        self._prompt = [p for p in self.plan.places if p.message is None or p.message < messages]
        grows = send.plan.strategy is not None
        self._document = [p for p in self.plan.places if grows and p.message == messages]
        self._sizes = characters(body)
        # Estimates are rough before the API has counted a request like this one.
        guess = tokens_per_character if loop.counted_input is None else None
        prompt_characters = self._size(self._prompt[-1]) if self._prompt else 0
        document_characters = send.plan.resume_at if grows else 0
        prompt, whole = float(need.prompt_tokens), float(need.input_tokens)
        if guess is not None:
            prompt = prompt_characters * guess
            whole = prompt + document_characters * guess
        self._rates = (
            prompt / max(1, prompt_characters),
            max(0.0, whole - prompt) / max(1, document_characters),
        )
        self._prompt_characters = prompt_characters

    def tokens(self, place: Place) -> float:
        """Input tokens up to the end of a block, by estimate."""
        characters = self._size(place)
        of_document = max(0, characters - self._prompt_characters)
        a_prompt, a_document = self._rates
        return (characters - of_document) * a_prompt + of_document * a_document

    def tokens_before(self, beginning: Beginning) -> float:
        """Input tokens of a beginning of the prompt, by estimate."""
        place = self.place(beginning)
        return 0.0 if place is None else self.tokens(place)

    def place(self, beginning: Beginning) -> Place | None:
        """Where a beginning of the prompt ends."""
        return self.plan.of(beginning.message, beginning.block)

    def own_places(self) -> list[Place]:
        """Where a mark for the job's own next call may stand, the best place first: at the end of
        the document, or of all but what the last call wrote; before there is a document at the
        end of the prompt, which is left alone where the user marked it himself."""
        if self._document:
            if self.plan.tail is not None and self._document[-1] is self.plan.places[-1]:
                return []  # the user's own mark stands there already
            before = [] if self.users else self._prompt[-1:]
            return [*reversed([*before, *self._document][-2:])]
        return [] if self.users else self._prompt[-1:]

    def at(self, end: int) -> Place | None:
        """The place behind so many characters of the document; 0: the prompt's end."""
        if end == 0:
            return self._prompt[-1] if self._prompt else None
        return next((p for p in self._document if self.end(p) == end), None)

    def end(self, place: Place) -> int | None:
        """Characters of the document before a place; None: it stands within the prompt."""
        if place.behind < len(self._prompt) - 1:
            return None
        return self._size(place) - self._prompt_characters

    def outlook(self, chain: Chain) -> Outlook:
        """How the job will go on after this call, as far as its own words and history tell."""
        spec, send = self._loop.spec, self.send
        most = outlook.most_calls(
            spec.continuation, chain.answered, chain.output_tokens, send.max_tokens
        )
        sure = 0
        if chain.going_on:
            written = self.need.input_tokens - self.need.prompt_tokens
            sure = outlook.sure_calls(spec.until, self._loop.document, written, send.max_tokens)
        spent = chain.input_tokens + self.need.input_tokens
        return Outlook(
            chain.cut + 1, min(sure, most), most, spent, eager=spec.caching is Caching.EAGER
        )

    def _size(self, place: Place) -> int:
        return self._sizes[place.behind]
