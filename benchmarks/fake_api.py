"""A fast fake of the Messages API, in a process of its own, for benchmarks that measure a client.

It answers a prompt that ends in `document NUMBER of LENGTH` with a text of so many characters, cut at
four characters a token of `max_tokens`. A prefill goes on at its very end; after a request to go on
(`turn`) the reply begins with the last words that were asked for. `GET /books` tells what was asked and
sent for each document. It checks nothing and simulates no fault: that is `runner/simulator`'s work.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

from report import pin

CHARACTERS_A_TOKEN = 4
_PROMPT = re.compile(r"document (\d+) of (\d+)")
_LAST_WORDS = re.compile(r"<last_words>(.*)</last_words>\s*\Z", re.DOTALL)
_WORDS = (  # noqa: SIM905
    "the river ran slowly past old mills and over smooth stones while people on its banks spoke of "
    "work weather bread and ships that had gone down to sea long before anyone could remember them"
).split()


@dataclass(frozen=True)
class Speed:
    """How answers are sent.

    Args:
        event_characters: text in one event.
        packet_events: events written at once.
        events_per_second: of one stream; 0: as fast as the client reads.
        first_event_s: time to the first one.
    """

    event_characters: int = 16
    packet_events: int = 32
    events_per_second: float = 0.0
    first_event_s: float = 0.0


@dataclass
class Book:
    """What was asked and sent for one document, in characters of output."""

    requests: int = 0
    sent: int = 0


@dataclass
class Api:
    speed: Speed
    books: dict[int, Book] = field(default_factory=dict)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


def prompt(number: int, length: int) -> str:
    """The prompt that asks for a document."""
    return f"Write document {number} of {length} characters."


@cache
def _prose(length: int) -> str:
    parts, size, at = [], 0, 7
    while size < length:
        at = (at * 1_103_515_245 + 12_345) % 2**31
        word = _WORDS[at // 65_536 % len(_WORDS)]
        parts.append(word if at % 11 else f"{word}.\n" if at % 5 else f"{word}, {at % 97}")
        size += len(parts[-1]) + 1
    return " ".join(parts)[:length]


def document(number: int, length: int) -> str:
    """The text of a document, as one endless answer would give it."""
    return (f"Document {number}. " + _prose(max(length, 1_000)))[: length - 1] + "."


@contextmanager
def serving(speed: Speed, *, core: int | None = 1) -> Iterator[str]:
    """A server in a process of its own; gives its base URL.

    Args:
        core: it is kept on this core, where the system can.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(speed, core, there), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(speed: Speed, core: int | None, channel: Connection) -> None:
    if core is not None:
        pin([core])

    async def main() -> None:
        api = Api(speed)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await _answer(api, reader, writer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=2_000, limit=2**22)
        channel.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def _answer(api: Api, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, path, _ = head.split(b" ", 2)
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    body = await reader.readexactly(int(length[1])) if length else b""
    if path.startswith(b"/books"):
        _send_json(writer, 200, {str(number): asdict(book) for number, book in api.books.items()})
    elif method != b"POST" or not path.partition(b"?")[0].endswith((b"/messages", b"/completions")):
        _send_json(writer, 404, {"type": "error", "error": {"type": "not_found_error"}})
    elif path.partition(b"?")[0].endswith(b"/messages"):
        await _message(api, json.loads(body), writer)
    else:
        await _completion(api, json.loads(body), writer)
    await writer.drain()


def _send_json(writer: asyncio.StreamWriter, status: int, value: object) -> None:
    data = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
    writer.write(head.encode() + b"\r\n\r\n" + data)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def _plan(body: Mapping[str, Any]) -> tuple[int, str, bool, int]:
    """The document's number, the text to send, whether it is cut, and the input's tokens."""
    messages = body["messages"]
    texts = [_text(message["content"]) for message in messages]
    number, length = map(int, _PROMPT.findall(texts[0] if len(texts) == 1 else " ".join(texts))[0])
    begun, repeat = "", ""
    if messages[-1]["role"] == "assistant":
        begun = texts[-1]
    elif len(messages) > 1 and messages[-2]["role"] == "assistant":
        begun = texts[-2]
        asked = _LAST_WORDS.search(texts[-1])
        repeat = asked[1] if asked else ""
    most = int(body.get("max_tokens") or body.get("max_completion_tokens") or 10**6)
    rest = document(number, length)[len(begun) :]
    text = repeat + rest[: max(1, most * CHARACTERS_A_TOKEN - len(repeat))]
    cut = len(text) - len(repeat) < len(rest)
    return number, text, cut, sum(map(len, texts)) // CHARACTERS_A_TOKEN


def _usage(body: Mapping[str, Any], tokens: int) -> dict[str, int]:
    """As if a mark at the document's end found all but its last part in the cache."""
    if '"cache_control"' not in json.dumps(body["messages"][-2:])[-4_000:]:
        return {"input_tokens": tokens, "output_tokens": 1}
    return {
        "input_tokens": 100,
        "cache_creation_input_tokens": tokens // 10,
        "cache_read_input_tokens": tokens - tokens // 10,
        "output_tokens": 1,
    }


async def _message(api: Api, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    number, text, cut, tokens = _plan(body)
    book = api.books.setdefault(number, Book())
    book.requests += 1
    reason = "max_tokens" if cut else "end_turn"
    usage = _usage(body, tokens)
    message = {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"],
        "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    final = {"output_tokens": max(1, len(text) // CHARACTERS_A_TOKEN)}
    if not body.get("stream"):
        if api.speed.first_event_s or api.speed.events_per_second:
            await asyncio.sleep(_whole_s(api.speed, len(text)))
        book.sent += len(text)
        content = [{"type": "text", "text": text}]
        whole = {**message, "content": content, "stop_reason": reason, "usage": usage | final}
        _send_json(writer, 200, whole)
        return
    first = _event("message_start", message=message) + _event(
        "content_block_start", index=0, content_block={"type": "text", "text": ""}
    )
    last = (
        _event("content_block_stop", index=0)
        + _event("message_delta", delta={"stop_reason": reason}, usage=final)
        + _event("message_stop")
    )
    head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":'
    await _stream(api.speed, book, writer, text, first, head, b"}}\n\n", last)


async def _completion(api: Api, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    """The same in the form of OpenAI's chat completions, which other programs speak."""
    number, text, cut, tokens = _plan(body)
    book = api.books.setdefault(number, Book())
    book.requests += 1
    if api.speed.first_event_s or api.speed.events_per_second:
        await asyncio.sleep(_whole_s(api.speed, len(text)))
    book.sent += len(text)
    written = max(1, len(text) // CHARACTERS_A_TOKEN)
    _send_json(
        writer,
        200,
        {
            "id": f"c-{number}", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{
                "index": 0, "finish_reason": "length" if cut else "stop",
                "message": {"role": "assistant", "content": text},
            }],
            "usage": {
                "prompt_tokens": tokens, "completion_tokens": written,
                "total_tokens": tokens + written,
            },
        },
    )  # fmt: skip


def _whole_s(speed: Speed, characters: int) -> float:
    events = characters / speed.event_characters
    return speed.first_event_s + (
        events / speed.events_per_second if speed.events_per_second else 0.0
    )


def _event(type: str, **fields: object) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **fields})}\n\n".encode()


async def _stream(
    speed: Speed,
    book: Book,
    writer: asyncio.StreamWriter,
    text: str,
    first: bytes,
    before: bytes,
    after: bytes,
    last: bytes,
) -> None:
    def chunk(data: bytes) -> bytes:
        return f"{len(data):x}\r\n".encode() + data + b"\r\n"

    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        + chunk(first)
    )
    if speed.first_event_s:
        await asyncio.sleep(speed.first_event_s)
    size, packet = speed.event_characters, speed.event_characters * speed.packet_events
    due = time.monotonic()
    for start in range(0, len(text), packet):
        part = text[start : start + packet]
        pieces = [part[at : at + size] for at in range(0, len(part), size)]
        data = b"".join(before + json.dumps(piece).encode() + after for piece in pieces)
        book.sent += len(part)
        writer.write(chunk(data))
        await writer.drain()
        if speed.events_per_second:
            due += len(pieces) / speed.events_per_second
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
    writer.write(chunk(last) + b"0\r\n\r\n")
