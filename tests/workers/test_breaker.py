"""The breaker at work: a night of the same error ends after twenty jobs, not after all of them."""

from __future__ import annotations

import pytest

from runner.jobs.spec import BatchLimits, BatchSpec
from runner.jobs.states import State
from runner.store.breaker import IN_A_ROW
from runner.store.records import OnConflict, PauseCause
from tests.cli.conftest import runner as runner  # a fixture
from tests.cli.jobs_files import write
from tests.cli.simulated import simulator
from tests.house import a_house, job

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ("always=http_413", "413 request_too_large"),
        ("always=http_500", "500 api_error"),  # after all its attempts
        ("always=drop:0", "broken_stream"),
    ],
)
async def test_the_batch_pauses_with_most_jobs_untouched(tmp_path, mark: str, name: str) -> None:
    async with a_house(tmp_path) as house:
        # Good ones first: what went well long ago does not matter.
        jobs = [job(f"good-{n}", priority=1) for n in range(5)]
        jobs += [job(f"bad-{n}", mark=mark) for n in range(60)]
        await house.submit(*jobs, limits=BatchLimits(concurrency=4, max_attempts=1))
        await house.worker().run()
        (batch,) = await house.store.batches()
        assert batch.paused is PauseCause.BREAKER
        reason = batch.pause_reason or ""
        # In a row, unless one of the good ones took its time.
        assert f" failed with the same error, {name}; the last of them is bad-" in reason
        assert batch.complete == 5
        assert IN_A_ROW <= batch.count(State.DISCARDED) < 30
        # As it says: mended, put back, gone on with.
        mended = [job(spec.id) for spec in jobs]
        await house.store.submit(BatchSpec("b"), mended, on_conflict=OnConflict.REPLACE)
        assert await house.store.resume(batch.key, causes=[PauseCause.BREAKER])
        await house.worker().run()
        (batch,) = await house.store.batches()
        assert (batch.complete, batch.unfinished) == (65, 0)


async def test_a_night_of_mixed_trouble_goes_on(tmp_path) -> None:
    """A third of the jobs fails, in two ways: that is for the owner to look at in the morning."""
    marks = ["always=http_413", "", "", "", "always=http_500", ""]
    async with a_house(tmp_path) as house:
        jobs = [job(f"a{n}", mark=marks[n % 6], max_tokens=4000) for n in range(90)]
        await house.submit(*jobs, limits=BatchLimits(concurrency=1, max_attempts=1))
        await house.worker().run()
        (batch,) = await house.store.batches()
        assert batch.paused is None
        assert (batch.complete, batch.count(State.DISCARDED)) == (60, 30)


def test_the_run_says_which_error_how_often_and_what_to_do(runner, tmp_path, monkeypatch) -> None:
    jobs = write(tmp_path, count=35, prompt="Write about animal")
    mark = '"[[simulate: fault=http_413]] Write'
    jobs.write_text(jobs.read_text().replace("Write", mark).replace(".}", '."}'))
    with simulator() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        result = runner("run", jobs, "--concurrency", 3)
        assert result.exit_code == 1
        said = " ".join(result.stderr.split())
        assert "animals is paused (breaker): 20 jobs in a row failed with the same error" in said
        assert "413 request_too_large" in said
        for command in (
            "`runner show JOB`",
            "`runner retry --batch animals --state discarded`",
            "`runner resume animals`",
        ):
            assert command in said
        assert server.books.requests_by_kind["messages"] < 25
        assert "paused (breaker)" in " ".join(runner("status").stdout.split())
        # The fault struck each prompt once: now it is mended.
        assert runner("retry", "--batch", "animals", "--state", "discarded").exit_code == 0
        result = runner("run", jobs, "--concurrency", 3)
        # The others meet it as well, and they are fewer than 20.
        assert result.exit_code == 1
        assert "breaker" not in result.stderr
        assert runner("retry", "--batch", "animals", "--state", "discarded").exit_code == 0
        assert runner("run", jobs).exit_code == 0
