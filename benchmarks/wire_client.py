"""One way of reading streams, in a process of its own: what `benchmarks/wire.py` starts.

It reads one JSON object of options from its command line, and prints one with what it measured.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import Cpu, clean_environment
from wire_server import EVENT_CHARACTERS, alone

MODEL = "claude-sonnet-5-5"
LAG_SAMPLED = 23  # of so many saves the lag of one is looked at
SETTLE_S = 2  # from the last stream's first text to the beginning of a measurement


@dataclass(frozen=True)
class Options:
    """What one process is to do.

    Args:
        way: `sdk`, `floor`, `submit` (puts the runner's jobs into the database), or `runner`.
        order: what the server is asked for.
        streams: how many at once.
        seconds: how long a trickle is measured.
        events: of a burst, in all.
        requests: short requests that are measured while the streams are open.
        saves: the runner's texts reach the disk.
        pairs: so many times the runner saves for a second, and does not for another: what saving costs,
            whatever else the machine does.
        loop: `asyncio` or `uvloop`.
        database: the runner's.
        profile: a file for where the time went.
    """

    url: str
    way: str
    order: str
    streams: int
    core: int = 0
    seconds: float = 6.0
    events: int = 0
    requests: int = 0
    saves: bool = True
    pairs: int = 0
    loop: str = "asyncio"
    database: str = ""
    profile: str = ""


def body(order: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_tokens": 64_000,
        "messages": [{"role": "user", "content": f"[[{order}]]"}],
    }


class Meter:
    """Measures while `events()` grows: a window of a trickle, or all of a burst."""

    def __init__(self, options: Options, events: Callable[[], int]) -> None:
        self.options = options
        self.events = events
        self.found: dict[str, Any] = {}

    async def window(self, opened: Callable[[], bool]) -> None:
        """Measure for `seconds` once all streams are open and in their stride."""
        until = time.monotonic() + 60
        while not opened() and time.monotonic() < until:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.05)
        self.found["opened"] = opened()
        await asyncio.sleep(SETTLE_S)
        gc.collect()
        with self.profiled():
            before = self.events()
            with Cpu() as cpu:
                await asyncio.sleep(self.options.seconds)
            self.note(cpu, self.events() - before)

    async def in_pairs(self, opened: Callable[[], bool], switch: Callable[[bool], None]) -> None:
        """Measure with and without what `switch` turns on and off, one second after the other."""
        while not opened():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.05)
        await asyncio.sleep(SETTLE_S)
        ratios = []
        for number in range(self.options.pairs):
            each: dict[bool, float] = {}
            for on in (True, False) if number % 2 else (False, True):
                switch(on)
                await asyncio.sleep(0.3)
                before = self.events()
                with Cpu() as cpu:
                    await asyncio.sleep(0.92)  # four turns of all streams
                each[on] = cpu.cpu_s / (self.events() - before)
            ratios.append(each[True] / each[False])
            self.note(cpu, self.events() - before)
        switch(True)
        self.found["ratio"] = statistics.median(ratios)

    def note(self, cpu: Cpu, events: int) -> None:
        self.found |= {"cpu_s": cpu.cpu_s, "wall_s": cpu.wall_s, "events": events}

    def profiled(self) -> Any:
        if not self.options.profile:
            return nullcontext()
        return Profile(self.options.profile)


class Profile:
    """cProfile of this thread: where its time goes, function by function."""

    def __init__(self, path: str) -> None:
        import cProfile

        self._path = path
        self._profile = cProfile.Profile()

    def __enter__(self) -> None:
        self._profile.enable()

    def __exit__(self, *_: object) -> None:
        import pstats

        self._profile.disable()
        with Path(self._path).open("w") as out:
            statistics = pstats.Stats(self._profile, stream=out)
            statistics.sort_stats("tottime").print_stats(45)


async def read_all(options: Options, read: Callable[[], Awaitable[None]], meter: Meter) -> None:
    tasks = [asyncio.create_task(read()) for _ in range(options.streams)]
    if options.events:
        with meter.profiled(), Cpu() as cpu:
            await asyncio.gather(*tasks)
        meter.note(cpu, meter.events())
        return
    await meter.window(lambda: meter.events() >= 2 * options.streams)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def sdk(options: Options) -> dict[str, Any]:
    import anthropic
    import httpx2

    limits = httpx2.Limits(max_connections=2000, max_keepalive_connections=2000)
    http = anthropic.DefaultAsyncHttpxClient(limits=limits)
    client = anthropic.AsyncAnthropic(api_key="k" * 20, base_url=options.url, http_client=http)
    characters = 0

    async def read() -> None:
        nonlocal characters
        async for event in await client.messages.create(**body(options.order), stream=True):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                characters += len(event.delta.text)

    meter = Meter(options, lambda: characters // EVENT_CHARACTERS)
    await read_all(options, read, meter)
    return meter.found


async def floor(options: Options) -> dict[str, Any]:
    """aiohttp, lines split by hand, orjson: the least that a reader in Python does."""
    import ssl

    import aiohttp
    import orjson

    context = ssl.create_default_context()
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    characters = 0
    async with aiohttp.ClientSession(connector=connector) as session:

        async def read() -> None:
            nonlocal characters
            url, tail = options.url + "/v1/messages", b""
            async with session.post(url, json=body(options.order) | {"stream": True}) as response:
                async for packet in response.content.iter_any():
                    *lines, tail = (tail + packet).split(b"\n")
                    for line in lines:
                        if line.startswith(b"data: "):
                            event = orjson.loads(line[6:])
                            if event["type"] == "content_block_delta":
                                characters += len(event["delta"]["text"])

        meter = Meter(options, lambda: characters // EVENT_CHARACTERS)
        await read_all(options, read, meter)
    return meter.found


async def submit(options: Options) -> dict[str, Any]:
    from runner.jobs.spec import BatchLimits, BatchSpec
    from runner.library import open_store

    batch = BatchSpec("wire", BatchLimits(concurrency=options.streams + 8))
    async with open_store(options.database) as store:
        await store.submit(batch, jobs("s", options.order, options.streams))
    return {}


def jobs(name: str, order: str, count: int) -> list[Any]:
    from runner.jobs.spec import JobSpec

    message = {"role": "user", "content": f"[[{order}]]"}
    return [JobSpec(f"{name}{n}", MODEL, (message,), 64_000) for n in range(count)]


async def runner(options: Options) -> dict[str, Any]:
    from runner.library import open_store
    from runner.messages.client import MessagesClient
    from runner.messages.tls import read_small
    from runner.store.store import Store
    from runner.workers.progress import Progress
    from runner.workers.worker import Worker

    lags: list[float] = []
    saves = 0
    save_all = Store.save_all

    def watched(store: Store, chunks: Any) -> Any:
        nonlocal saves
        sampled = chunks[-saves % LAG_SAMPLED :: LAG_SAMPLED]
        saves += len(chunks)
        future = save_all(store, chunks)
        if sampled:
            sent = [int(word) for chunk in sampled for word in chunk.text.split()]

            def saved(_: object) -> None:
                now = time.monotonic_ns() // 1000
                lags.extend(now - at for at in sent)

            future.add_done_callback(saved)
        return future

    def thrown_away(_: Store, chunks: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result([(None, None)] * len(chunks))
        return future

    def switch(on: bool) -> None:
        keeps = save_all if options.events else watched  # a burst tells no times
        Store.save_all = keeps if on else thrown_away  # type: ignore[method-assign]

    switch(options.saves)
    progress = Progress()
    read_small()  # as the commands do
    client = MessagesClient(
        api_key="k" * 20, base_url=options.url, one_block=False, connections=2000
    )
    async with open_store(options.database) as store:
        worker = Worker(store, client, progress=progress)
        meter = Meter(options, lambda: progress.output_characters // EVENT_CHARACTERS)
        if options.events:
            with meter.profiled(), Cpu() as cpu:
                await worker.run()
            meter.note(cpu, meter.events())
        else:
            working = asyncio.create_task(worker.run())

            def writing() -> bool:
                live = progress.live.values()
                return sum(one.characters > 0 for one in live) >= options.streams

            if options.order == "silent":
                await meter.window(lambda: progress.calls >= options.streams)
            elif options.pairs:
                await meter.in_pairs(writing, switch)
            else:
                await meter.window(writing)
                # All that was sampled while the window was open, and a little from before it.
                share = options.seconds / (options.seconds + SETTLE_S)
                lags = lags[round(len(lags) * (1 - share)) :]
            if options.requests:
                await short_requests(options, store, progress, meter)
            worker.stop()
            await working
    meter.found["lag_ms"] = lag(lags)
    meter.found["saves"] = saves
    await client.aclose()
    return meter.found


async def short_requests(options: Options, store: Any, progress: Any, meter: Meter) -> None:
    """What a whole short job costs while the streams are open."""
    from runner.jobs.spec import BatchLimits, BatchSpec

    batch = BatchSpec("wire", BatchLimits(concurrency=options.streams + 8))
    for name, count in (("warm", 100), ("short", options.requests)):
        before = progress.calls
        await store.submit(batch, jobs(name, "short", count))
        with meter.profiled() if name == "short" else nullcontext(), Cpu() as cpu:
            while progress.calls < before + count or len(progress.live) > options.streams:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        meter.found |= {"cpu_s": cpu.cpu_s, "wall_s": cpu.wall_s, "requests": count}


def lag(lags: list[float]) -> dict[str, float]:
    if not lags:
        return {}
    lags = sorted(lags)
    return {
        name: lags[int(part * (len(lags) - 1))] / 1000
        for name, part in (("median", 0.5), ("p99", 0.99), ("most", 1))
    }


WAYS = {"sdk": sdk, "floor": floor, "submit": submit, "runner": runner}


def main() -> None:
    options = Options(**json.loads(sys.argv[1]))
    clean_environment()
    alone(options.core)
    run: Any = asyncio.run
    if options.loop == "uvloop":
        import uvloop

        run = uvloop.run
    found = run(WAYS[options.way](options))
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
