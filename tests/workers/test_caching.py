"""Prompt caching at work: a worker, a store, and a simulator whose books say what was billed."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from runner.jobs.spec import BatchLimits, Caching, JobSpec, Until
from runner.jobs.states import State
from runner.messages.thrift import Thrift
from runner.simulator import SimulatorOptions
from runner.simulator.books import Books
from runner.simulator.cache import PromptCache
from runner.store.store import Store
from runner.workers.worker import Worker
from tests.house import QUICK, House, Impatient, a_house, job

pytestmark = pytest.mark.anyio

TURN, PREFILL = "claude-sonnet-5-5", "claude-sonnet-4-5"  # least cached: 512 and 1,024 tokens
SYSTEM = "Write as the sea writes: slowly, and over and over again. " * 150
SYSTEM_TOKENS = 2_101  # as the simulator counts them


def sharing(id: str, **changes) -> JobSpec:
    return job(id, mark="tokens=30", **{"system": SYSTEM, "model": TURN} | changes)


def growing(id: str = "a", *, tokens: int = 5_700, **changes) -> JobSpec:
    return job(id, mark=f"tokens={tokens}", **{"model": TURN, "max_tokens": 600} | changes)


def worth(books: Books, read: float = 0.1) -> float:
    """The billed input, in input tokens' worth."""
    written = 1.25 * books.cache_creation_5m_tokens + 2 * books.cache_creation_1h_tokens
    return books.input_tokens + written + read * books.cache_read_tokens


async def finished(house: House, *names: str) -> bool:
    return all([(await house.row(name)).state is State.COMPLETED for name in names])


@pytest.mark.parametrize("model", [TURN, PREFILL])
async def test_one_job_writes_what_all_others_read(tmp_path, model) -> None:
    names = [f"j{n}" for n in range(30)]
    async with a_house(tmp_path) as house:
        await house.submit(
            *(sharing(name, model=model) for name in names), limits=BatchLimits(concurrency=10)
        )
        await house.worker().run()
        assert await finished(house, *names)
        books = house.simulator.books
        assert books.cache_creation_5m_tokens == SYSTEM_TOKENS
        assert books.cache_read_tokens == 29 * SYSTEM_TOKENS
        assert books.streams_open_most > 1
        (batch,) = await house.store.batches()
        assert batch.usage.cache_read_input_tokens == books.cache_read_tokens
        assert batch.usage.cache_creation_input_tokens == books.cache_creation_5m_tokens


async def test_where_the_first_fails_the_next_goes_ahead(tmp_path) -> None:
    script = {1: "http_529", 2: "http_500", 4: "drop:3"}
    names = [f"j{n}" for n in range(12)]
    async with a_house(tmp_path, SimulatorOptions(fault_script=script)) as house:
        await house.submit(*map(sharing, names), limits=BatchLimits(concurrency=6))
        await house.worker().run()
        assert await finished(house, *names)
        assert house.simulator.books.cache_creation_5m_tokens == SYSTEM_TOKENS


async def test_the_others_wait_for_an_answer_to_begin_and_can_be_stopped(tmp_path) -> None:
    options = SimulatorOptions(fault_script={1: "slow_start:60"})
    async with a_house(tmp_path, options) as house:
        await house.submit(*map(sharing, "abcd"))
        worker = house.worker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await house.simulator.books.wait_for(lambda books: books.faults["slow_start"] == 1)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert house.simulator.books.requests_by_kind["messages"] == 1
            worker.stop()
        assert {row.state async for row in house.store.jobs()} == {State.AVAILABLE}
        # Who starts next finds nobody leading.
        await house.worker().run()
        assert await finished(house, *"abcd")


async def test_two_processes_write_it_once(tmp_path) -> None:
    names = [f"j{n}" for n in range(20)]
    async with a_house(tmp_path) as house, await Store.open(house.database) as other:
        await house.submit(*map(sharing, names), limits=BatchLimits(concurrency=5))
        async with anyio.create_task_group() as tasks:
            for store in (house.store, other):
                worker = Worker(store, house.client, random=Impatient(), settings=QUICK)
                tasks.start_soon(worker.run)
        assert await finished(house, *names)
        assert house.simulator.books.cache_creation_5m_tokens == SYSTEM_TOKENS


async def test_a_process_that_died_while_it_led_keeps_nobody_waiting_for_long(tmp_path) -> None:
    async with a_house(tmp_path) as house:
        await house.submit(*map(sharing, "abc"))
        (batch,) = await house.store.batches()
        for row in await house.store.shared_prefixes(batch.key):
            now_ms = (await house.row()).created_ms
            assert await house.store.lead_beginning(batch.key, row.hash, now_ms + 500)
        await house.worker().run()
        assert await finished(house, *"abc")
        assert house.simulator.books.cache_creation_5m_tokens == SYSTEM_TOKENS


async def test_nothing_is_written_that_nobody_will_read(tmp_path) -> None:
    async with a_house(tmp_path) as house:
        await house.submit(sharing("a"), sharing("b", system=SYSTEM + "!"), sharing("c", system=""))
        await house.worker().run()
        assert await finished(house, *"abc")
        assert worth(house.simulator.books) == house.simulator.books.input_tokens


@pytest.mark.parametrize("model", [TURN, PREFILL])
@pytest.mark.parametrize("until", [None, Until(min_words=3_500)], ids=["unknown", "known"])
async def test_a_growing_document_is_read_from_the_cache(tmp_path, model, until) -> None:
    # So long that its parts are above the model's minimum from the third call on.
    spec = growing(model=model, until=until, caching=Caching.AUTO if until else Caching.EAGER)
    async with a_house(tmp_path) as house:
        await house.submit(spec)
        await house.worker().run()
        await house.assert_whole(spec)
        books = house.simulator.books
        calls = (await house.row()).calls
        assert calls >= 10
        whole = books.input_tokens + books.cache_creation_5m_tokens + books.cache_read_tokens
        assert worth(books) < 0.45 * whole


async def test_the_time_between_a_documents_calls_decides(tmp_path, monkeypatch) -> None:
    gaps: list[float] = []
    asked: list[float | None] = []
    real = Thrift.go_on

    def go_on(self, look, gap_s, *rest):
        asked.append(gap_s)
        return real(self, look, None if gap_s is None else gap_s + 400, *rest)

    monkeypatch.setattr(Thrift, "went_on", lambda _, gap_s: gaps.append(gap_s))
    monkeypatch.setattr(Thrift, "go_on", go_on)
    spec = growing(until=Until(min_words=3_500))
    async with a_house(tmp_path) as house:
        await house.submit(spec)
        await house.worker().run()
        calls = (await house.row()).calls
        assert asked[0] is None
        assert asked[1:] == gaps
        assert len(gaps) == calls - 1
        # Of calls six and a half minutes apart only entries for an hour are read.
        books = house.simulator.books
        assert books.cache_creation_5m_tokens == 0
        assert books.cache_creation_1h_tokens > 0


async def test_who_resumes_a_document_goes_on_reading(tmp_path) -> None:
    spec = growing(until=Until(min_words=3_500))
    async with a_house(tmp_path) as house:
        await house.submit(spec)
        first = house.worker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.run)
            await house.simulator.books.wait_for(
                lambda books: books.requests_by_kind["messages"] == 6
            )
            first.stop()
        books = house.simulator.books
        before = replace(books)
        await house.worker().run()
        await house.assert_whole(spec)
        fresh = books.input_tokens - before.input_tokens
        read = books.cache_read_tokens - before.cache_read_tokens
        written = books.cache_creation_5m_tokens - before.cache_creation_5m_tokens
        assert read > 5 * written > 0
        assert fresh < written


async def test_a_shared_beginning_is_found_behind_any_number_of_blocks(tmp_path) -> None:
    # Some 30 calls of 15 tokens: a read looks back over 20 blocks and no further.
    names = ("a", "b")
    many = [growing(name, tokens=400, max_tokens=15, system=SYSTEM) for name in names]
    async with a_house(tmp_path) as house:
        await house.submit(*many)
        await house.worker().run()
        assert await finished(house, *names)
        calls = sum([(await house.row(name)).calls for name in names])
        assert calls > 50
        assert house.simulator.books.cache_read_tokens >= (calls - 1) * SYSTEM_TOKENS
        assert house.simulator.books.cache_creation_5m_tokens < 2 * SYSTEM_TOKENS


async def test_where_it_is_off_nothing_is_marked(tmp_path) -> None:
    off = Caching.OFF
    async with a_house(tmp_path) as house:
        await house.submit(*(sharing(n, caching=off) for n in "abc"), growing("d", caching=off))
        await house.worker().run()
        books = house.simulator.books
        assert books.cache_creation_5m_tokens == books.cache_read_tokens == 0
        assert await house.store.shared_prefixes((await house.row()).batch_key) == []


async def test_a_users_own_marks_are_left_alone(tmp_path) -> None:
    own = ({"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "1h"}},)
    specs = [sharing(name, system=own) for name in "abc"]
    async with a_house(tmp_path) as house:
        await house.submit(*specs, limits=BatchLimits(concurrency=1))
        await house.worker().run()
        assert await finished(house, *"abc")
        books = house.simulator.books
        assert (books.cache_creation_5m_tokens, books.cache_creation_1h_tokens) == (
            0, SYSTEM_TOKENS,
        )  # fmt: skip
        assert books.cache_read_tokens == 2 * SYSTEM_TOKENS


async def test_a_cache_that_never_gives_back_is_paid_only_a_few_times(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(PromptCache, "_longest_hit", lambda *_: -1)
    names = [f"j{n}" for n in range(20)]
    async with a_house(tmp_path) as house:
        await house.submit(*map(sharing, names), limits=BatchLimits(concurrency=1))
        await house.worker().run()
        assert await finished(house, *names)
        assert house.simulator.books.cache_creation_5m_tokens <= 4 * SYSTEM_TOKENS


async def test_the_store_is_not_asked_once_a_job(tmp_path, monkeypatch) -> None:
    asked = []
    real = Store.shared_prefixes

    async def counted(self, *args, **options):
        asked.append(args)
        return await real(self, *args, **options)

    monkeypatch.setattr(Store, "shared_prefixes", counted)
    async with a_house(tmp_path) as house:
        alone = (sharing(f"j{n}", system=f"{n}{SYSTEM}") for n in range(20))
        await house.submit(*alone, *(sharing(f"k{n}") for n in range(20)))
        await house.worker().run()
        assert len(asked) < 10
