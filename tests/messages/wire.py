"""A server on loopback that sends exactly the bytes a test names, faults included."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Script = Callable[["Connection"], Awaitable[None]]

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"request-id: req_test\r\nanthropic-ratelimit-requests-remaining: 41\r\n"
    b"connection: close\r\n\r\n"
)


def event(type: str, **fields: Any) -> bytes:
    """One event as the API writes it."""
    data = json.dumps({"type": type, **fields}, ensure_ascii=False)
    return f"event: {type}\ndata: {data}\n\n".encode()


def start(**usage: int) -> bytes:
    usage = usage or {"input_tokens": 10, "output_tokens": 1}
    return event("message_start", message={"id": "msg_1", "role": "assistant", "usage": usage})


def block(index: int = 0, type: str = "text", **fields: Any) -> bytes:
    fields = fields or {"text": ""}
    return event("content_block_start", index=index, content_block={"type": type, **fields})


def text(words: str, index: int = 0) -> bytes:
    delta = {"type": "text_delta", "text": words}
    return event("content_block_delta", index=index, delta=delta)


def end(stop_reason: str | None = "end_turn", *, output_tokens: int = 7, **delta: Any) -> bytes:
    return (
        event("content_block_stop", index=0)
        + event(
            "message_delta",
            delta={"stop_reason": stop_reason, "stop_sequence": None, **delta},
            usage={"output_tokens": output_tokens},
        )
        + event("message_stop")
    )


def answer(*words: str, stop_reason: str | None = "end_turn") -> bytes:
    return start() + block() + b"".join(map(text, words)) + end(stop_reason)


@dataclass
class Connection:
    """One request, read whole, and the way back."""

    headers: dict[str, str]
    body: Any
    writer: asyncio.StreamWriter

    async def send(self, *packets: bytes) -> None:
        for packet in packets:
            self.writer.write(packet)
            await self.writer.drain()

    async def reset(self) -> None:
        """Hang up so that the other side sees a reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def closed(self) -> None:
        """Wait until the other side has hung up."""
        while not self.writer.transport.is_closing():
            try:
                self.writer.write(b": still here\n\n")
                await self.writer.drain()
            except ConnectionError:
                return
            await asyncio.sleep(0.01)


@dataclass
class WireServer:
    """Plays one script a request, the last one for all that follow."""

    base_url: str = ""
    scripts: list[Script] = field(default_factory=list)
    requests: list[Connection] = field(default_factory=list)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    connections: int = 0
    keep_alive: bool = False  # read further requests from a connection

    def play(self, *scripts: Script) -> None:
        self.scripts = list(scripts)

    def stream(self, *packets: bytes) -> None:
        """Answer with these bytes, each in its own write, then close."""

        async def script(connection: Connection) -> None:
            await connection.send(STREAM_HEAD, *packets)

        self.play(script)

    def status(
        self, status: int, body: Any = None, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Answer with an error."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)

        async def script(connection: Connection) -> None:
            await connection.send(
                f"HTTP/1.1 {status} Told\r\ncontent-length: {len(payload)}\r\n"
                f"request-id: req_err\r\n{head}connection: close\r\n\r\n".encode()
                + payload
            )

        self.play(script)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            await self.answer(reader, writer)
            while self.keep_alive:
                await self.answer(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away, as some tests want it to
        finally:
            writer.close()
            self.tasks.discard(task)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")[1:]
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        connection = Connection(headers, json.loads(body), writer)
        self.requests.append(connection)
        script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
        await script(connection)
