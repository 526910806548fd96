"""A server that goes away, connections that die at the worst moment, writers in each other's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from runner.errors import ClaimLost, StoreBlocked
from runner.jobs.states import State
from runner.store import postgres_session, server
from runner.store.records import Lane, Settlement
from runner.store.store import Store
from runner.store.together import SAVE_ALL
from runner.workers.progress import Progress
from runner.workers.rescue import Rescuer
from runner.workers.settings import WorkerSettings
from tests.postgres import Server
from tests.proxy import Trouble, a_proxy
from tests.store.hands import Hands, make_spec, postgres_only
from tests.strangers import Stranger, a_stranger

pytestmark = [pytest.mark.anyio, postgres_only]

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


async def until(holds: Callable[[], bool]) -> None:
    """No event tells of what happens in the server."""
    with anyio.fail_after(60):
        while not holds():  # noqa: ASYNC110
            await anyio.sleep(0.01)


def somebody_waits(stranger: Stranger) -> bool:
    """Whether a backend of this database waits for a lock."""
    return stranger.execute(WAITING + " AND datname = current_database()") == [(1,)]


# fences


async def test_a_take_over_waits_for_a_save_that_is_under_way(hands, store, database: str) -> None:
    await hands.submit()
    claim = await hands.claim("w1")
    call_key = await hands.begin(claim)
    with a_stranger(database) as zombie, a_stranger(database) as looker:
        zombie.execute("BEGIN")
        one = (claim.job_key, claim.number, "w1", call_key, 0, "text")
        zombie.execute(SAVE_ALL, [[value] for value in one])
        rescue = asyncio.ensure_future(store.rescue("w1", max_rescues=3))
        await until(lambda: somebody_waits(looker))
        assert not rescue.done()
        zombie.execute("COMMIT")
        assert await rescue == ["a"]
    # Its text was saved under the claim that died, so that it is counted anew.
    assert (await hands.job()).rescues == 1
    assert [piece.text for piece in await store.pieces(claim.job_key)] == ["text"]


async def test_a_save_that_waits_for_a_take_over_is_refused(hands, store, database: str) -> None:
    await hands.submit()
    claim = await hands.claim("w1")
    call_key = await hands.begin(claim)
    with a_stranger(database) as taker, a_stranger(database) as looker:
        taker.execute("BEGIN")
        taker.execute("UPDATE job SET claim = claim + 1 WHERE key = ?", (claim.job_key,))
        saving = store.save(claim, call_key, 0, "text")
        await until(lambda: somebody_waits(looker))
        taker.execute("COMMIT")
        with pytest.raises(ClaimLost):
            await saving
    assert await store.pieces(claim.job_key) == []


async def test_a_call_is_not_begun_while_a_take_over_is_under_way(
    hands, store, database: str
) -> None:
    """Without the turn, the zombie would see the job as it was before, and begin a call of it."""
    await hands.submit()
    claim = await hands.claim("w1")
    with a_stranger(database) as taker, a_stranger(database) as looker:
        taker.execute("BEGIN")
        taker.execute(f"SELECT pg_advisory_xact_lock({postgres_session.TURN})")
        taker.execute("UPDATE job SET claim = claim + 1 WHERE key = ?", (claim.job_key,))
        beginning = asyncio.ensure_future(hands.begin(claim))
        await until(lambda: beginning.done() or somebody_waits(looker))
        taker.execute("COMMIT")
        with pytest.raises(ClaimLost):
            await beginning


async def test_saves_of_several_processes_do_not_wait_for_each_other(
    hands, store, database: str
) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    with a_stranger(database) as writer:
        writer.execute("BEGIN")
        writer.execute(f"SELECT pg_advisory_xact_lock({postgres_session.TURN})")
        with anyio.fail_after(60):
            await store.save(claim, call_key, 0, "text")
        writer.execute("ROLLBACK")


async def test_claims_pass_by_what_another_transaction_holds(hands, store, database: str) -> None:
    await hands.submit(make_spec("a"), make_spec("b"))
    await hands.register("w1")
    with a_stranger(database) as other:
        other.execute("BEGIN")
        other.execute("SELECT 1 FROM job WHERE id = 'a' FOR UPDATE")
        with anyio.fail_after(60):
            claims = await store.claim("w1", [Lane(hands.batch_key, "m", 2)], 2)
        assert [claim.job_id for claim in claims] == ["b"]
        other.execute("ROLLBACK")


async def test_a_deadlock_is_tried_again(hands, store, database: str) -> None:
    await hands.submit(make_spec("a"), make_spec("b"))
    claims = [await hands.claim(), await hands.claim()]
    first, second = [await hands.begin(claim) for claim in claims]
    with a_stranger(database) as other, a_stranger(database) as looker:
        other.execute("SET deadlock_timeout = '1h'")  # so that it is the store's that is undone
        other.execute("BEGIN")
        other.execute("UPDATE job SET priority = 1 WHERE key = ?", (claims[1].job_key,))
        saved = asyncio.gather(
            store.save(claims[0], first, 0, "one"), store.save(claims[1], second, 0, "two")
        )
        await until(lambda: somebody_waits(looker))
        update = "UPDATE job SET priority = 1 WHERE key = ?"
        await asyncio.to_thread(other.execute, update, (claims[0].job_key,))
        other.execute("COMMIT")
        await saved
    assert [piece.text for piece in await store.pieces(claims[0].job_key)] == ["one"]


# a commit without an answer


@pytest.mark.parametrize("trouble", [Trouble.LOSE_ANSWER, Trouble.LOSE_COMMIT])
async def test_what_a_lost_commit_did_is_done_once(database: str, trouble: Trouble) -> None:
    with a_proxy(database) as (proxy, through):
        async with await Store.open(through) as store:
            hands = Hands(store)
            await hands.submit(*(make_spec(f"j{n}") for n in range(4)))
            await hands.register("w1")
            for number in range(1, 5):
                proxy.trouble = trouble
                claim = await hands.claim()
                proxy.trouble = trouble
                call_key = await hands.begin(claim)
                proxy.trouble = trouble
                await store.save(claim, call_key, 0, "text")
                proxy.trouble = trouble
                await store.settle(claim, Settlement(State.RETRYABLE, error="529", delay_ms=9))
                job = await store.job(claim.job_key)
                assert (job.claim, job.attempt, job.calls) == (1, 1, 1)
                assert [piece.text for piece in await store.pieces(claim.job_key)] == ["text"]
                assert proxy.cuts == 4 * number
            assert await store.check() == []


async def test_a_commit_that_the_server_does_not_finish_is_told_and_done_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its synchronous standby is gone: it says "in progress" until somebody mends that."""
    status = postgres_session.STATUS
    monkeypatch.setattr(postgres_session, "IN_DOUBT_S", 0.2)
    with a_proxy(database) as (proxy, through):
        async with await Store.open(through) as store:
            hands, told = Hands(store), asyncio.Event()
            await hands.submit()
            claim = await hands.claim()
            call_key = await hands.begin(claim)
            causes: list[StoreBlocked | None] = []

            def tell(cause: StoreBlocked | None) -> None:
                causes.append(cause)
                told.set()

            store.wait_when_blocked(tell)
            monkeypatch.setattr(
                postgres_session, "STATUS", text("SELECT 'in progress', :xid, :recovered, :mark")
            )
            proxy.trouble = Trouble.LOSE_ANSWER
            saving = store.save(claim, call_key, 0, "text")
            with anyio.fail_after(60):
                await told.wait()
                assert "does not finish a commit" in str(causes[0])
                assert not saving.done()
                monkeypatch.setattr(postgres_session, "STATUS", status)
                await saving
            assert [piece.text for piece in await store.pieces(claim.job_key)] == ["text"]
            assert await store.check() == []


async def test_an_answer_means_on_the_disk_whatever_the_server_does_for_others(
    database: str,
) -> None:
    name = make_url(database).database
    with a_stranger(database) as stranger:
        stranger.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    async with await Store.open(database) as store:
        shown = await store._writer.run(
            lambda connection: connection.exec_driver_sql("SHOW synchronous_commit").scalar()
        )
    assert shown == "on"


# a server that goes away


async def test_a_terminated_connection_is_made_anew(hands, store, database: str) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    with a_stranger(database) as stranger:
        for seq in range(3):
            stranger.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert (await hands.job()).state is State.EXECUTING
            await store.save(claim, call_key, seq, f"{seq}")
    assert len(await store.pieces(claim.job_key)) == 3


async def test_a_restart_is_waited_for(
    hands, store: Store, database: str, postgres_server: Server
) -> None:
    await hands.submit()
    claim = await hands.claim()
    call_key = await hands.begin(claim)
    told: list[StoreBlocked | None] = []
    began = anyio.Event()

    def tell(error: StoreBlocked | None) -> None:
        told.append(error)
        began.set()

    store.wait_when_blocked(tell)
    await asyncio.to_thread(postgres_server.stop)
    try:
        saving = store.save(claim, call_key, 0, "text")
        reading = asyncio.ensure_future(hands.job())
        with anyio.fail_after(60):
            await began.wait()
        assert "does not answer" in str(told[0])
    finally:
        await asyncio.to_thread(postgres_server.start)
    with anyio.fail_after(60):
        await saving
        assert (await reading).state is State.EXECUTING
    await until(lambda: told[-1] is None)


async def test_who_does_not_wait_is_told(
    hands, store: Store, database: str, postgres_server: Server
) -> None:
    await hands.submit()
    await asyncio.to_thread(postgres_server.stop)
    try:
        with pytest.raises(StoreBlocked, match=r"does not answer .*What was saved is safe"):
            await hands.register("w2")
        with pytest.raises(StoreBlocked, match="does not answer"):
            await hands.job()
        with pytest.raises(StoreBlocked, match="does not answer"):
            await Store.open(database)
    finally:
        await asyncio.to_thread(postgres_server.start)
    await hands.register("w2")
    assert (await hands.job()).state is State.AVAILABLE


async def test_silence_is_not_waited_for_for_ever(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "COMMAND_TIMEOUT_S", 0.5)
    monkeypatch.setattr(server, "CONNECT_TIMEOUT_S", 0.5)
    with a_proxy(database) as (proxy, through):
        async with await Store.open(through) as store:
            await Hands(store).submit()
            proxy.trouble = Trouble.SILENT
            with pytest.raises(StoreBlocked, match="does not answer"):
                await Hands(store).register()
            with pytest.raises(StoreBlocked, match="does not answer"):
                await store.batches()
            proxy.trouble = Trouble.NONE
            await Hands(store).register()


# the clock


async def test_no_wall_clock_of_a_worker_decides(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = time.time_ns, time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: wrong)
    async with await Store.open(database) as store:
        await Hands(store).register("w1")
        (row,) = await store.workers()
    assert abs(row.started_ms - right() // 1_000_000) < 60_000


async def test_a_lease_that_ran_out_by_the_servers_clock_need_not_be_watched(database: str) -> None:
    """After `kill -9` nobody can tell of the dead but their leases; a restart may find them over."""
    async with await Store.open(database) as store:
        hands = Hands(store)
        await hands.submit(make_spec("a"), make_spec("b"))
        await hands.claim("living")
        await hands.claim("dead")
        await store.renew_lease("dead", lease_ms=-1)
        await Rescuer(store, "heir", WorkerSettings(), Progress()).look()
        assert (await hands.job("a")).state is State.EXECUTING
        assert (await hands.job("b")).state is State.AVAILABLE
        assert [row.id for row in await store.workers()] == ["living"]


async def test_a_number_that_is_given_out_again_after_a_crash_tells_nothing(
    database: str, postgres_server: Server
) -> None:
    """Of a transaction that left nothing in the log, the server forgets the number as well."""
    postgres_server.run("ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()")

    def crash() -> None:
        postgres_server.crash()
        postgres_server.start()
        for number in range(5):
            postgres_server.run(f"CREATE TABLE another{number} (n int)")

    try:
        with a_proxy(database) as (proxy, through):
            async with await Store.open(through) as store:
                hands = Hands(store)
                await hands.submit()
                claim = await hands.claim()
                call_key = await hands.begin(claim)
                store.wait_when_blocked(lambda _: None)
                proxy.meanwhile = crash
                proxy.trouble = Trouble.LOSE_COMMIT
                await store.save(claim, call_key, 0, "text")
                assert proxy.cuts == 1
                assert [piece.text for piece in await store.pieces(claim.job_key)] == ["text"]
    finally:
        tables = ", ".join(f"another{number}" for number in range(5))
        postgres_server.run(
            f"DROP TABLE IF EXISTS {tables}",
            "ALTER SYSTEM RESET wal_writer_delay",
            "SELECT pg_reload_conf()",
        )
