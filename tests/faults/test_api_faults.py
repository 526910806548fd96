"""Everything that can go wrong between a worker and the API, each alone and all together."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from runner.jobs.call import Strategy
from runner.jobs.spec import BatchLimits
from runner.jobs.states import State
from runner.library import lift_pauses
from runner.messages import backoff
from runner.messages.errors import ErrorKind
from runner.simulator import FaultKind, SimulatorOptions
from runner.simulator.behaviours import Behaviour
from runner.store.records import PauseCause
from tests.house import a_house, job

pytestmark = pytest.mark.anyio

MODELS = {Strategy.PREFILL: "claude-haiku-4-5", Strategy.TURN: "claude-opus-5-5"}
PAUSING = {
    FaultKind.HTTP_400_OWN_LIMIT: PauseCause.SPEND_CAP,
    FaultKind.HTTP_402: PauseCause.SPEND_CAP,
    FaultKind.HTTP_429_SPEND_CAP: PauseCause.SPEND_CAP,
    FaultKind.HTTP_401: PauseCause.CREDENTIALS,
    FaultKind.HTTP_403: PauseCause.CREDENTIALS,
}
FINAL = {FaultKind.HTTP_404, FaultKind.HTTP_413}  # such a request cannot work, whoever asks again
PASSING = [kind for kind in FaultKind if kind not in PAUSING and kind not in FINAL]
QUICK_FAULTS = {"retry_after_s": 0, "slow_start_s": 0.01, "ping_interval_s": 0.01}


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch):
    """A rate limit that names no time costs seconds; here it need not."""
    monkeypatch.setattr(backoff, "RATE_LIMIT_LEAST_S", 0.05)


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("kind", PASSING)
async def test_a_document_outlives_each_fault_alone(tmp_path, kind, strategy):
    """The fault strikes the first call, a continuation, and one right after a fault."""
    spec = job("a", model=MODELS[strategy])
    script = {1: kind, 3: kind, 4: kind}
    options = SimulatorOptions(fault_script=script, **QUICK_FAULTS)
    async with a_house(tmp_path, options, read_timeout_s=0.3) as house:
        await house.submit(spec)
        with anyio.fail_after(90):
            await house.worker().run()
        await house.assert_whole(spec)
        assert house.simulator.books.faults == {kind: 3}


@pytest.mark.parametrize("kind", sorted(FINAL))
async def test_a_request_that_cannot_work_fails_alone(tmp_path, kind):
    good, bad = job("good"), job("bad", mark=f"always={kind}")
    async with a_house(tmp_path) as house:
        await house.submit(good, bad)
        await house.worker().run()
        await house.assert_whole(good)
        assert (await house.row("bad")).state is State.DISCARDED


async def test_many_documents_outlive_all_faults_at_once(tmp_path):
    """A fifth of all requests meets a fault; half of the documents go on by `turn`."""
    share = 0.2 / len(PASSING)
    options = SimulatorOptions(
        faults=dict.fromkeys(PASSING, share),
        behaviours={Behaviour.OPENS: 0.1, Behaviour.REPEATS: 0.1, Behaviour.RETYPES: 0.1},
        **QUICK_FAULTS,
    )
    jobs = [job(f"j{n}", model=MODELS[list(Strategy)[n % 2]]) for n in range(80)]
    async with a_house(tmp_path, options, read_timeout_s=0.5) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=50, max_attempts=30))
        with anyio.fail_after(300):
            await house.worker().run()
        await house.assert_whole(*jobs)
        books = house.simulator.books
        assert set(books.faults) == set(PASSING)
        assert books.faults.total() > 0.1 * books.requests_by_kind["messages"]


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("kind", PAUSING)
async def test_what_the_owner_must_mend_pauses_and_discards_nothing(tmp_path, kind, strategy):
    """The fault strikes continuations, too: what was written stays, and is not written again."""
    jobs = [job(f"j{n}", model=MODELS[strategy]) for n in range(6)]
    script = dict.fromkeys(range(9, 22), kind)
    async with a_house(tmp_path, SimulatorOptions(fault_script=script)) as house:
        await house.submit(*jobs)
        worker = house.worker()
        await worker.run()
        (batch,) = await house.store.batches()
        assert batch.paused is PAUSING[kind]
        assert batch.count(State.DISCARDED) == 0
        assert batch.unfinished
        assert all([(await house.row(spec.id)).attempt == 0 for spec in jobs])
        struck = house.simulator.books.faults[kind]
        assert struck <= 6  # those that were under way, and none after
        with anyio.fail_after(90):
            while await house.store.unfinished():  # the same command again, until it is mended
                await lift_pauses(house.store)
                await house.worker().run()
        await house.assert_whole(*jobs)
        assert house.simulator.books.restarts == 0


async def test_a_rate_limit_rests_all_callers_of_the_model(tmp_path):
    """Jobs that are in the midst of their documents make no further call either."""
    # The prompt asks for the fault: which request comes as which is not ours to say.
    limited = [job(f"j{n}", mark="fault=http_429:2" if n == 5 else "") for n in range(8)]
    other = job("other", model="claude-opus-5-5")
    async with a_house(tmp_path) as house:
        asked = _times_of_asking(house.simulator)
        await house.submit(*limited, other, limits=BatchLimits(concurrency=20))
        with anyio.fail_after(90):
            await house.worker().run()
        await house.assert_whole(*limited, other)
        (refused,) = [at for at, _, status in asked if status == 429]
        # Requests that were on their way when the refusal came cannot be called back.
        later = [at for at, model, _ in asked if model == limited[0].model and at > refused + 0.2]
        assert min(later) >= refused + 2
        assert all([(await house.row(spec.id)).attempt == 0 for spec in limited])


async def test_a_refused_call_tells_the_rate_limits(tmp_path):
    async with a_house(tmp_path, SimulatorOptions(requests_per_minute=1)) as house:
        body = {
            "model": "claude-haiku-4-5",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "x"}],
        }
        async with house.client.stream(body):
            pass
        with pytest.raises(Exception, match="rate limit") as caught:
            async with house.client.stream(body):
                pass
        assert caught.value.kind is ErrorKind.RATE_LIMIT
        assert caught.value.rate_limits.requests.limit == 1
        assert caught.value.rate_limits.requests.remaining == 0


def _times_of_asking(simulator):
    """When requests for messages came, and how they were answered."""
    asked, server, loop = [], simulator._server, asyncio.get_running_loop()
    begin, struck = server._begin, server._struck

    def begun(request, *rest):
        asked.append((loop.time(), request.model_name, 200))
        return begin(request, *rest)

    def refused(fault):
        asked.append((loop.time(), "", 429))
        return struck(fault)

    server._begin, server._struck = begun, refused
    return asked
