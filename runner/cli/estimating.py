"""Makes the estimates of job files, for the commands that show or ask by them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final

import anyio

from runner.cli import working
from runner.cli.common import message
from runner.cli.harmless import one_line
from runner.cli.rehearsing import rehearse
from runner.estimating.clock import Speed
from runner.estimating.estimate import Sources, estimate
from runner.estimating.result import BatchEstimate
from runner.jobs.jobfile import JobFile
from runner.jobs.price import Price
from runner.jobs.spec import BatchSpec, JobSpec
from runner.messages.client import MessagesClient
from runner.messages.errors import CredentialsError
from runner.messages.prices import price_of
from runner.store import migrate
from runner.store.engine import database_path
from runner.store.reading import ReadingStore
from runner.store.records import FinishedJob

ANTHROPIC: Final = "https://api.anthropic.com"
# For a rehearsal it writes as fast as it can, many tokens at a time.
_REHEARSED_TOKENS_PER_EVENT: Final = 64


async def estimates_of(
    job_files: Sequence[JobFile],
    database: str,
    *,
    simulate: bool,
    limit: int | None = None,
    needs_key: bool = False,
) -> list[BatchEstimate]:
    """What the jobs of these files would cost from here; nothing is queued, made or spent.

    Args:
        database: learned from where it is there.
        simulate: their documents will be simulated ones.
        limit: only the first so many jobs of each file.
        needs_key: what is estimated is about to be done; else it does without.

    Raises:
        CredentialsError: there is no key, and one is needed.
        JobFileError: a file has changed since it was checked, and is wrong now.
        SchemaTooNew: a newer version of this program wrote the database.
        NotADatabase: the file is something else, or damaged.
    """
    async with _sources(database, simulate=simulate, needs_key=needs_key) as sources:
        return [
            await estimate(job_file.batch, partial(job_file.first, limit), job_file.models, sources)
            for job_file in job_files
        ]


@asynccontextmanager
async def _sources(database: str, *, simulate: bool, needs_key: bool) -> AsyncIterator[Sources]:
    async with AsyncExitStack() as stack:
        client = await _client(stack, simulate=simulate, needs_key=needs_key)
        endpoint = os.environ.get("ANTHROPIC_BASE_URL") or ANTHROPIC
        base_url = endpoint if client is None else client.base_url
        now = datetime.now(UTC)

        def price(model: str, batch: BatchSpec) -> Price | None:
            return price_of(model, base_url=base_url, at=now, own=batch.limits.prices)

        async def trial(batch: BatchSpec, jobs: Sequence[JobSpec]) -> Sequence[FinishedJob]:
            if client is None:
                return ()
            return await rehearse(client, batch, jobs)

        yield Sources(
            price_of=price,
            base_url=base_url,
            client=client,
            store=await _store(stack, database),
            simulated=simulate,
            rehearse=trial if simulate else None,
            speed=Speed(working.SIMULATED_TOKENS_PER_SECOND, 0.0, measured=True)
            if simulate
            else None,
        )


async def _client(
    stack: AsyncExitStack, *, simulate: bool, needs_key: bool
) -> MessagesClient | None:
    """The way to the API; None where there is no key."""
    if simulate:
        from runner.simulator import Simulator, SimulatorOptions

        options = SimulatorOptions(tokens_per_event=_REHEARSED_TOKENS_PER_EVENT, bills_kept=0)
        simulator = await stack.enter_async_context(Simulator(options))
        client = MessagesClient(api_key="simulated", base_url=simulator.base_url, one_block=False)
    else:
        try:
            client = MessagesClient()
        except CredentialsError:
            if needs_key:
                raise
            return None
    stack.push_async_callback(_close, client)
    return client


async def _close(client: MessagesClient) -> None:
    with anyio.CancelScope(shield=True):
        await client.aclose()


async def _store(stack: AsyncExitStack, database: str) -> ReadingStore | None:
    """The database to learn from; None where there is none yet, or it is of an older version."""
    path = database_path(database)
    version = await anyio.to_thread.run_sync(migrate.current, path)
    if version is None:
        return None
    if version != migrate.head():
        message(one_line(f"{path} was written by an older version: nothing is learned from it"))
        return None
    return await stack.enter_async_context(await ReadingStore.open_to_read(path))
