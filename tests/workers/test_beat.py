"""When text that streams in is saved: with that of all other streams, and never late."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ClaimLost
from runner.store.operations import Save
from runner.store.records import Claim
from runner.store.store import Store
from runner.store.writer import Answer
from runner.workers.checkpoint import HANDED_OVER_AT_ONCE, Saver, _next_beat
from runner.workers.settings import WorkerSettings

TIMES = st.integers(0, 10**10).map(lambda ms: ms / 1_000)
EVERY = st.sampled_from([0.02, 0.05, 0.25, 1.0])


@given(TIMES, EVERY)
def test_no_text_waits_longer_than_a_beat(now_s: float, every_s: float) -> None:
    assert now_s <= _next_beat(now_s, every_s) <= now_s + every_s * 1.001


@given(TIMES, EVERY, st.floats(0, 0.9))
def test_what_comes_before_a_beat_is_saved_at_it(now_s: float, every_s: float, part: float) -> None:
    beat = _next_beat(now_s, every_s)
    later = now_s + (beat - now_s) * part
    assert beat - now_s < 1e-6 or abs(_next_beat(later, every_s) - beat) < every_s / 100


def test_where_nothing_may_wait_nothing_does() -> None:
    assert _next_beat(12.3, 0) == 12.3


class Disk:
    """A store that takes what it is given, and answers when it is told to."""

    def __init__(self) -> None:
        self.handed: asyncio.Queue[Sequence[Save]] = asyncio.Queue()
        self.answers: list[asyncio.Future[list[Answer]]] = []

    def save_all(self, chunks: Sequence[Save]) -> asyncio.Future[list[Answer]]:
        self.handed.put_nowait(chunks)
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def saver(self, number: int, lost: list[BaseException]) -> Saver:
        claim = cast(Any, Claim)(*([number] * len(Claim.__dataclass_fields__)))
        settings = WorkerSettings(checkpoint_s=0.25)
        return Saver(cast(Store, self), claim, number, 0, settings, lost.append)


@pytest.mark.anyio
async def test_what_is_due_at_a_beat_is_handed_over() -> None:
    disk, lost = Disk(), list[BaseException]()
    savers = [disk.saver(number, lost) for number in range(5)]
    for saver in savers:
        saver.add(f"text of {saver.next_seq}")
    assert disk.handed.empty()
    chunks: list[Save] = []
    while len(chunks) < 5:  # in one piece, unless the beat comes just between two of them
        chunks += await disk.handed.get()
    assert [(chunk.call_key, chunk.text) for chunk in chunks] == [
        (n, "text of 0") for n in range(5)
    ]


@pytest.mark.anyio
async def test_what_one_turn_brought_is_handed_over_as_one_when_it_is_over() -> None:
    disk, lost = Disk(), list[BaseException]()
    savers = [disk.saver(number, lost) for number in range(5)]

    async def read(saver: Saver) -> None:
        saver.add("what waited")
        saver.gathered()

    readers = [asyncio.ensure_future(read(saver)) for saver in savers]  # woken together
    chunks = await disk.handed.get()
    assert [chunk.call_key for chunk in chunks] == [0, 1, 2, 3, 4]
    await asyncio.gather(*readers)
    savers[0].add("more")
    savers[0].gathered()
    savers[0].save()  # it does not wait, and leaves nothing for the end of the turn
    assert len(await disk.handed.get()) == 1
    await asyncio.sleep(0)
    assert disk.handed.empty()


@pytest.mark.anyio
async def test_each_saver_hears_its_own_answer() -> None:
    disk = Disk()
    lost: list[list[BaseException]] = [[], []]
    savers = [disk.saver(number, lost[number]) for number in range(2)]
    for saver in savers:
        saver.add("text")
        saver.save()
    drains = [asyncio.ensure_future(saver.drain()) for saver in savers]
    await asyncio.sleep(0)
    error = ClaimLost("gone")
    disk.answers[0].set_result([(None, None)])
    await drains[0]
    assert savers[0].saved_any
    assert not drains[1].done()
    disk.answers[1].set_result([(None, error)])
    with pytest.raises(ClaimLost):
        await drains[1]
    assert lost == [[], [error]]
    assert not savers[1].saved_any
    savers[1].add("more")
    savers[1].save()
    assert len(disk.answers) == 2  # who lost its claim writes nothing more


@pytest.mark.anyio
async def test_what_a_slow_disk_has_not_taken_gathers_in_one_piece() -> None:
    disk, lost = Disk(), list[BaseException]()
    saver = disk.saver(0, lost)
    for number in range(HANDED_OVER_AT_ONCE):
        saver.add(f"{number}")
        saver.save()
        await disk.handed.get()
    large = "x" * WorkerSettings().checkpoint_characters
    saver.add(large)
    saver.add(large)
    assert disk.handed.empty()
    disk.answers[0].set_result([(None, None)])
    (chunk,) = await disk.handed.get()
    assert (chunk.seq, chunk.text) == (HANDED_OVER_AT_ONCE, large * 2)
    for answer in disk.answers[1:]:
        answer.set_result([(None, None)])
    await saver.drain()
    assert not lost


def test_a_loop_that_ended_is_let_go() -> None:
    class Disk:
        def save_all(self, chunks: Sequence[Save]) -> asyncio.Future[list[Answer]]:
            saved = asyncio.get_running_loop().create_future()
            saved.set_result([(None, None)] * len(chunks))
            return saved

    stores = []

    async def save_and_leave() -> None:
        disk = Disk()
        stores.append(weakref.ref(disk))
        claim = Claim(1, 1, "w", 1, "j", "m", 0, 0)
        settings = WorkerSettings(checkpoint_s=60.0)
        saver = Saver(cast(Store, disk), claim, 1, 0, settings, lambda _: None)
        saver.add("x")
        await saver.drain()

    for _ in range(5):
        asyncio.run(save_and_leave())
    gc.collect()
    assert sum(store() is not None for store in stores) <= 1
