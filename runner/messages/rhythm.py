"""Hundreds of slow streams are read in turns.

A stream that trickles brings an event every 25 ms, each in a packet of its own, and waking up for it
costs many times what its few bytes do. Who saves four times a second need not wake more often. So
each stream has its turn: in between its socket is left alone, the packets gather in the kernel, and
at its turn one read brings them all. Where they gather beyond what the kernel holds, TCP slows the
server down.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import aiohttp

# What one turn may bring; a stream that brings more does not trickle.
MOST_BYTES: Final = 64 * 1024

# Of streams that last so long, half a turn's wait for the end is 3 %.
LONG_S: Final = 4.0
_NEWEST: Final = 0.1  # the newest stream's part in how long they last

_GROUPS = 1  # of streams, one after the other: what a turn brings is saved in one transaction
# For so long a socket is listened to: what lies in the kernel comes at once, and an end right after.
_OPEN_S = 0.002
# What transports raise that cannot pause, or are closed: then there is nothing to do.
_NO_FLOW_CONTROL = (AttributeError, NotImplementedError, RuntimeError)


class Rhythm:
    """Gives the streams of one client their turns.

    Args:
        every_s: time between two turns of a stream: a little less than the 250 ms between two saves, so
            that what a turn brings is handed over within them.
        crowd: fewer open streams than this are read as they come: they cost little.
        plain_s: a stream is read as it comes for so long before it takes turns. Those of a call that
            is over sooner would only delay its end; and what comes in that time tells whether it
            trickles. Where streams have lately lasted long, the time between two turns is enough.

    Attributes:
        streams: how many are open, those that take no turns included.
    """

    def __init__(self, *, every_s: float = 0.23, crowd: int = 8, plain_s: float = 1.0) -> None:
        self.every_s = every_s
        self.streams = 0
        self._plain_s = plain_s
        self._lasted_s: float | None = None  # how long streams are open, by the last ones
        self._crowd = crowd
        self._groups: list[dict[Turns, None]] = [{} for _ in range(_GROUPS)]
        self._next = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # that it beats in; None: in none

    @property
    def crowded(self) -> bool:
        """Whether so many streams are open that turns are worth it."""
        return self.streams >= self._crowd

    @property
    def plain_s(self) -> float:
        """How long a new stream is read as it comes."""
        long = self._lasted_s is not None and self._lasted_s >= LONG_S
        return min(self._plain_s, self.every_s) if long else self._plain_s

    def ended(self, lasted_s: float) -> None:
        """A stream is over that was open for so long."""
        before_s = lasted_s if self._lasted_s is None else self._lasted_s
        self._lasted_s = before_s + _NEWEST * (lasted_s - before_s)

    def join(self, turns: Turns) -> dict[Turns, None]:
        """Take a stream in; the group that it belongs to, to be left by `pop`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:  # it ended between two beats, and its streams with it
                self._groups = [{} for _ in range(_GROUPS)]
                self._next = 0
            self._loop = loop
            self._sleep(loop)
        group = min(self._groups, key=len)
        group[turns] = None
        return group

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(self.every_s / _GROUPS, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """The next group's turn."""
        if loop is not self._loop:
            return
        if not any(self._groups):
            self._loop = None
            return
        group = tuple(self._groups[self._next])
        self._next = (self._next + 1) % _GROUPS
        for turns in group:
            turns.open()
        loop.call_later(_OPEN_S, _gather, group, loop.time())
        self._sleep(loop)


def _gather(group: tuple[Turns, ...], now_s: float) -> None:
    for turns in group:
        turns.gather(now_s)


class Turns:
    """One stream's turns.

    Args:
        content: the body, as aiohttp holds it.
        transport: of its connection.
        silence_s: without a byte for so long the stream counts as broken.
    """

    def __init__(
        self,
        rhythm: Rhythm,
        content: aiohttp.StreamReader,
        transport: asyncio.Transport,
        silence_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._content = content
        self._socket = _socket(transport)
        self._silence_s = silence_s
        self._since_s = self._loop.time()
        self._seen_bytes = content.total_bytes
        self._ready = False
        self._left = False
        self._waiter: asyncio.Future[None] | None = None
        self._group = rhythm.join(self)
        self._rest()

    async def read(self) -> bytes:
        """What the next turn brings; empty at the end.

        Raises:
            TimeoutError: nothing came for `silence_s`.
        """
        while not self._ready:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._ready = False
        content = self._content
        came = content.total_bytes != self._seen_bytes
        self._seen_bytes = content.total_bytes
        if came:
            self._since_s = self._loop.time()
            if content.exception() is not None:
                self._ready = True  # what came before the error goes first, then the error
                return _taken(content)
            data = content.read_nowait()
            if content.is_eof():
                self._ready = True
            elif not self._left:
                self._rest()  # aiohttp has the transport go on whenever something is taken
            return data
        if content.exception() is None and not content.is_eof():
            raise TimeoutError
        return content.read_nowait()

    def leave(self) -> None:
        """From now on the socket is listened to all the time."""
        if not self._left:
            self._left = True
            self._group.pop(self, None)
            if not self._content.is_eof():
                self._resume()

    def open(self) -> None:
        """Listen to the socket: the turn begins. Not before the last one's bytes were taken: who
        saves slowly reads slowly."""
        if not (self._left or self._ready):
            self._resume()

    def gather(self, now_s: float) -> None:
        """The turn is over: wake the reader if anything came, and leave the socket alone."""
        content = self._content
        if self._left:
            return
        if content.is_eof() or content.exception() is not None:
            # The connection may serve another request by now: it is not ours to pause.
            self._left = True
            self._group.pop(self, None)
        elif content.total_bytes == self._seen_bytes and now_s - self._since_s < self._silence_s:
            self._rest()
            return
        else:
            self._rest()
        self._ready = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _rest(self) -> None:
        with suppress(*_NO_FLOW_CONTROL):
            self._socket.pause_reading()

    def _resume(self) -> None:
        with suppress(*_NO_FLOW_CONTROL):
            self._socket.resume_reading()


def _socket(transport: asyncio.Transport) -> asyncio.Transport:
    """The transport that reads from the socket.

    asyncio's TLS only stops decrypting when it is paused, and is woken for each packet until 256 kB
    lie there. The transport below it is private; without it, TLS is told to keep next to nothing.
    """
    below: Any = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    if below is not None and hasattr(below, "pause_reading"):
        found: asyncio.Transport = below
        return found
    if (limit := getattr(transport, "set_read_buffer_limits", None)) is not None:
        limit(high=1)
    return transport


def _taken(content: aiohttp.StreamReader) -> bytes:
    """What lies in a body that ended by an error: aiohttp itself would only tell of the error."""
    pieces: Any = getattr(content, "_buffer", ())
    data = b"".join(pieces)
    if pieces:
        pieces.clear()
    return data
