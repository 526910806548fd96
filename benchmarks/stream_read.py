"""CPU for each text event: our client beside the SDK's own `create(stream=True)`.

Run: python benchmarks/stream_read.py [--events 20000] [--packet 32] [--rounds 5]

A server in a process of its own sends one long answer, `--packet` events at a time; each reader takes it in turn, all
in one run, so that the ratios hold on a noisy machine. User and system time of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import anthropic

from runner.messages.client import MessagesClient

BODY = {
    "model": "claude-haiku-4-5",
    "max_tokens": 64_000,
    "messages": [{"role": "user", "content": "Write a long document."}],
}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(type: str, **fields: object) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **fields})}\n\n".encode()


def answer(events: int, packet: int) -> list[bytes]:
    """An answer in packets of so many events."""
    usage = {"input_tokens": 10, "output_tokens": 1}
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    delta = event(
        "content_block_delta", index=0, delta={"type": "text_delta", "text": " and so on"}
    )
    first = event("message_start", message=message)
    first += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    last = event("content_block_stop", index=0)
    last += event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9})
    last += event("message_stop")
    return [first, *[delta * packet] * (events // packet), last]


def serve(events: int, packet: int, channel: Connection) -> None:
    packets = [f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in answer(events, packet)] + [
        b"0\r\n\r\n"
    ]

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(HEAD)
                for packet in packets:
                    writer.write(packet)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(play, "127.0.0.1", 0)
        channel.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def measure(read: Callable[[], Awaitable[int]], events: int) -> float:
    """CPU in microseconds for each text event."""
    before = time.process_time()
    characters = await read()
    spent = time.process_time() - before
    assert characters == events * len(" and so on")
    return spent / events * 1e6


async def compare(url: str, events: int, rounds: int) -> None:
    ours = MessagesClient(base_url=url, one_block=False)
    default = anthropic.AsyncAnthropic(api_key="none", base_url=url)
    aio = anthropic.AsyncAnthropic(
        api_key="none", base_url=url, http_client=anthropic.DefaultAioHttpClient()
    )

    async def read_ours() -> int:
        async with ours.stream(BODY) as stream:
            return sum([len(piece) async for piece in stream])

    async def read_sdk(client: anthropic.AsyncAnthropic) -> int:
        characters = 0
        async for event in await client.messages.create(**BODY, stream=True):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                characters += len(event.delta.text)
        return characters

    readers = {
        "runner": read_ours,
        "SDK create(stream=True)": lambda: read_sdk(default),
        "the same on aiohttp": lambda: read_sdk(aio),
    }
    for read in readers.values():
        await read()
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            found[name].append(await measure(read, events))
    base = statistics.median(found["SDK create(stream=True)"])
    print(f"CPU microseconds a text event, {events:,} events, median of {rounds} rounds")
    for name, values in found.items():
        median = statistics.median(values)
        print(f"  {name:<26}{median:7.2f}   {median / base:5.2f} x")
    for client in (default, aio):
        await client.close()
    await ours.aclose()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--packet", type=int, default=32, help="events a packet")
    options = arguments.parse_args()
    events = options.events // options.packet * options.packet
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        del os.environ[name]
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(events, options.packet, there), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{here.recv()}"
        asyncio.run(compare(url, events, options.rounds))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
