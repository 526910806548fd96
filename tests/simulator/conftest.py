from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anthropic import AsyncAnthropic, DefaultAioHttpClient

from runner.simulator import Simulator


@pytest.fixture
async def client_of(anyio_backend: str) -> AsyncIterator[Callable[..., AsyncAnthropic]]:
    """Makes SDK clients for a simulator, without the SDK's own retries."""
    clients: list[AsyncAnthropic] = []

    def make(simulator: Simulator, **settings: Any) -> AsyncAnthropic:
        settings = {"api_key": "any", "max_retries": 0, **settings}
        client = AsyncAnthropic(
            base_url=simulator.base_url, http_client=DefaultAioHttpClient(), **settings
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()
