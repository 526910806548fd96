"""A Messages API that only streams, fast: what `benchmarks/wire.py` measures clients with.

A prompt says how it is answered: `[[trickle rate=40]]` an event every 25 ms, each in a packet of its
own, until the client goes; `[[burst events=20000 packet=32]]` as fast as it is taken; `[[silent]]`
a beginning and nothing more; `[[short]]` a whole small answer. The text of every event has 16
characters: in a trickle the time at which it was sent, in microseconds of the machine's monotonic
clock, and a blank; in a burst words.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import cast

from report import pin

EVENT_CHARACTERS = 16
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"request-id: req_wire\r\ntransfer-encoding: chunked\r\n\r\n"
)
NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"
)
_ORDER = re.compile(rb"\[\[(\w+)((?: \w+=[\d.]+)*)\]\]")
_TICK_S = 0.001
_WAVES = 512 * 1024  # bytes that may wait in a burst before the client must take some


def event(type: str, **fields: object) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **fields})}\n\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_USAGE = {"input_tokens": 10, "output_tokens": 1}
_MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
    "stop_reason": None, "stop_sequence": None, "usage": _USAGE,
}  # fmt: skip
FIRST = chunk(
    event("message_start", message=_MESSAGE)
    + event("content_block_start", index=0, content_block={"type": "text", "text": ""})
)
LAST = (
    chunk(
        event("content_block_stop", index=0)
        + event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9})
        + event("message_stop")
    )
    + b"0\r\n\r\n"
)
_DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "?" * 16})


def delta(text: bytes = b"") -> bytes:
    """An event with 16 characters of text, or else with the time that it is now."""
    return _DELTA.replace(b"?" * 16, text or b"%015d " % (time.monotonic_ns() // 1000))


@cache
def prose(packet: int) -> list[bytes]:
    """Packets of so many events, of a text that does not repeat itself."""
    random = Random(0)
    words = ["".join(random.choices(ascii_lowercase, k=random.randint(2, 9))) for _ in range(3000)]
    text = " ".join(random.choices(words, k=32_000)).encode()
    events = [delta(text[at : at + 16]) for at in range(0, len(text) - 16, 16)]
    return [
        chunk(b"".join(events[at : at + packet])) for at in range(0, len(events) - packet, packet)
    ]


class Trickle:
    """Sends events to all streams of one rate, spread evenly over time."""

    def __init__(self, rate: float) -> None:
        self._slots: list[set[Stream]] = [set() for _ in range(round(1 / rate / _TICK_S))]
        self._next = 0
        self._at = asyncio.get_running_loop().time()
        self._tick()

    def add(self, stream: Stream) -> Callable[[], None]:
        slot = min(self._slots, key=len)
        slot.add(stream)
        return lambda: slot.discard(stream)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while self._at <= loop.time():
            self._at += _TICK_S
            slot = self._slots[self._next]
            self._next = (self._next + 1) % len(self._slots)
            if slot:
                packet = chunk(delta())
                for stream in slot:
                    stream.transport.write(packet)
        # uvloop takes less than half a millisecond for none, and would turn in circles.
        loop.call_later(max(_TICK_S, self._at - loop.time()), self._tick)


class Stream(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport
    trickles: dict[float, Trickle] = {}  # noqa: RUF012

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.transport.set_write_buffer_limits(high=_WAVES)
        self._in = b""
        self._burst: Iterator[bytes] = iter(())
        self._held = False
        self._leave: deque[Callable[[], None]] = deque()

    def data_received(self, data: bytes) -> None:
        self._in += data
        while (end := self._in.find(b"\r\n\r\n")) >= 0:
            head = self._in[:end].lower()
            _, _, length = head.partition(b"content-length:")
            size = int(length.split(b"\r\n")[0]) if length else 0
            if len(self._in) < end + 4 + size:
                return
            body = self._in[end + 4 : end + 4 + size]
            self._in = self._in[end + 4 + size :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        order = _ORDER.search(body)
        if b"/v1/messages http" not in head or order is None:
            self.transport.write(NOT_FOUND)
            return
        options = dict(pair.split("=") for pair in order[2].decode().split())
        kind = order[1]
        if kind == b"short":
            self.transport.write(HEAD + FIRST + chunk(delta()) + LAST)
            return
        self.transport.write(HEAD + FIRST)
        if kind == b"trickle":
            rate = float(options["rate"])
            trickle = self.trickles.get(rate) or self.trickles.setdefault(rate, Trickle(rate))
            self._leave.append(trickle.add(self))
        elif kind == b"burst":
            self._burst = self._packets(int(options["events"]), int(options["packet"]))
            self.resume_writing()

    def _packets(self, events: int, packet: int) -> Iterator[bytes]:
        packets = prose(packet)
        begin = int(time.monotonic_ns()) % len(packets)
        for number in range(events // packet):
            yield packets[(begin + number) % len(packets)]
        yield LAST

    def pause_writing(self) -> None:
        self._held = True

    def resume_writing(self) -> None:
        self._held = False
        for packet in self._burst:
            self.transport.write(packet)
            if self._held:
                return

    def connection_lost(self, _: Exception | None) -> None:
        while self._leave:
            self._leave.pop()()


def alone(core: int) -> None:
    """Pin this process to a core, before all others where the system allows it: a reader that waits
    for its turn finds many events in one packet, and seems cheaper than it is."""
    pin([core])
    with suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


async def serve(certificate: Path | None) -> None:
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(
        Stream, "127.0.0.1", 0, ssl=context, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Arguments: the core to run on, and the file with certificate and key; without it no TLS."""
    alone(int(sys.argv[1]))
    certificate = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with suppress(ImportError, KeyboardInterrupt):
        import uvloop

        uvloop.run(serve(certificate))
        return
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(certificate))


if __name__ == "__main__":
    main()
