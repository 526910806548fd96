"""One streamed call to the Messages API.

The official SDK builds and sends the request, finds the credentials and raises on error statuses.
The body is read raw and parsed here: the SDK would make a validated object of every event, which
costs several times as much as all the rest of reading a stream.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import anthropic
import httpx2
import jiter

from runner import faults
from runner.errors import UsageError
from runner.jobs.call import CallOutcome, Usage
from runner.jobs.traits import ModelTraits
from runner.messages import models
from runner.messages.body import encoded
from runner.messages.classify import Failure, call_error
from runner.messages.errors import CallError, CredentialsError
from runner.messages.events import Reply
from runner.messages.headers import RateLimits, retry_after_s
from runner.messages.model_info import ModelInfo
from runner.messages.pace.classes import fingerprint
from runner.messages.packets import TRANSPORT_ERRORS, Packets, packets_of
from runner.messages.rhythm import Rhythm
from runner.messages.sse import EventTooLong, SseParser

CONNECT_TIMEOUT_S = 10.0
MODEL_INFO_TIMEOUT_S = 5.0  # what it tells is good to know, and not worth a long wait
# While no text is being written the model may be thinking, and the stream brings nothing but pings.
THINKING_PATIENCE = 5

_TIMEOUTS = (httpx2.TimeoutException, TimeoutError)

# What a count takes of a request: not what says how the answer is to be written.
_COUNTED = frozenset({"model", "messages", "system", "thinking", "tools", "tool_choice"})

# Sampling fields went out with the version that the SDK speaks; models that still take them take
# them in the version before. Source: Messages API documentation, versioning.
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_SAMPLING_VERSION = {"anthropic-version": "2023-06-01"}

# The SDK would draw a random one for each call, which costs more than encoding a request, and send
# it nowhere: its only use is among retries, and there are none.
_NOT_SENT = "none"

# A server that is not Anthropic's mostly wants no key, but the SDK sends no request without one.
_NO_KEY = "no-key"


class StreamWatch(Protocol):
    """Is told how a call fares, besides its text."""

    def began(self, rate_limits: RateLimits) -> None:
        """The answer's headers came."""

    def counted(self, usage: Usage) -> None:
        """The API has told how the input is billed; told once."""

    def wrote(self, characters: int, thinking: int) -> None:
        """So many more characters were written, and so many of them are thinking."""


class MessagesClient:
    """Calls to one endpoint with one key, over shared connections.

    Args:
        api_key: None takes it from where the SDK does (ANTHROPIC_API_KEY and its kin).
        base_url: None takes ANTHROPIC_BASE_URL, else Anthropic's own.
        read_timeout_s: seconds without a byte, or without progress while text is being written,
            after which a stream counts as broken. While no text is being written, pings alone keep
            it alive `THINKING_PATIENCE` times as long.
        connections: the most that are open at once.
        one_block: the endpoint needs one text block a message; None guesses by its host. False says
            that it behaves as Anthropic's own, so that its connections are used again, too.

    Raises:
        CredentialsError: there is no key, or what is set cannot be one.
        UsageError: the base URL is no HTTP address.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        read_timeout_s: float = 120,
        connections: int = 1000,
        one_block: bool | None = None,
    ) -> None:
        url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or None
        foreign = url is not None and not _is_anthropic(url)
        if foreign and not (api_key or _key_in_environment()):
            api_key = _NO_KEY  # also keeps a login meant for Anthropic away from this server
        self._read_timeout_s = read_timeout_s
        self._one_block = one_block
        self._infos: dict[str, ModelInfo | None] = {}
        self._rhythm = Rhythm()
        # Some local servers announce keep-alive and hang up all the same, and then the next request
        # fails: theirs are not kept.
        keep_alive = one_block is False or not foreign
        try:
            self._sdk = anthropic.AsyncAnthropic(
                api_key=api_key or None,
                base_url=url,
                max_retries=0,  # one retry policy, and it is the queue's
                timeout=httpx2.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S, pool=None),
                http_client=anthropic.DefaultAioHttpClient(
                    limits=httpx2.Limits(
                        max_connections=connections,
                        max_keepalive_connections=connections,
                        keepalive_expiry=60.0 if keep_alive else 0.0,
                    ),
                ),
            )
        except httpx2.InvalidURL as error:
            raise _no_address(str(url)) from error
        except anthropic.AnthropicError as error:
            raise CredentialsError(f"The credentials cannot be read: {error}") from error
        # Whole, so that the SDK does not put it together for each call.
        self._messages_url = f"{self.base_url}/v1/messages"
        self._secrets = _checked_secrets(self._sdk)
        # A compressed stream would come in lumps.
        self._headers = {"accept-encoding": "identity"}
        if foreign and self._sdk.api_key is not None:
            # Local servers read only the older header.
            self._headers["X-Api-Key"] = self._sdk.api_key

    @property
    def base_url(self) -> str:
        """Where the requests go."""
        return str(self._sdk.base_url).rstrip("/")

    @property
    def credential(self) -> str:
        """A fingerprint of the credential, which gives nothing of it away."""
        return fingerprint(self._secrets)

    def traits(self, model: str) -> ModelTraits:
        """What `model` can take at this endpoint, as far as `model_info` or the table knows."""
        info = self._infos.get(model)
        return models.traits(model, self.base_url, one_block=self._one_block, info=info)

    async def model_info(self, model: str) -> ModelInfo | None:
        """What the endpoint tells of `model`, asked once; None where it tells nothing.

        Many endpoints do not have this, so whatever goes wrong is no error.
        """
        if model not in self._infos:
            self._infos[model] = None
            with suppress(anthropic.AnthropicError, UnicodeEncodeError, *TRANSPORT_ERRORS):
                async with asyncio.timeout(MODEL_INFO_TIMEOUT_S):
                    response = await self._sdk.models.with_raw_response.retrieve(
                        model, extra_headers=self._headers
                    )
                    self._infos[model] = ModelInfo.from_body(_json(await response.read()))
        return self._infos[model]

    async def count_tokens(self, body: Mapping[str, Any]) -> int | None:
        """Input tokens of a request, as the endpoint counts them, which costs nothing; None where
        it cannot tell.

        Many endpoints do not have this, so whatever goes wrong is no error.
        Source: Messages API documentation, token counting.
        """
        counted = {key: value for key, value in body.items() if key in _COUNTED}
        with suppress(anthropic.AnthropicError, UnicodeEncodeError, *TRANSPORT_ERRORS):
            async with asyncio.timeout(MODEL_INFO_TIMEOUT_S):
                response = await self._sdk.messages.with_raw_response.count_tokens(
                    model="", messages=[], extra_body=counted, extra_headers=self._headers
                )
                answer = _json(await response.read())
                tokens = answer.get("input_tokens") if isinstance(answer, Mapping) else None
                return tokens if isinstance(tokens, int) else None
        return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._sdk.close()

    @asynccontextmanager
    async def stream(
        self, body: Mapping[str, Any], watch: StreamWatch | None = None, *, gather_s: float = 0
    ) -> AsyncIterator[CallStream]:
        """Send a request and give its answer as it comes. Leaving early ends the answer there.

        Args:
            body: the request's fields, sent as they are; `stream` is added.
            watch: is told how it fares.
            gather_s: text may be left unread for so long: where many streams are open, that saves
                waking up for each packet.

        Raises:
            CallError: the request was refused, or got no answer.
        """
        sent = await self._send(body, gather_s)
        call = CallStream(*sent, self._read_timeout_s, self._secrets, watch)
        del sent  # a stream lasts for minutes, and there may be a thousand
        try:
            call.check_content_type()
            yield call
        finally:
            await call.aclose()

    async def _send(
        self, body: Mapping[str, Any], gather_s: float
    ) -> tuple[httpx2.Headers, Packets]:
        """The answer's headers, and what follows; of the request nothing stays in memory."""
        headers = self._headers
        if not _SAMPLING.isdisjoint(body):
            headers = headers | _SAMPLING_VERSION
        try:
            # Longer than all of the transport's own time-outs together: see CallStream.__anext__.
            async with asyncio.timeout(CONNECT_TIMEOUT_S + 2 * self._read_timeout_s):
                # The SDK sends what is encoded already as it is, and gives the response unread.
                response: httpx2.Response = await self._sdk.post(
                    self._messages_url,
                    cast_to=httpx2.Response,
                    content=encoded({**body, "stream": True}),
                    options={"headers": headers, "idempotency_key": _NOT_SENT},
                    stream=True,
                    stream_cls=anthropic.AsyncStream[Any],
                )  # type: ignore[assignment]  # with this `cast_to` it makes no stream
        except (anthropic.AnthropicError, UnicodeEncodeError, *TRANSPORT_ERRORS) as error:
            raise self._refused(error) from error
        faults.hit("request.headers")
        packets = packets_of(response, self._read_timeout_s, gather_s, self._rhythm)
        return response.headers, packets

    def _refused(self, error: Exception) -> CallError:
        """What kept a request from being answered, judged."""
        if isinstance(error, anthropic.APIStatusError):
            headers = error.response.headers
            failure = Failure.from_body(
                error.body,
                status=error.status_code,
                retry_after_s=retry_after_s(headers, datetime.now(UTC)),
                should_retry=headers.get("x-should-retry") == "true",
                request_id=error.request_id,
                rate_limits=RateLimits.from_headers(headers),
            )
        elif isinstance(error, UnicodeEncodeError):
            failure = Failure("a lone surrogate stands in it", type="unsendable")
        elif _never_connected(error):
            failure = Failure(f"{self.base_url}: no connection in time", type="unreachable")
        elif isinstance(error, anthropic.APITimeoutError | httpx2.TimeoutException | TimeoutError):
            failure = Failure(f"no answer from {self.base_url}", type="timeout")
        elif isinstance(error, anthropic.APIConnectionError):
            failure = Failure(f"{self.base_url}: {_words(error)}", type="unreachable")
        elif isinstance(error, anthropic.AnthropicError):
            failure = Failure(str(error), type="authentication_error")
        else:
            failure = Failure(f"{self.base_url}: {_words(error)}", type="unreachable")
        return call_error(failure, secrets=self._secrets)


class CallStream:
    """An answer while it comes: iterate over it once for its text, in non-empty pieces.

    Iterating raises CallError where the stream breaks; all text that came before was given first.

    Attributes:
        request_id: the API's name for the request; None where the server gives none.
        rate_limits: as the response's headers told them.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        packets: Packets,
        read_timeout_s: float,
        secrets: tuple[str, ...],
        watch: StreamWatch | None = None,
    ) -> None:
        self.request_id = headers.get("request-id")
        self.rate_limits = RateLimits.from_headers(headers)
        self._content_type = headers.get("content-type", "text/event-stream")
        self._packets = packets
        self._parser = SseParser()
        self._reply = Reply(self.request_id, secrets)
        self._read_timeout_s = read_timeout_s
        self._steps = 0
        self._last_step = time.monotonic()
        self._error: CallError | None = None
        self._watch = watch
        self._counted = False
        self._told_characters = self._told_thinking = 0
        if watch is not None:
            watch.began(self.rate_limits)

    @property
    def gathered(self) -> bool:
        """Whether the text given last was left unread for as long as it may be."""
        return self._packets.gathered

    @property
    def outcome(self) -> CallOutcome:
        """What came of the call; before its end, or after a break, with estimated usage."""
        return self._reply.outcome(None if self._error is None else str(self._error))

    def __aiter__(self) -> CallStream:
        return self

    async def __anext__(self) -> str:
        while self._error is None:
            if self._reply.finished:
                await self._packets.read_to_end()
                raise StopAsyncIteration
            try:
                if packet := await self._packets.read():
                    text = self._take(packet)
                else:
                    text = ""
                    self._error = self._reply.broken("it ended before the answer did")
            except _TIMEOUTS:
                self._error = self._silent(self._read_timeout_s)
            except TRANSPORT_ERRORS as error:
                self._error = self._reply.broken(_words(error))
            else:
                if text:
                    return text
        raise self._error

    def check_content_type(self) -> None:
        """Refuse a page of something in between (a proxy, a login page) in place of a stream.

        Raises:
            CallError: the response names another type of content.
        """
        found = self._content_type
        if not found.lower().startswith("text/event-stream"):
            self._error = self._reply.broken(f"it sent {found}", type="not_an_event_stream")
            raise self._error

    async def aclose(self) -> None:
        """Let go of the connection; an answer that is still coming is not read on."""
        await self._packets.aclose()

    def _take(self, packet: bytes) -> str:
        """The text in a packet. What breaks the stream there is kept until the text is out."""
        pieces: list[str] = []
        reply = self._reply
        try:
            for name, data in self._parser.feed(packet):
                if faults.armed:
                    faults.hit(f"event.{name.decode(errors='replace')}")
                if piece := reply.take(name, data):
                    pieces.append(piece)
                if reply.finished:
                    break
        except EventTooLong:
            self._error = self._reply.broken("an event without end")
        except CallError as error:
            self._error = error
        self._watch_progress()
        if self._watch is not None:
            self._tell(self._watch)
        return "".join(pieces)

    def _tell(self, watch: StreamWatch) -> None:
        reply = self._reply
        if not self._counted and (usage := reply.input_usage) is not None:
            self._counted = True
            watch.counted(usage)
        if (more := reply.characters - self._told_characters) > 0:
            watch.wrote(more, reply.thinking_characters - self._told_thinking)
            self._told_characters = reply.characters
            self._told_thinking = reply.thinking_characters

    def _watch_progress(self) -> None:
        """Break off a stream that lives but brings nothing, as an endless row of pings does."""
        now = time.monotonic()
        if self._reply.steps != self._steps:
            self._steps = self._reply.steps
            self._last_step = now
            return
        patience = 1 if self._reply.writing else THINKING_PATIENCE
        limit_s = self._read_timeout_s * patience
        if self._error is None and not self._reply.finished and now - self._last_step > limit_s:
            self._error = self._silent(limit_s)

    def _silent(self, seconds: float) -> CallError:
        return self._reply.broken(f"nothing new came for {seconds:g} s", type="timeout")


def _never_connected(error: Exception) -> bool:
    """Whether time ran out before there was a connection, so that no request was sent."""
    cause = error.__cause__ if isinstance(error, anthropic.APITimeoutError) else error
    return isinstance(cause, httpx2.ConnectTimeout | httpx2.PoolTimeout)


def _json(body: bytes) -> object:
    try:
        return jiter.from_json(body)
    except ValueError:
        return None


def _is_anthropic(url: str) -> bool:
    try:
        if url.lower().startswith(("http://", "https://")):
            return models.is_anthropic(url)
    except ValueError as error:
        raise _no_address(url) from error
    raise _no_address(url)


def _no_address(url: str) -> UsageError:
    return UsageError(
        f"{url!r} is no address of a Messages API. "
        "Set ANTHROPIC_BASE_URL to one such as http://127.0.0.1:8080, without /v1."
    )


def _key_in_environment() -> bool:
    return bool(os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN"))


def _checked_secrets(sdk: anthropic.AsyncAnthropic) -> tuple[str, ...]:
    """The keys that requests will carry, so that no message repeats them.

    Raises:
        CredentialsError: there is none, or it cannot be sent.
    """
    keys = [key for key in (sdk.api_key, sdk.auth_token) if key]
    if not keys and sdk.credentials is None:
        raise CredentialsError(
            "There is no API key. Set ANTHROPIC_API_KEY to yours, "
            "or add --simulate to try everything without one."
        )
    for key in keys:
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise CredentialsError(
                "The API key holds characters that no key has, such as a blank or a line break. "
                "Set ANTHROPIC_API_KEY again."
            )
    # A very short one is a stand-in for a local server, and would blot out ordinary words.
    return tuple(key for key in keys if len(key) >= 8)


def _words(error: BaseException) -> str:
    """The transport's own words: the SDK wraps them in an error that says nothing."""
    while isinstance(error, anthropic.APIConnectionError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
