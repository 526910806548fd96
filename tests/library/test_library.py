"""The library face, used as a user would."""

from __future__ import annotations

import anyio
import pytest

import runner
from runner.errors import NotFound, SubmitConflict, UsageError
from runner.jobs.states import Finish, State
from runner.store.records import OnConflict
from tests.house import QUICK, a_house, job

pytestmark = pytest.mark.anyio


def test_every_public_name_can_be_had_and_is_listed():
    assert all(getattr(runner, name) is not None for name in runner.__all__)
    assert sorted(runner._MODULE_OF) == runner.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = runner.nothing


async def test_submit_run_and_take_documents_as_they_finish(tmp_path):
    jobs = [job(name) for name in "abc"]
    async with a_house(tmp_path) as house:
        receipt = await runner.submit(house.store, jobs, batch="b")
        assert (receipt.new, receipt.present) == (3, 0)
        async with runner.run(house.store, client=house.client, settings=QUICK) as finished:
            seen = {document.id: document async for document in finished}
        assert sorted(seen) == ["a", "b", "c"]
        for spec in jobs:
            document = seen[spec.id]
            assert document.text == house.true_text(spec)
            assert (document.complete, document.finish) == (True, Finish.END_TURN)
            assert [call.number for call in document.calls] == list(
                range(1, len(document.calls) + 1)
            )
        again = await runner.submit(house.store, jobs, batch="b")
        assert (again.new, again.present) == (0, 3)
        assert [d.id async for d in runner.documents(house.store)] == ["a", "b", "c"]


async def test_leaving_early_loses_nothing(tmp_path):
    jobs = [job(f"j{n}") for n in range(6)]
    async with a_house(tmp_path) as house:
        await runner.submit(house.store, jobs, batch="b")
        async with runner.run(house.store, client=house.client, settings=QUICK) as finished:
            async for _ in finished:
                break
        left = {d.id: d async for d in runner.documents(house.store)}
        async with runner.run(house.store, client=house.client, settings=QUICK) as finished:
            async for _ in finished:
                pass
        await house.assert_whole(*jobs)
        # A call that had only just begun has brought nothing yet; whatever was saved is gone on with.
        async for document in runner.documents(house.store):
            made = len(left[document.id].calls)
            if left[document.id].text:
                assert all(call.resume_at > 0 for call in document.calls[made:])


async def test_an_error_in_the_users_block_ends_the_run_and_comes_out_as_it_is(tmp_path):
    spec = job("a")
    async with a_house(tmp_path) as house:
        house.simulator.hold(50)
        await runner.submit(house.store, [spec], batch="b")

        async def work() -> None:
            async with runner.run(house.store, client=house.client, settings=QUICK):
                await house.simulator.books.wait_for(lambda b: b.tokens_generated > 5)
                raise KeyError("theirs")

        with anyio.fail_after(60), pytest.raises(KeyError, match="theirs"):
            await work()
        assert (await house.row()).state is State.AVAILABLE


async def test_read_and_follow_a_document_while_it_is_written(tmp_path):
    spec = job("a")
    async with a_house(tmp_path) as house, anyio.create_task_group() as tasks:
        gate = house.simulator.hold(120)
        await runner.submit(house.store, [spec], batch="b")
        tasks.start_soon(house.worker().run)
        pieces = []
        async for piece in runner.follow(house.store, "a"):
            if not pieces:
                document = await runner.read(house.store, "b/a")
                assert (document.state, document.complete) == (State.EXECUTING, False)
                assert house.true_text(spec).startswith(document.text)
                gate.release()
            pieces.append(piece)
        assert len(pieces) > 1
        assert "".join(pieces) == house.true_text(spec)


async def test_a_changed_prompt_is_refused_replaced_or_kept(tmp_path):
    old, new = job("a"), job("a", mark="tokens=40")
    async with a_house(tmp_path) as house:
        await runner.submit(house.store, [old], batch="b")
        with pytest.raises(SubmitConflict, match="'a'"):
            await runner.submit(house.store, [new], batch="b")
        kept = await runner.submit(house.store, [new], batch="b", on_conflict=OnConflict.KEEP)
        assert kept.kept == 1
        await house.worker().run()
        await house.assert_whole(old)
        replaced = await runner.submit(
            house.store, [new], batch="b", on_conflict=OnConflict.REPLACE
        )
        assert replaced.replaced == 1
        assert (await runner.read(house.store, "a")).text == ""
        await house.worker().run()
        await house.assert_whole(new)


async def test_mistakes_are_named(tmp_path):
    async with a_house(tmp_path) as house:
        with pytest.raises(UsageError, match="batch name"):
            await runner.submit(house.store, [job("a")])
        with pytest.raises(NotFound, match="'nope'"):
            await runner.read(house.store, "nope")


async def test_a_job_file_is_submitted_by_its_path(tmp_path, database):
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "version: 1\ndefaults: {model: claude-haiku-4-5}\n"
        "jobs: [{id: one, prompt: Hello.}, {id: two, prompt: Goodbye.}]\n"
    )
    async with runner.open_store(database) as store:
        assert (await runner.submit(store, path)).new == 2
        assert (await runner.submit(store, runner.read_job_file(path))).present == 2
        assert (await store.batches())[0].name == "jobs"


async def test_a_budget_from_python(tmp_path):
    spec = job("a")
    poor = runner.BatchSpec("b", runner.BatchLimits(max_cost_nano_usd=500_000))
    async with a_house(tmp_path) as house:
        with pytest.raises(UsageError, match="price of local-llama is not known"):
            await runner.submit(house.store, [job("a", model="local-llama")], batch=poor)
        assert await house.store.batches() == []
        await runner.submit(house.store, [spec], batch=poor)
        async with runner.run(house.store, client=house.client, settings=QUICK) as finished:
            assert [document async for document in finished] == []
        (row,) = await house.store.batches()
        assert (row.paused, row.cost_nano_usd <= 500_000) == ("budget", True)
        await runner.submit(house.store, [spec], batch=runner.BatchSpec("b"))
        async with runner.run(house.store, client=house.client, settings=QUICK) as finished:
            assert [document.complete async for document in finished] == [True]
