"""The reading face of the store: everything that can be asked of it, also by a process that must
not write."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.errors import StoreUnavailable
from runner.jobs.spec import JobSpec
from runner.jobs.states import Finish, State
from runner.jobs.traits import PrefillAnswer
from runner.store import experience, migrate
from runner.store.database import Database, the_database
from runner.store.document_reads import DocumentReads
from runner.store.integrity import problems_found
from runner.store.ledger import Account, By, Pruned, accounts, accounts_by_job, pruned
from runner.store.patience import Patience
from runner.store.prefixes import SharedPrefix
from runner.store.reads import Reader
from runner.store.records import (
    BatchRow,
    Claim,
    FinishedJob,
    Held,
    JobEvent,
    JobRow,
    KnownJob,
    LearnedCalls,
    LoadedJob,
    OpenLane,
    PaceRow,
    SavedCall,
    Selection,
    TextPiece,
    WorkerRow,
)
from runner.store.rows import worker_row


class ReadingStore:
    """One database to read. Reads never wait for a writer, of this process or another."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._one_clock = database.one_clock
        self._patience = Patience()
        self._reader = Reader(database, self._patience)
        self._documents = DocumentReads(self._reader.rows)
        self._listener = database.listener()
        self._locks = database.locks()

    @property
    def path(self) -> Path | None:
        """The database's file; None where a server holds it."""
        return self.database.path

    @classmethod
    async def open_to_read(cls, database: str | Path) -> ReadingStore:
        """Open a database as it is: it is neither made nor brought up to date.

        Raises:
            StoreUnavailable: it is not there, cannot be read, or has another version's schema.
            SchemaTooNew: a newer version of this program wrote it.
            NotADatabase: the file is something else, or damaged.
        """
        named = the_database(database)
        version = await asyncio.to_thread(named.current)
        if version is None:
            raise StoreUnavailable(named.missing())
        if version != migrate.head():
            raise StoreUnavailable(
                f"{named.shown} has schema version {version}, and this program works with "
                f"{migrate.head()}. `runner db upgrade` brings it up to date."
            )
        return ReadingStore(named)

    async def close(self) -> None:
        """Close every connection."""
        await self._reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def listen(self, heard: Callable[[], None]) -> None:
        """Hear at once of what may be worked on, until cancelled; returns where nobody tells.

        Args:
            heard: called for each submission, change of limits and end of a pause, of any
                process, and whenever one may have been missed. Some are: who waits for them looks
                now and then as well.
        """
        if self._listener is not None:
            await self._listener.listen(heard)

    # workers

    async def workers(self) -> list[WorkerRow]:
        """All workers that are registered, with the operating system's word on those of this
        machine."""
        here = socket.gethostname()
        return [
            worker_row(
                row,
                alive=self._locks.alive(row.id) if row.host == here else None,
                expired=self._one_clock and row.lease_until_ms < self.database.now_ms(),
            )
            for row in await self._reader.workers()
        ]

    async def held(self, worker_id: str) -> Held:
        """What a worker holds now, and which of it is paused; cheap enough to ask often."""
        return await self._reader.held(worker_id)

    async def paces(self) -> list[PaceRow]:
        """The rate limits that processes share, with those that use them."""
        return await self._reader.paces()

    # the queue

    async def next_due_ms(self, batch_keys: Collection[int] | None = None) -> int | None:
        """When the next waiting job's time comes; None where none waits."""
        return await self._reader.next_due_ms(batch_keys)

    async def open_lanes(self, batch_keys: Collection[int] | None = None) -> list[OpenLane]:
        """Batches that are not paused and have available jobs, by model."""
        return await self._reader.open_lanes(batch_keys)

    async def load(self, claim: Claim) -> LoadedJob:
        """All that was ever saved of a claimed job.

        Raises:
            ClaimLost: another worker holds the job now.
        """
        return await self._documents.load(claim)

    # documents

    async def batches(self, names: Collection[str] | None = None) -> list[BatchRow]:
        """Batches with their counts and token sums, oldest first."""
        return await self._reader.batches(names)

    async def models(self, batch_key: int) -> list[str]:
        """The models of a batch's unfinished jobs."""
        return await self._reader.models(batch_key)

    def jobs(
        self,
        *,
        batch: str | None = None,
        states: Collection[State] = (),
        finishes: Collection[Finish] = (),
        limit: int | None = None,
    ) -> AsyncIterator[JobRow]:
        """Jobs in the order of submission, filtered; read in pages, so that memory stays flat."""
        return self._reader.jobs(batch, states, finishes, limit)

    async def find_job(self, reference: str) -> JobRow:
        """The job of an id, or of "batch/id".

        Raises:
            NotFound: there is none, or several batches have one.
        """
        return await self._reader.find_job(reference)

    async def job(self, job_key: int) -> JobRow:
        """The job of a key.

        Raises:
            NotFound: there is none (any more).
        """
        return await self._reader.job(job_key)

    async def spec(self, job_key: int) -> JobSpec:
        """What a job was asked to be."""
        return await self._documents.spec(job_key)

    async def calls(self, job_key: int, *, superseded: bool = False) -> list[SavedCall]:
        """A job's calls in order, with their text.

        Args:
            superseded: also those whose text left the document when the job was replaced.
        """
        return await self._documents.calls(job_key, superseded=superseded)

    async def calls_of(self, job_keys: Sequence[int]) -> dict[int, list[SavedCall]]:
        """The calls of several jobs, at most `TOGETHER`: with their text, so mind the memory."""
        return await self._documents.calls_of(job_keys)

    async def unchanged(self, jobs: Sequence[JobRow]) -> frozenset[int]:
        """The keys of those of the jobs, at most `TOGETHER`, that are now as they were."""
        return await self._documents.unchanged(jobs)

    async def pieces(self, job_key: int, *, after_seq: int = -1) -> list[TextPiece]:
        """A job's chunks after a given one, in the order of saving."""
        return await self._documents.pieces(job_key, after_seq)

    async def events(self, job_key: int) -> list[JobEvent]:
        """What happened to a job, oldest first; its submission is the first."""
        return await self._documents.events(job_key)

    async def last_ends(self, *, since_ms: int) -> list[tuple[int, int]]:
        """Batch key and time of the jobs that ended last, newest first: how fast it goes."""
        return await self._reader.last_ends(since_ms)

    async def selected(self, selection: Selection) -> int:
        """How many jobs a selection means."""
        return await self._reader.selected(selection)

    async def unfinished(self, batch_keys: Collection[int] | None = None) -> int:
        """How many jobs are not final."""
        return await self._reader.unfinished(batch_keys)

    async def shared_prefixes(
        self, batch_key: int, hashes: Collection[bytes] | None = None, *, limit: int | None = None
    ) -> list[SharedPrefix]:
        """Beginnings that jobs of the batch share.

        Args:
            hashes: only these; None: all.
            limit: so many at most.
        """
        return await self._reader.shared_prefixes(batch_key, hashes, limit)

    async def learned(self, batch_key: int, model: str) -> list[LearnedCalls]:
        """What the calls of a batch and model have been like, by their number in their jobs."""
        return await self._reader.learned(batch_key, model)

    async def learned_by_model(self, model: str, *, simulated: bool) -> list[LearnedCalls]:
        """What all calls to a model have been like, by their number in their jobs.

        Args:
            simulated: those to the simulator; else the real ones.
        """
        return await experience.learned_by_model(self._reader.rows, model, simulated)

    async def known(self, batch_key: int, ids: Collection[str]) -> dict[str, KnownJob]:
        """Those of these jobs that a batch has already, by id."""
        return await experience.known(self._reader.rows, batch_key, ids)

    async def finished(
        self, *, models: Collection[str], simulated: bool, limit: int, batch_key: int | None = None
    ) -> list[FinishedJob]:
        """Some jobs whose documents ended, with what their calls used.

        Args:
            models: of these only.
            batch_key: of this batch; None takes the newest of any.
        """
        return await experience.finished(
            self._reader.rows,
            batch_key=batch_key,
            models=models,
            simulated=simulated,
            limit=limit,
        )

    async def remembered(self, endpoint: str, model: str) -> PrefillAnswer | None:
        """How a model answered a prefill, behind an endpoint; None: nobody has seen it yet."""
        return await self._reader.remembered(endpoint, model)

    # the ledger

    async def accounts(self, by: By, batch_keys: Collection[int] | None = None) -> list[Account]:
        """The calls that ended, summed by batch, model or day."""
        return await accounts(self._reader.rows, by, batch_keys)

    def accounts_by_job(self, batch_keys: Collection[int] | None = None) -> AsyncIterator[Account]:
        """The same by job, in the order of submission; read in pages, so that memory stays flat."""
        return accounts_by_job(self._reader.rows, batch_keys)

    async def pruned_costs(self, batch_keys: Collection[int] | None = None) -> list[Pruned]:
        """What batches paid for jobs that were pruned since."""
        return await pruned(self._reader.rows, batch_keys)

    async def data_version(self) -> int:
        """A number that changes when anybody committed something; cheap enough to poll."""
        return await self._reader.data_version()

    async def check(self) -> list[str]:
        """What is wrong with the database; empty is well. Reads all of it."""
        return await problems_found(self._reader.rows, in_file=self.path is not None)
