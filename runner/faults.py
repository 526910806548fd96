"""Named points at which a process can be made to die, so that tests can prove what outlives it.

`RUNNER_FAULT=NAME:N` kills the process with SIGKILL when it reaches the point NAME for the N-th
time. `RUNNER_FAULT_LOG=FILE` writes the name of every point it reaches to a file, a line each.
Without these a point is one look at a boolean.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

armed = False  # on the hottest paths looked at before `hit` is called

_name = ""
_occurrence = 0
_log: int | None = None
_reached: Counter[str] = Counter()
_lock = threading.Lock()


def hit(name: str) -> None:
    """The process has reached the point `name`; here it dies, if that was asked for."""
    if armed:
        _hit(name)


def arm(fault: str = "", *, log: str = "") -> None:
    """Set what happens at the points from now on; without arguments, nothing.

    Args:
        fault: `NAME:N`, the point and the occurrence, counted from 1, at which to die.
        log: a file that takes the name of every point that is reached.

    Raises:
        ValueError: the fault is not of that form.
    """
    global armed, _name, _occurrence, _log
    name, _, occurrence = fault.rpartition(":")
    if fault and not (name and occurrence.isdecimal()):
        raise ValueError(f"RUNNER_FAULT={fault!r} is not NAME:N, such as commit.before:3")
    _name, _occurrence = name, int(occurrence or 0)
    _log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if log else None
    _reached.clear()
    armed = bool(fault or log)


def _hit(name: str) -> None:
    with _lock:  # the points lie in several threads
        _reached[name] += 1
        if _log is not None:
            os.write(_log, f"{name}\n".encode())
        if name == _name and _reached[name] == _occurrence:
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("RUNNER_FAULT", ""), log=os.environ.get("RUNNER_FAULT_LOG", ""))
