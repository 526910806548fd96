"""Shows a run while it works: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import IO

import anyio
import anyio.to_thread
from rich.console import Console
from rich.live import Live

from runner.cli.common import message
from runner.cli.display import Snapshot, draw, final_jobs, line, snapshot
from runner.cli.harmless import one_line
from runner.cli.meter import Meter
from runner.store.records import BatchRow
from runner.workers.progress import Progress

LIVE_S = 0.2
PLAIN_S = 5.0

ReadBatches = Callable[[], Awaitable[Sequence[BatchRow]]]


def can_draw(stream: IO[str]) -> bool:
    """Whether a live picture may be drawn: on a terminal that is not a dumb one."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class Show:
    """Prints what a run does until it is told that the run is over.

    Drawing happens in a thread, since a terminal that was stopped (Ctrl-S) or closed must not hold
    up the streams; when it can take nothing any more, the show ends and the work goes on.

    Args:
        batches: gives the batches this run works on, with their counts.
        live: draw a picture; else print a line every few seconds.
    """

    def __init__(self, batches: ReadBatches, progress: Progress, *, live: bool) -> None:
        self._batches, self._progress, self._live = batches, progress, live
        self._console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        self._noticed = 0
        self._over = anyio.Event()
        self._woken = anyio.Event()

    def look(self) -> None:
        """Show what is new at once: the user waits for a word."""
        self._woken.set()

    def end(self) -> None:
        """The run is over: show its last state and return from `run`."""
        self._over.set()
        self._woken.set()

    async def run(self) -> None:
        """Show until `end` is called, or the terminal is gone."""
        with suppress(OSError):
            await (self._run_live() if self._live else self._run_plain())

    async def _run_live(self) -> None:
        meter = await self._meter()
        picture = Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        await _in_thread(picture.start)
        try:
            while True:
                last = self._over.is_set()
                shot = await self._shot(meter)
                await _in_thread(self._draw, picture, shot, self._new_notices())
                if last:
                    return
                await self._wait(LIVE_S)
        finally:
            with anyio.CancelScope(shield=True):
                await _in_thread(picture.stop)

    async def _run_plain(self) -> None:
        meter = await self._meter()
        while not self._over.is_set():
            await self._wait(PLAIN_S)
            text = "\n".join((*self._new_notices(), line(await self._shot(meter))))
            await _in_thread(message, text)

    async def _meter(self) -> Meter:
        batches = await self._batches()
        tokens = sum(batch.usage.output_tokens for batch in batches)
        return Meter(monotonic(), final_jobs(batches), tokens)

    async def _shot(self, meter: Meter) -> Snapshot:
        meter.sample(monotonic(), self._progress.output_characters)
        return snapshot(await self._batches(), self._progress, meter)

    def _draw(self, picture: Live, shot: Snapshot, notices: Sequence[str]) -> None:
        for notice in notices:
            self._console.print(notice, soft_wrap=True)
        width, height = self._console.size
        picture.update(draw(shot, width, height), refresh=True)

    def _new_notices(self) -> list[str]:
        """Notices since the last look; those that fell off the end of a long list are lost."""
        new = min(self._progress.notice_count - self._noticed, len(self._progress.notices))
        self._noticed = self._progress.notice_count
        return [
            one_line(text)
            for text in list(self._progress.notices)[len(self._progress.notices) - new :]
        ]

    async def _wait(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._woken.wait()
        if not self._over.is_set():
            self._woken = anyio.Event()


async def _in_thread(function: Callable[..., object], *args: object) -> None:
    # Left alone when cancelled: a terminal that takes nothing must not hold up the end either.
    await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
