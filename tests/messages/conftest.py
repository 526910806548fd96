"""What the tests of this room share: the server, and no credentials."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.messages.wire import WireServer


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    wire = WireServer()
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    wire.base_url = f"http://127.0.0.1:{port}"
    yield wire
    listener.close()
    for task in list(wire.tasks):
        task.cancel()
    await asyncio.gather(*wire.tasks, return_exceptions=True)
    await listener.wait_closed()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the developer's own account reaches a test."""
    for name in list(os.environ):
        if name.startswith("ANTHROPIC_"):
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME"):  # where the SDK looks for a login
        monkeypatch.setenv(name, str(tmp_path))
