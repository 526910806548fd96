"""The bytes of an answer, as they come."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final, Protocol

import aiohttp
import anyio
import httpx2
from multidict import CIMultiDict, CIMultiDictProxy

from runner.messages.rhythm import MOST_BYTES, Rhythm, Turns
from runner.messages.tls import slim

# The SDK's aiohttp transport turns most of aiohttp's errors into httpx2's, but not all of them.
TRANSPORT_ERRORS: Final = (httpx2.HTTPError, aiohttp.ClientError, OSError, TimeoutError, EOFError)
_TURNS_IN_TIMEOUT: Final = 4  # at least: a turn must not be taken for silence
# After the last event only the end of the response is missing: worth a moment, for then its
# connection can be used again.
_END_OF_BODY_S: Final = 0.1
_NO_HEADERS: Final = CIMultiDictProxy[str](CIMultiDict())


class Packets(Protocol):
    """The bytes of one response.

    Attributes:
        gathered: what is read now has been left unread for as long as it may.
    """

    gathered: bool

    async def read(self) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            TimeoutError: no byte came in time. And what else stands in `TRANSPORT_ERRORS`.
        """

    async def read_to_end(self) -> None:
        """Read on for a moment, so that the connection can be used again."""

    async def aclose(self) -> None:
        """Let go of the connection; what is still coming is not read on."""


def packets_of(
    response: httpx2.Response, read_timeout_s: float, gather_s: float, rhythm: Rhythm
) -> Packets:
    """The bytes of a response.

    Where the transport is aiohttp, it is read without the layers above it, and these are let go,
    with the request that they hold. That reaches private attributes; where they are not found, the
    layers are used.

    Args:
        read_timeout_s: without a byte for so long it counts as broken.
        gather_s: bytes may be left unread for so long.
        rhythm: of all streams of the client.
    """
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    layer = getattr(response.stream, "_stream", response.stream)
    answer = getattr(layer, "_aiohttp_response", None)
    if isinstance(answer, aiohttp.ClientResponse) and not encoded:
        return DirectPackets(answer, read_timeout_s, gather_s, rhythm)
    return LayeredPackets(response, read_timeout_s, encoded=encoded)


class LayeredPackets:
    """Read through whatever transport there is."""

    def __init__(self, response: httpx2.Response, read_timeout_s: float, *, encoded: bool) -> None:
        self.gathered = False
        self._response = response
        self._packets = response.aiter_bytes() if encoded else response.aiter_raw()
        self._read_timeout_s = read_timeout_s

    async def read(self) -> bytes:
        # The transport has a time-out of its own, but forgets it after some faults: a chunk of an
        # impossible length in mid-stream made it wait for ever.
        async with asyncio.timeout(self._read_timeout_s):
            return await anext(self._packets, b"")

    async def read_to_end(self) -> None:
        await _drain(self)

    async def aclose(self) -> None:
        with suppress(*TRANSPORT_ERRORS):
            await self._packets.aclose()
        with suppress(*TRANSPORT_ERRORS):
            await self._response.aclose()


class DirectPackets:
    """Read from aiohttp itself: as it comes, or in turns where many streams trickle."""

    def __init__(
        self,
        answer: aiohttp.ClientResponse,
        read_timeout_s: float,
        gather_s: float,
        rhythm: Rhythm,
    ) -> None:
        self.gathered = False
        self._answer = answer
        self._read_timeout_s = read_timeout_s
        self._may_gather = min(gather_s, read_timeout_s / _TURNS_IN_TIMEOUT) >= rhythm.every_s
        self._rhythm = rhythm
        self._turns: Turns | None = None
        self._opened_s = self._plain_since_s = time.monotonic()
        self._plain_bytes = 0
        rhythm.streams += 1
        slim(self._transport)
        _forget_headers(answer)
        self._end_other_timeout()

    async def read(self) -> bytes:
        if self._turns is not None:
            data = await self._turns.read()
            if len(data) > MOST_BYTES:
                self._end_turns()
            return data
        async with asyncio.timeout(self._read_timeout_s):  # for the reason that LayeredPackets has
            data = await self._answer.content.readany()
        if self._may_gather and self._rhythm.crowded:
            self._plain_bytes += len(data)
            plain_s = time.monotonic() - self._plain_since_s
            if plain_s >= self._rhythm.plain_s:
                self._consider_turns(plain_s)
        return data

    async def read_to_end(self) -> None:
        self._end_turns()
        if not self._answer.content.is_eof():
            await _drain(self)

    async def aclose(self) -> None:
        self._rhythm.streams -= 1
        self._rhythm.ended(time.monotonic() - self._opened_s)
        self._end_turns()
        transport = self._transport
        if transport is not None and not self._answer.content.is_eof():
            # Nobody waits for what still comes: parting in order would hold the connection, with 34 kB
            # for TLS to write and to read, until the server has its say.
            transport.abort()
        with suppress(*TRANSPORT_ERRORS):
            await self._answer.__aexit__(None, None, None)

    @property
    def _transport(self) -> asyncio.Transport | None:
        """None: the end of the body has come, and the connection may serve others by now."""
        connection = self._answer.connection
        return None if connection is None else connection.transport

    def _end_other_timeout(self) -> None:
        """aiohttp's own time-out takes what is left in the kernel for silence: while a disk hangs
        and nobody reads, it would end a stream that is well. Here silence is looked for already."""
        protocol = None if self._answer.connection is None else self._answer.connection.protocol
        if protocol is not None:
            protocol.read_timeout = None  # the next request on this connection sets its own
            protocol.start_timeout()

    def _consider_turns(self, plain_s: float) -> None:
        a_turn = min(1, self._rhythm.every_s / plain_s) if plain_s else 1  # of the time that passed
        trickles = self._plain_bytes * a_turn <= MOST_BYTES / 2
        self._plain_since_s, self._plain_bytes = time.monotonic(), 0
        content, transport = self._answer.content, self._transport
        if trickles and transport is not None and not content.is_eof():
            self._turns = Turns(self._rhythm, content, transport, self._read_timeout_s)
            self.gathered = True

    def _end_turns(self) -> None:
        self.gathered = False
        if self._turns is not None:
            self._turns.leave()
            self._turns = None
            self._plain_since_s, self._plain_bytes = time.monotonic(), 0


def _forget_headers(answer: aiohttp.ClientResponse) -> None:
    """Let go of the headers of both the request and the answer, which were read: with all their words
    they are 8 kB a stream. The attributes are private: where they are not found nothing is let go."""
    asked = answer.request_info
    if all(
        hasattr(answer, name) for name in ("_request_info", "_headers", "_raw_headers", "_cache")
    ):
        answer._request_info = asked._replace(headers=_NO_HEADERS)  # noqa: SLF001  no public way
        answer._headers, answer._raw_headers = _NO_HEADERS, ()  # noqa: SLF001
        answer._cache.clear()  # noqa: SLF001  what was made of them


async def _drain(packets: Packets) -> None:
    with anyio.move_on_after(_END_OF_BODY_S), suppress(*TRANSPORT_ERRORS):
        while await packets.read():
            pass
