"""What the events of a stream mean: a small state machine that grows with them. Pure, no I/O.

Source: Messages API documentation, streaming.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import jiter

from runner.jobs.call import CallOutcome, Usage, estimate_tokens
from runner.messages.classify import Failure, call_error
from runner.messages.errors import CallError

MOST_TOKENS = 100_000_000  # of one call

_INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class Reply:
    """One answer, as far as its events have come.

    Args:
        request_id: the API's name for the request, from the response's headers.
        secrets: what no error message may show.

    Attributes:
        finished: `message_stop` came, with a stop reason before it. Only this is a whole answer.
        steps: grows with every event that brings the answer on. Pings and empty deltas do not.
        writing: a text block is open, so silence means that something is wrong; without one the
            model may be thinking, for minutes and without a word.
    """

    __slots__ = (
        "_counts",
        "_counts_are_final",
        "_request_id",
        "_secrets",
        "_stop_details",
        "_stop_reason",
        "_stop_sequence",
        "_text_characters",
        "_text_started",
        "_thinking_tokens",
        "_unseen_characters",
        "_written_for_an_hour",
        "finished",
        "steps",
        "writing",
    )

    def __init__(self, request_id: str | None = None, secrets: Collection[str] = ()) -> None:
        self._request_id = request_id
        self._secrets = secrets
        self.finished = False
        self.steps = 0
        self.writing = False
        self._text_characters = 0
        self._unseen_characters = 0  # thinking and the like: paid for, but no part of the document
        self._text_started: set[Any] = set()  # indices of the text blocks that were started
        self._counts: dict[str, int] = {}
        self._counts_are_final = False
        self._written_for_an_hour: int | None = None
        self._thinking_tokens = 0
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self._stop_details: Mapping[str, Any] | None = None

    def take(self, name: bytes, data: bytes) -> str:
        """Take in one event; the text it adds to the document, often none.

        Lone surrogates are handed through: a pair may come split over two events.

        Raises:
            CallError: the event tells of an error, or cannot be understood.
        """
        event = _parse(data)
        if event is None:
            raise self.broken("an event that is no JSON object")
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event.get("delta"))
        if kind == "content_block_start":
            return self._start(event.get("index"), event.get("content_block"))
        if kind == "content_block_stop":
            self.writing = False
            self.steps += 1
        elif kind == "message_start":
            message = event.get("message")
            self._count(message.get("usage") if isinstance(message, dict) else None, final=False)
            self.steps += 1
        elif kind == "message_delta":
            self._message_delta(event)
        elif kind == "message_stop":
            if self._stop_reason is None:
                raise self.broken("the answer ended without a stop reason")
            self.finished = True
        elif kind == "error" or name == b"error" or (kind is None and "error" in event):
            failure = Failure.from_body(event, request_id=self._request_id)
            raise call_error(failure, secrets=self._secrets)
        # Everything else is a ping, or an event of a later version of the API: passed over.
        return ""

    def _start(self, index: Any, block: Any) -> str:
        self.steps += 1
        if not isinstance(block, dict):
            return ""
        self.writing = block.get("type") == "text"
        text = block.get("text")
        if not self.writing or not isinstance(text, str) or not isinstance(index, int):
            return ""
        if index in self._text_started:  # told twice: its first text counts once
            return ""
        self._text_started.add(index)
        self._text_characters += len(text)
        return text

    def _delta(self, delta: Any) -> str:
        if not isinstance(delta, dict):
            return ""
        text = delta.get("text")
        if delta.get("type") == "text_delta":
            if not isinstance(text, str) or not text:
                return ""
            self.steps += 1
            self._text_characters += len(text)
            return text
        # Thinking, signatures, tool input, citations, and whatever later versions bring.
        self.steps += 1
        for value in (delta.get("thinking"), delta.get("partial_json")):
            if isinstance(value, str):
                self._unseen_characters += len(value)
        return ""

    def _message_delta(self, event: dict[str, Any]) -> None:
        self.steps += 1
        self._count(event.get("usage"), final=True)
        delta = event.get("delta")
        if not isinstance(delta, dict):
            return
        if isinstance(reason := delta.get("stop_reason"), str):
            self._stop_reason = reason
        if isinstance(sequence := delta.get("stop_sequence"), str):
            self._stop_sequence = sequence
        if isinstance(details := delta.get("stop_details"), dict):
            self._stop_details = details

    def _count(self, usage: Any, *, final: bool) -> None:
        """Counts are cumulative: a later one replaces an earlier one and is never added to it."""
        if not isinstance(usage, dict):
            return
        for name in _INPUT_COUNTS:
            # An input does not shrink: a 0 in a later event is a server that says it only once.
            if (count := _tokens(usage.get(name))) is not None:
                self._counts[name] = max(count, self._counts.get(name, 0))
        written = usage.get("cache_creation")
        if isinstance(written, dict):
            hour = _tokens(written.get("ephemeral_1h_input_tokens"))
            self._written_for_an_hour = hour if hour is not None else self._written_for_an_hour
        details = usage.get("output_tokens_details")
        if isinstance(details, dict):
            self._thinking_tokens = _tokens(details.get("thinking_tokens")) or 0
        output = _tokens(usage.get("output_tokens"))
        # The first event only holds a placeholder: told again later, it must not undo a real count.
        if output is not None and (final or not self._counts_are_final):
            self._counts["output_tokens"] = output
            self._counts_are_final = self._counts_are_final or final

    @property
    def characters(self) -> int:
        """Characters that were written so far, thinking included."""
        return self._text_characters + self._unseen_characters

    @property
    def thinking_characters(self) -> int:
        """Those of them that are no text."""
        return self._unseen_characters

    @property
    def input_usage(self) -> Usage | None:
        """How the input is billed; None before the API has told it."""
        if "input_tokens" not in self._counts:
            return None
        counts = {name: self._counts.get(name, 0) for name in _INPUT_COUNTS}
        return Usage(**counts, **self._for_an_hour(), estimated=True)

    def _for_an_hour(self) -> dict[str, int]:
        """A part of what was written to the cache can be no more than all of it."""
        written = self._counts.get("cache_creation_input_tokens", 0)
        return {"cache_creation_1h_input_tokens": min(written, self._written_for_an_hour or 0)}

    def outcome(self, error: str | None = None) -> CallOutcome:
        """What is known of the call now. Before the end, its output is our own estimate."""
        counts = self._counts | self._for_an_hour()
        estimated = not self.finished or not self._counts_are_final
        if not self._counts_are_final:
            seen = estimate_tokens(self.characters)
            counts["output_tokens"] = max(counts.get("output_tokens", 0), seen)
        return CallOutcome(
            stop_reason=self._stop_reason if self.finished else None,
            stop_sequence=self._stop_sequence if self.finished else None,
            stop_details=self._stop_details if self.finished else None,
            usage=Usage(**counts, estimated=estimated),
            request_id=self._request_id,
            error=error,
            text_characters=self._text_characters,
            thinking_characters=self._unseen_characters,
            output_counted=self._counts_are_final,
            thinking_tokens=min(self._thinking_tokens, counts.get("output_tokens", 0)),
        )

    def broken(self, what: str, *, type: str = "broken_stream") -> CallError:
        """The error of a stream that came to no proper end."""
        failure = Failure(what, type=type, request_id=self._request_id)
        return call_error(failure, secrets=self._secrets)


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        event = jiter.from_json(data)
    except ValueError:
        # jiter refuses lone surrogates, which come when a pair is split over two events.
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return None
    return event if isinstance(event, dict) else None


def _tokens(value: Any) -> int | None:
    """A token count, if it is one. The bound, far beyond any model, keeps nonsense out of the
    ledger: times a price, and summed, it must fit into 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_TOKENS:
        return None
    return value
