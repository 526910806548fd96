"""What Ctrl-C and its kin do to a working process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from runner.cli.main import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_SHOW_CURSOR = b"\x1b[?25h\r\n"


@contextmanager
def stopping_by_signal(stop: Callable[[], None]) -> Iterator[None]:
    """The first signal calls `stop` in the running event loop; the second ends the process at once.

    The second must work even when the loop is stuck, so it is handled where the interpreter handles
    signals and not in the loop. What was saved stays saved: nothing is held back for the end.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            _end_at_once()
        asked = True
        loop.call_soon_threadsafe(stop)

    with _handled(handle):
        yield


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Any signal ends the process at once, also while a thread hangs in a connection."""
    with _handled(lambda _number, _frame: _end_at_once()):
        yield


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once() -> None:
    # A live display may have hidden the cursor. Written past all buffers, which may be in use.
    with suppress(OSError):
        if os.isatty(sys.__stderr__.fileno() if sys.__stderr__ else 2):
            os.write(2, _SHOW_CURSOR)
    os._exit(INTERRUPTED)
