"""The library face: open a store, submit jobs, run them, read documents. All async.

    async with open_store("runner.db") as store:
        await submit(store, "jobs.yaml")
        async with run(store) as documents:
            async for document in documents:
                print(document.id, document.finish, len(document.text))

The command line is a thin layer over these functions.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio

from runner.continuation.document import GrowingDocument, fold
from runner.errors import UsageError
from runner.jobs.jobfile import JobFile, read_job_file
from runner.jobs.price import usd
from runner.jobs.spec import BatchSpec, JobSpec
from runner.jobs.states import Finish, State
from runner.messages.client import MessagesClient
from runner.messages.prices import is_priced
from runner.store import copying
from runner.store.copying import CopyReceipt
from runner.store.records import JobRow, OnConflict, PauseCause, SavedCall, SubmitReceipt
from runner.store.store import Store
from runner.workers.progress import Progress
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker

# Pauses that a new run lifts by itself: its owner has had the chance to mend their cause.
LIFTED_BY_RUN = (
    PauseCause.CREDENTIALS,
    PauseCause.SPEND_CAP,
    PauseCause.BUDGET,
    PauseCause.BREAKER,
)

FOLLOW_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Document:
    """A job's text so far, or finished.

    Args:
        finish: how the document ended; None while it has not.
        complete: it is whole. A cut, failed or unfinished document is not.
        error: why it failed or waits.
        calls: what was asked for it, with seams, usage and cost, in order.
        cost_usd: what its job cost so far, as far as the price is known.
        unpriced_calls: calls whose price nobody knows; they stand in no cost.
    """

    id: str
    batch: str
    text: str
    state: State
    finish: Finish | None
    complete: bool
    error: str | None = None
    calls: tuple[SavedCall, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    cost_usd: Decimal = Decimal(0)
    unpriced_calls: int = 0


@asynccontextmanager
async def open_store(
    database: str | Path = "runner.db", *, create: bool = True
) -> AsyncIterator[Store]:
    """Open a database, made and brought up to date on first use, and close it at the end.

    Args:
        database: a path or a SQLAlchemy URL.
        create: False refuses a database that is not there yet.

    Raises:
        StoreUnavailable: it cannot be opened.
        SchemaTooNew: a newer version of this program wrote it.
        NotADatabase: the file is something else, or damaged.
    """
    store = await Store.open(database, create=create)
    try:
        yield store
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


async def submit(
    store: Store,
    jobs: str | Path | JobFile | Iterable[JobSpec],
    *,
    batch: str | BatchSpec | None = None,
    on_conflict: OnConflict = OnConflict.ERROR,
    simulated: bool = False,
) -> SubmitReceipt:
    """Queue jobs. What is queued already under the same id and prompt is left as it is.

    Args:
        jobs: a job file, its path, or the jobs themselves.
        batch: the batch's name; needed for jobs that come from no file, whose limits it may set.
        simulated: their documents will come from the simulator.

    Raises:
        JobFileError: the file was refused, whole; nothing is queued.
        SubmitConflict: an id is known with another prompt; nothing is queued.
        UsageError: the batch holds documents of the other kind, simulated or real; or it has a
            budget in money, and the price of a model is not known.
    """
    if isinstance(jobs, (str, Path)):
        path, name = Path(jobs), batch.name if isinstance(batch, BatchSpec) else batch
        jobs = await anyio.to_thread.run_sync(
            lambda: read_job_file(path, batch=name, is_priced=is_priced)
        )
    if isinstance(jobs, JobFile):
        return await store.submit(
            jobs.batch, jobs.jobs, on_conflict=on_conflict, simulated=simulated
        )
    if batch is None:
        raise UsageError("jobs that come from no file need a batch name: submit(…, batch=NAME)")
    spec, jobs = batch if isinstance(batch, BatchSpec) else BatchSpec(batch), tuple(jobs)
    for job in jobs:
        _refuse_unpriced(spec, job)
    return await store.submit(spec, jobs, on_conflict=on_conflict, simulated=simulated)


def _refuse_unpriced(batch: BatchSpec, job: JobSpec) -> None:
    """Refuse a budget in money that cannot be kept, for nobody knows the price of the job.

    Raises:
        UsageError: so it is.
    """
    own = job.continuation.max_cost_nano_usd
    if batch.limits.max_cost_nano_usd is None and own is None:
        return
    if not is_priced(job, batch.limits.prices):
        raise UsageError(
            f"the price of {job.model} is not known, so the budget of "
            f"{f'job {job.id}' if own is not None else f'batch {batch.name}'} cannot be kept. "
            "Give it in BatchLimits(prices={model: Rates(…)}). Nothing was queued."
        )


@asynccontextmanager
async def run(
    store: Store,
    *,
    batches: Collection[str] | None = None,
    simulated: bool = False,
    client: MessagesClient | None = None,
    settings: WorkerSettings = WorkerSettings(),
    progress: Progress | None = None,
) -> AsyncIterator[AsyncIterator[Document]]:
    """Work on what is queued, and iterate over the documents as their jobs become final.

    Leaving the block early stops the work gracefully: what has streamed in is saved, and the next
    run goes on from there.

    Args:
        batches: names; None means all.
        simulated: work on the simulated batches; else on the real ones.
        client: the way to the API; None makes one from the environment.

    Raises:
        StoreError: the database can take nothing more. Nothing saved is lost.
    """
    ours = client is None
    client = client or MessagesClient()
    send, receive = anyio.create_memory_object_stream[int](math.inf)
    try:
        keys = await lift_pauses(store, batches, simulated=simulated)

        def settled(job_key: int) -> None:
            with suppress(anyio.BrokenResourceError):  # nobody wants to hear of it any more
                send.send_nowait(job_key)

        worker = Worker(
            store,
            client,
            batch_keys=keys,
            simulated=simulated,
            settings=settings,
            progress=progress,
            settled=settled,
        )
        errors: list[Exception] = []  # kept, so that they come out as they are, in no group
        async with anyio.create_task_group() as tasks:

            async def work() -> None:
                with send:
                    try:
                        await worker.run()
                    except Exception as error:
                        errors.append(error)

            tasks.start_soon(work)
            with receive:
                try:
                    yield _final_documents(store, receive)
                except Exception as error:
                    errors.append(error)
            worker.stop()
        if errors:
            raise errors[0]
    finally:
        if ours:
            with anyio.CancelScope(shield=True):
                await client.aclose()


async def copy_batch(
    source: Store, target: Store, name: str, *, wait: bool = False, afresh: bool = False
) -> CopyReceipt:
    """Move a batch to another database, finished or half-way; it goes on there, and there alone.

    Stopped at any moment, it is finished by the same call again.

    Args:
        wait: where it is worked on, let its open calls come to their end first.
        afresh: throw away what a copy that never became whole has left at the new place.

    Raises:
        NotFound: there is no such batch.
        UsageError: the new place has another batch of that name, or it was copied elsewhere.
        StoreUnavailable: it is worked on, or a database cannot be used now.
        StoreError: an order changed it meanwhile.
    """
    most = WorkerSettings().max_rescues
    return await copying.copy_batch(
        source, target, name, max_rescues=most, wait=wait, afresh=afresh
    )


async def lift_pauses(
    store: Store, batches: Collection[str] | None = None, *, simulated: bool = False
) -> list[int]:
    """Resume batches that a refused key, a spend cap, their budget or the breaker paused, and give
    the keys of all batches of that kind.

    A user's own pause stays. Where a budget still has no room, the next call is refused before it
    is made, and the batch pauses again.
    """
    rows = [row for row in await store.batches(batches) if row.simulated is simulated]
    for row in rows:
        if row.paused in LIFTED_BY_RUN:
            await store.resume(row.key, causes=LIFTED_BY_RUN)
    return [row.key for row in rows]


async def read(store: Store, job: str) -> Document:
    """A job's document as it stands now, also while it is being written.

    Args:
        job: `id`, or `batch/id` where several batches have it.

    Raises:
        NotFound: there is no such job.
    """
    return await _document(store, await store.find_job(job))


async def documents(store: Store, *, batch: str | None = None) -> AsyncIterator[Document]:
    """All documents, finished or not, in the order of their jobs."""
    async for row in store.jobs(batch=batch):
        yield await _document(store, row)


async def follow(store: Store, job: str) -> AsyncIterator[str]:
    """A job's text from its beginning, piece by piece as it is saved, until the job is final.

    What the next call might take back at a seam (white space, half a stop sequence) is held until
    it is sure, so the pieces put together are the document.

    Raises:
        NotFound: there is no such job.
    """
    row = await store.find_job(job)
    stops = (await store.spec(row.key)).stop_sequences
    text, call, seq, shown, version = GrowingDocument(), 0, -1, 0, -1
    while not row.state.final:
        now = await store.data_version()
        if now == version:
            await anyio.sleep(FOLLOW_POLL_S)
            continue
        version = now
        for piece in await store.pieces(row.key, after_seq=seq):
            if piece.call_number != call:
                call = piece.call_number
                text.attach(piece.resume_at)
            text.add(piece.text)
            seq = piece.seq
        sure = text.clean_end(stops)
        if sure > shown:
            yield text.tail(len(text) - shown)[: sure - shown]
            shown = sure
        row = await store.job(row.key)
    if rest := (await _document(store, row)).text[shown:]:
        yield rest


async def _final_documents(store: Store, settled: AsyncIterator[int]) -> AsyncIterator[Document]:
    async for job_key in settled:
        row = await store.job(job_key)
        if row.state.final:
            yield await _document(store, row)


async def _document(store: Store, row: JobRow) -> Document:
    calls = await store.calls(row.key)
    return Document(
        id=row.id,
        batch=row.batch,
        text=fold((call.resume_at, call.text) for call in calls),
        state=row.state,
        finish=row.finish,
        complete=row.state is State.COMPLETED and row.finish is not None and row.finish.complete,
        error=row.error,
        calls=tuple(calls),
        metadata=row.metadata,
        cost_usd=usd(row.cost_nano_usd),
        unpriced_calls=row.unpriced_calls,
    )
