"""Events a second of CPU that the simulator can serve: its own process alone, without the client.

    python benchmarks/simulator.py [--streams 200] [--seconds 5]

`burst`: as fast as possible, events share packets. `trickle`: every event is its own packet, at
its due time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

_SERVE = "from runner.cli.simulate import simulate; simulate()"


@dataclass
class Served:
    """What one run came to."""

    events: int = 0
    requests: int = 0


def main() -> None:
    """Run both modes and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--tokens-per-second", type=float, default=75.0, help="of a trickle")
    arguments = parser.parse_args()
    for mode, speed in (("burst", 0.0), ("trickle", arguments.tokens_per_second)):
        _measure(mode, speed, arguments.streams, arguments.seconds)


def _measure(mode: str, speed: float, streams: int, seconds: float) -> None:
    command = [sys.executable, "-c", _SERVE, "--tokens-per-second", str(speed)]
    command += ["--document-tokens", "3000", "5000"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        cpu_before_s, started_s = _cpu_s(server.pid), time.monotonic()
        served = asyncio.run(_load(url, streams, seconds))
        cpu_s, wall_s = _cpu_s(server.pid) - cpu_before_s, time.monotonic() - started_s
    finally:
        server.terminate()
        server.communicate()
    print(
        f"{mode:8} {streams} streams: {served.events / cpu_s:9,.0f} events a second of CPU, "
        f"{cpu_s / served.events * 1e6:5.1f} µs an event "
        f"({served.events:,} events, {served.requests} requests, {wall_s:.1f} s, "
        f"server at {100 * cpu_s / wall_s:.0f} % of a core)"
    )


def _cpu_s(pid: int) -> float:
    """User and system time of a process, from the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _load(url: str, streams: int, seconds: float) -> Served:
    served = Served()
    until_s = time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(
            *(_reader(session, url, stream, until_s, served) for stream in range(streams))
        )
    return served


async def _reader(
    session: aiohttp.ClientSession, url: str, stream: int, until_s: float, served: Served
) -> None:
    round_ = 0
    while time.monotonic() < until_s:
        round_ += 1
        body = {
            "model": "claude-haiku-4-5",
            "max_tokens": 64_000,
            "stream": True,
            "messages": [{"role": "user", "content": f"benchmark {stream} {round_}"}],
        }
        headers = {"anthropic-version": "2023-06-01"}
        async with session.post(f"{url}/v1/messages", json=body, headers=headers) as response:
            response.raise_for_status()
            served.requests += 1
            async for chunk in response.content.iter_any():
                served.events += chunk.count(b'"text_delta"')
                if time.monotonic() >= until_s:
                    return


if __name__ == "__main__":
    main()
