"""A clean process that tries deaths: `python -m tests.crash.deaths PLACE FOLDER` reads cases from stdin, a
JSON list of faults a line, and answers each with a line of what came of it.

Everything is imported once, and done once. A case is a fork of this process, and forks in its turn, while it has
neither thread nor loop, one child for each process of its story: the ones that are to die, and the
one that finishes. The simulator lives in the case's own process and outlives them all.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import faults
from runner.jobs.spec import BatchLimits, BatchSpec
from runner.library import documents, open_store
from runner.messages.client import MessagesClient
from runner.output.export import export
from runner.simulator import Simulator, SimulatorOptions
from runner.simulator.tokens import tokens_between
from runner.simulator.validate import read_request
from runner.store import submit
from runner.store.database import the_database
from runner.store.operations import Save
from runner.store.store import Store
from runner.store.writer import Answer
from runner.workers.settings import WorkerSettings
from runner.workers.worker import Worker
from tests.house import Impatient, job
from tests.places import Place, a_place
from tests.strangers import a_stranger

CONCURRENCY = 2
MAX_TOKENS = 16
# What a seam writes again: the token of the white space that a prefill may not end in, and the
# rest of one that was cut in two.
SEAM_TOKENS = 2
GONE = "the process that made this call is gone"
JOBS = tuple(
    replace(job(name, mark="tokens=40"), max_tokens=MAX_TOKENS, metadata={"of": name})
    for name in ("a", "b")
)
# Faults of the API by the number of the request: retries before the first byte, in mid-stream with
# text before them, and a rate limit.
OPTIONS = SimulatorOptions(
    seed=3,
    tokens_per_second=4000,
    tokens_per_event=8,
    fault_script={
        2: "http_500",
        4: "drop:1",
        6: "error_overloaded:1",
        8: "http_429:0",
    },
)
SETTINGS = WorkerSettings(
    concurrency=CONCURRENCY, checkpoint_s=0.005, checkpoint_characters=40, poll_s=0.01
)


async def work(database: str, folder: Path, base_url: str) -> None:
    """All that a process does with jobs: submits, works, exports."""
    client = MessagesClient(api_key="test-key", base_url=base_url, one_block=False)
    async with open_store(database) as store:
        witness(store, folder / "acknowledged")
        await store.submit(BatchSpec("b", BatchLimits(concurrency=CONCURRENCY)), JOBS)
        worker = Worker(store, client, settings=SETTINGS, random=Impatient())
        await worker.run()
        await export(store, folder / "out")
    await client.aclose()


def witness(store: Store, file: Path) -> None:
    """Write down, past all buffers, each chunk as soon as the store says that it is saved."""
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    save_all = store.save_all

    def witnessed(chunks: Sequence[Save]) -> asyncio.Future[list[Answer]]:
        future = save_all(chunks)

        def answered(_: object) -> None:
            answers = [] if future.exception() is not None else future.result()
            for chunk, (_, error) in zip(chunks, answers, strict=False):
                if error is None:
                    line = json.dumps([chunk.claim.job_key, chunk.seq, chunk.text]) + "\n"
                    os.write(log, line.encode())

        future.add_done_callback(answered)
        return future

    store.save_all = witnessed  # type: ignore[method-assign]


def lost_chunks(database: str, folder: Path) -> list[str]:
    """Chunks that were acknowledged as saved and are not there."""
    file = folder / "acknowledged"
    if not file.exists():
        return []
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if not lines:
        return []
    with a_stranger(database) as stranger:
        rows = stranger.execute("SELECT job_key, seq, text FROM chunk")
    saved = {(key, seq): text for key, seq, text in rows}
    return [
        f"acknowledged and not saved: job {key}, chunk {seq}: {text!r}"
        for key, seq, text in lines
        if saved.get((key, seq)) != text
    ]


class Process:
    """A process of the story: forked now, begun later."""

    def __init__(self, database: str, folder: Path, fault: str, log: str = "") -> None:
        inlet, self._outlet = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 70
            try:
                os.close(self._outlet)
                with os.fdopen(inlet) as told:
                    base_url = told.readline().strip()
                faults.arm(fault, log=log)
                if base_url:
                    asyncio.run(work(database, folder, base_url))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(inlet)

    async def run(self, base_url: str) -> int:
        """Let it begin, and wait for its end: its exit status, negative for a signal."""
        os.write(self._outlet, f"{base_url}\n".encode())
        return await asyncio.to_thread(self.end)

    def end(self) -> int:
        """Wait for its end; one that was never begun ends by itself."""
        os.close(self._outlet)
        _, status = os.waitpid(self._pid, 0)
        return os.waitstatus_to_exitcode(status)


def saved_texts(database: str) -> dict[str, str]:
    """The documents as they stand in the database, read without touching it."""
    if the_database(database).current() is None:
        return {}
    texts: dict[str, str] = {}
    before = None
    with a_stranger(database) as stranger:
        for name, call_key, resume_at, text in stranger.execute(
            "SELECT job.id, call.key, call.resume_at, coalesce(chunk.text, '')"
            " FROM call JOIN job ON job.key = call.job_key"
            " LEFT JOIN chunk ON chunk.call_key = call.key ORDER BY call.key, chunk.seq"
        ):
            kept = texts.get(name, "")
            texts[name] = (kept if call_key == before else kept[:resume_at]) + text
            before = call_key
    return texts


async def tell(database: str, folder: Path, story: list[Process]) -> dict[str, Any]:
    """Run the story, and look at all that is left of it. `wrong` lists what should not be."""
    wrong: list[str] = []
    statuses: list[int] = []
    may_be_twice = 0
    async with Simulator(OPTIONS) as simulator:
        books = simulator.books
        true = {
            spec.id: simulator._server.library.document(
                read_request(
                    {"model": spec.model, "max_tokens": 1, "messages": list(spec.messages)},
                    "2023-06-01",
                )
            )
            for spec in JOBS
        }
        for process in story[:-1]:
            statuses.append(await process.run(simulator.base_url))
            await asyncio.wait_for(books.wait_for(lambda books: books.streams_open == 0), 60)
            if statuses[-1] == 0:
                break
            if statuses[-1] != -signal.SIGKILL:
                wrong.append(f"a process ended with {statuses[-1]}")
            wrong += lost_chunks(database, folder)
            saved = await asyncio.to_thread(saved_texts, database)
            for name, document in true.items():
                prompt = books.prompts.get(document.digest)
                generated = prompt.coverage.characters if prompt else 0
                kept = len(saved.get(name, ""))
                may_be_twice += tokens_between(document.ends, min(kept, generated), generated)
        # What the API's own faults made the first run write twice is none of the deaths' doing.
        twice_before = books.tokens_generated_twice
        requests_before = books.requests_by_kind["messages"]
        last = await story[-1].run(simulator.base_url)
        if last != 0:
            wrong.append(f"the last process ended with {last}")
        await asyncio.wait_for(books.wait_for(lambda books: books.streams_open == 0), 60)
        twice = books.tokens_generated_twice - twice_before
        allowed = may_be_twice + SEAM_TOKENS * (
            books.requests_by_kind["messages"] - requests_before + CONCURRENCY
        )
        if twice > allowed:
            wrong.append(f"{twice} tokens paid for twice, at most {allowed} were not saved")
        if books.divergences:
            wrong.append(f"divergences: {books.divergence_log}")
        wrong += await look_at_store(database, folder, {name: d.text for name, d in true.items()})
        requests = {name: books.prompts[d.digest].requests for name, d in true.items()}
        wrong += look_at_ledger(
            database, requests, books.requests_by_kind["messages"], deaths=len(statuses)
        )
    return {"statuses": statuses, "wrong": wrong}


async def look_at_store(database: str, folder: Path, true: dict[str, str]) -> list[str]:
    wrong: list[str] = []
    async with open_store(database, create=False) as store:
        async for document in documents(store):
            if not document.complete or document.text != true[document.id]:
                wrong.append(f"{document.id} is {document.state}, {document.text[-60:]!r}")
            exported = folder / "out" / "b" / f"{document.id}.md"
            if not exported.exists() or exported.read_text(encoding="utf-8") != true[document.id]:
                wrong.append(f"{document.id} is not in its file")
        wrong += await store.check()
        if workers := await store.workers():
            wrong.append(f"workers are left: {workers}")
    lines = (folder / "out" / "b.jsonl").read_text(encoding="utf-8").splitlines()
    if {json.loads(line)["text"] for line in lines} != set(true.values()):
        wrong.append("b.jsonl does not hold the documents")
    if parts := [str(path) for path in (folder / "out").rglob("*.part")]:
        wrong.append(f"half-written files are left: {parts}")
    return wrong


def look_at_ledger(database: str, begun: dict[str, int], asked: int, *, deaths: int) -> list[str]:
    """Every request has its row, and those that died with their process say that they are
    estimates."""
    wrong: list[str] = []
    with a_stranger(database) as stranger:
        rows = stranger.execute(
            "SELECT job.id, ended_ms, stop_reason, call.error, usage_estimated, output_tokens"
            " FROM call JOIN job ON job.key = call.job_key"
        )
        if not stranger.whole():
            wrong.append("the integrity check failed")
    gone = [row for row in rows if row[3] == GONE]
    if any(row[1] is None for row in rows):
        wrong.append("a call is still open")
    if not len(rows) - len(gone) <= asked <= len(rows):
        wrong.append(f"{asked} requests, but {len(rows)} calls of which {len(gone)} died")
    for name, requests in begun.items():
        if requests > sum(row[0] == name for row in rows):
            wrong.append(f"{name}: {requests} answers were begun, more than it has calls")
    if len(gone) > deaths * CONCURRENCY:
        wrong.append(f"{len(gone)} calls died with {deaths} processes")
    if any(not row[4] for row in gone):
        wrong.append("a call that died with its process does not say that it is estimated")
    if any(row[4] for row in rows if row[2] is not None):
        wrong.append("a call that was answered is estimated")
    return wrong


def make_ready(place: Place) -> None:
    """Do once what every case does, so that no fork has to import anything or build anything up
    again; all of it is over, closed and joined, before the first fork."""
    database = place.bare()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(rehearse(database, Path(folder)))
    saved_texts(database)
    place.drop(database)
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()  # shared pages stay shared


async def rehearse(database: str, folder: Path) -> None:
    async with Simulator(OPTIONS) as simulator:
        await work(database, folder, simulator.base_url)


def try_case(case: list[str], log: str, place: Place) -> dict[str, Any]:
    submit.SLICE_JOBS = 1  # type: ignore[misc]  so that a few jobs are several slices
    folder = Path(tempfile.mkdtemp(prefix="death-"))
    # A migration in each would cost half the time.
    migrates = any(fault.startswith("migration") for fault in case)
    try:
        database = place.bare() if migrates else place.new()
        story = [Process(database, folder, fault) for fault in case]
        story.append(Process(database, folder, "", log))
        result = asyncio.run(asyncio.wait_for(tell(database, folder, story), 300))
        if result["wrong"]:
            result["folder"] = str(folder)
        else:
            place.drop(database)
            shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        result = {"statuses": [], "wrong": [traceback.format_exc()], "folder": str(folder)}
    return result


def main() -> None:
    place = a_place(sys.argv[1], Path(sys.argv[2]))
    make_ready(place)
    for line in sys.stdin:
        case, log = json.loads(line)
        inlet, outlet = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(inlet)
            with os.fdopen(outlet, "w") as answer:
                answer.write(json.dumps(try_case(case, log, place)))
            os._exit(0)
        os.close(outlet)
        with os.fdopen(inlet) as answer:
            print(answer.read(), flush=True)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
