"""Recovery: `kill -9` with a million jobs in the queue and 500 streams in flight.

    python benchmarks/recovery.py [--jobs N] [--streams N] [--db sqlite|postgres] [--quick]

`runner work` is killed while so many documents stream, and started again at once. Told is the time from
the start of the process to its first continued request, as the API sees it: a request that carries text
which the killed process had saved. The API is a process that sends each stream a few words five times a
second, and ends none.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from million import MODEL, Queue, command, queues, write_job_file
from report import Report, arguments, clean_environment, cpu_of

from runner.store.store import Store

TIMES = 3


def event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


MESSAGE: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
    "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 300, "output_tokens": 1},
}  # fmt: skip
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_1\r\n"
    b"connection: close\r\n\r\n"
)
BEGIN = event("message_start", message=MESSAGE) + event(
    "content_block_start", index=0, content_block={"type": "text", "text": ""}
)
WORDS = ("harbour", "stone", "lantern", "winter", "meadow", "silver", "letter", "garden", "thunder")
NOTHING = b'{"type": "error", "error": {"type": "not_found_error", "message": "none"}}'


class Api:
    """Streams without end. Tells on stdout how many stream, and when requests continued a text."""

    def __init__(self) -> None:
        self.streams = 0

    async def serve(self) -> None:
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0, backlog=2_000)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
            body = await reader.readexactly(int(length or 0))
            if not head.startswith(b"POST /v1/messages"):
                writer.write(
                    b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n" % len(NOTHING) + NOTHING
                )
                return
            if len(json.loads(body)["messages"]) > 1:
                print(f"continued {time.monotonic()}", flush=True)
            writer.write(HEAD + BEGIN)
            await self.stream(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def stream(self, writer: asyncio.StreamWriter) -> None:
        self.streams += 1
        print(f"streams {self.streams}", flush=True)
        try:
            while True:
                # Never the same twice: a document that goes round in circles is ended, and one
                # whose continuation reads like its beginning was begun afresh.
                words = " ".join(random.sample(WORDS, 3)) + f" {random.randrange(10**6)}, "
                delta = {"type": "text_delta", "text": words}
                writer.write(event("content_block_delta", index=0, delta=delta))
                await writer.drain()
                await asyncio.sleep(0.2)
        finally:
            self.streams -= 1


class Told:
    """What the API's process says."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--api"], stdout=subprocess.PIPE, text=True
        )
        self.url = f"http://127.0.0.1:{self.line()}"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def until(self, word: str, least: float) -> float:
        """Reads on to a line of that word, and at least that number."""
        while True:
            said, _, number = self.line().partition(" ")
            if said == word and float(number) >= least:
                return float(number)


def worker(queue: Queue, api: Told) -> subprocess.Popen[Any]:
    environment = {**os.environ, "ANTHROPIC_API_KEY": "none", "ANTHROPIC_BASE_URL": api.url}
    return subprocess.Popen(
        [sys.executable, "-m", "runner", "work", "--no-live", "--db", queue.name],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


async def allow(queue: Queue, streams: int) -> None:
    async with await Store.open(queue.name) as store:
        for row in await store.batches():
            await store.set_limits(row.key, {"concurrency": streams})


def main() -> None:
    if sys.argv[1:] == ["--api"]:
        asyncio.run(Api().serve())
    parser = arguments(__doc__ or "", quick=True)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--db", choices=["sqlite", "postgres"], default="sqlite")
    options = parser.parse_args()
    clean_environment()
    jobs = 20_000 if options.quick else options.jobs
    report = Report("recovery")
    table = report.table(
        f"From `kill -9` to the first continued request, {jobs:,} jobs, {options.streams} streams",
        "time", "wall", "CPU until then",
    )  # fmt: skip
    folder = Path(tempfile.mkdtemp(dir=".", prefix="recovery-"))
    walls, api = [], Told()
    try:
        with queues(options.db, folder) as new:
            queue = new()
            write_job_file(folder / "jobs.jsonl", jobs)
            command("submit", str(folder / "jobs.jsonl"), queue=queue)
            asyncio.run(allow(queue, options.streams))
            process = worker(queue, api)
            for number in range(1, TIMES + 1):
                api.until("streams", options.streams)
                print(f"{number}: all stream", file=sys.stderr)
                time.sleep(2)  # for the last of them to be saved once
                process.send_signal(signal.SIGKILL)
                process.wait()
                began = time.monotonic()
                process = worker(queue, api)
                walls.append(api.until("continued", began) - began)
                print(f"{number}: went on after {walls[-1]:.2f} s", file=sys.stderr)
                table.add(number, f"{walls[-1]:.2f} s", f"{cpu_of(process.pid):.2f} s")
            process.kill()
            process.wait()
    finally:
        api.process.kill()
        shutil.rmtree(folder)
    report.figure(
        f"recovery, {jobs:,} jobs, {options.streams} streams", statistics.median(walls), "s", goal=3
    )
    report.finish(options)


if __name__ == "__main__":
    main()
