"""tail -f: from another process, while the text is written."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from hypothesis import given
from hypothesis import strategies as st

from runner.cli.followed import Followed
from runner.jobs.spec import BatchSpec
from runner.jobs.states import Finish, State
from runner.store.records import OnConflict, Settlement, TextPiece
from runner.store.store import Store
from tests.cli.filled import Writer, job, outcome

pytestmark = pytest.mark.anyio


class Tail:
    """`runner tail -f` in a process of its own."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._out = BufferedByteReceiveStream(process.stdout)
        self._err = BufferedByteReceiveStream(process.stderr)

    @classmethod
    @asynccontextmanager
    async def of(cls, job_id: str, database: str) -> AsyncIterator[Tail]:
        command = [sys.executable, "-m", "runner", "tail", job_id, "-f", "--db", database]
        with anyio.fail_after(60):
            async with await anyio.open_process(command) as process:
                yield cls(process)

    async def reads(self, text: str) -> None:
        """The next text on stdout is this, and it comes now."""
        assert (await self._out.receive_exactly(len(text.encode()))).decode() == text

    async def ends(self) -> str:
        """The process ends well and prints no more; what stands on stderr."""
        assert await self._process.wait() == 0
        with pytest.raises(anyio.EndOfStream):
            await self._out.receive()
        said = b""
        with suppress(anyio.EndOfStream):
            while True:
                said += await self._err.receive()
        return said.decode()


DONE = Settlement(State.COMPLETED, finish=Finish.END_TURN)


async def test_follows_a_document_through_its_seams(database: str) -> None:
    async with await Store.open(database) as store:
        receipt = await store.submit(BatchSpec("b"), [job("j")])
        writer = await Writer(store).begin()
        claim = await writer.claim(receipt.batch_key)
        call = await writer.open_call(claim, 1, 0)
        await writer.save(claim, call, "One ")
        async with Tail.of("j", database) as tail:
            await tail.reads("One")  # the blank waits: a seam may take it back
            await writer.save(claim, call, "two \x1b[1m three ")
            await tail.reads(" two \x1b[1m three")  # raw in a pipe
            await store.end_call(claim, call, outcome("max_tokens"))
            call = await writer.open_call(claim, 2, 18)
            await writer.save(claim, call, "\nfour")
            await tail.reads("\nfour")
            await store.end_call(claim, call, outcome("max_tokens"))
            call = await writer.open_call(claim, 3, 19)
            await writer.save(claim, call, "five.\n")
            await tail.reads("ive.")
            await writer.settle(claim, call, "end_turn", DONE)
            await tail.reads("\n")
            said = await tail.ends()
    assert "[3 characters taken back: 'our' …]" in said
    assert said.count("taken back") == 1
    assert "b/j: complete (end_turn)" in said


async def test_follows_a_job_that_is_replaced(database: str) -> None:
    async with await Store.open(database) as store:
        receipt = await store.submit(BatchSpec("b"), [job("j")])
        writer = await Writer(store).begin()
        claim = await writer.claim(receipt.batch_key)
        call = await writer.open_call(claim, 1, 0)
        await writer.save(claim, call, "Old")
        async with Tail.of("j", database) as tail:
            await tail.reads("Old")
            changed = [job("j", "Another.")]
            await store.submit(BatchSpec("b"), changed, on_conflict=OnConflict.REPLACE)
            claim = await writer.claim(receipt.batch_key)
            call = await writer.open_call(claim, 1, 0)
            await writer.save(claim, call, "New.")
            await tail.reads("New.")
            await writer.settle(claim, call, "end_turn", DONE)
            assert "[3 characters taken back: 'Old' …]" in await tail.ends()


@given(st.data())
def test_what_a_reader_saw_is_the_document(data: st.DataObject) -> None:
    """Whenever the reader looks, printed text less what was taken back is the document."""
    followed, document, screen, seq = Followed(), "", "", 0
    screen += followed.begin(10**6)
    for number in range(1, data.draw(st.integers(1, 5)) + 1):
        resume_at = data.draw(st.integers(max(0, len(document) - 4), len(document)))
        document = document[:resume_at]
        for text in data.draw(st.lists(st.text("ab \n�", min_size=1, max_size=4), max_size=4)):
            document += text
            followed.take([TextPiece(number, resume_at, seq, text)])
            seq += 1
            if data.draw(st.booleans()):
                news = followed.news()
                assert screen.endswith(news.taken_back)
                screen = screen[: len(screen) - len(news.taken_back)] + news.text
    news = followed.rest()
    screen = screen[: len(screen) - len(news.taken_back)] + news.text
    # A call that gave no text after its resume point may leave the end it would have taken back.
    assert screen.startswith(document)
