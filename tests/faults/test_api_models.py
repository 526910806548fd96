"""Models that take prefill, refuse it, or take it and begin afresh: found out once, and for all."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import anyio
import pytest

from runner.continuation.fresh_start import FreshStart
from runner.jobs.call import Strategy, Verdict
from runner.jobs.spec import BatchLimits, ContinuationSpec
from runner.jobs.states import State
from runner.jobs.traits import PrefillAnswer
from runner.messages import models, retirement
from runner.messages.model_info import ModelInfo
from runner.simulator import FaultKind, SimulatorOptions
from runner.simulator import validate as simulator_validate
from runner.store.store import Store
from runner.workers.models import Models
from tests.house import a_house, job

pytestmark = pytest.mark.anyio

REFUSES = "claude-haiku-6"  # the table has to be taught that it is no prefill model
RESTARTS = "local-restarts"
PREFILL = ContinuationSpec(strategy=Strategy.PREFILL)
OLD_WORDING = "Prefilling assistant messages is not supported for this model."


@pytest.fixture
def trusting(monkeypatch):
    """A table that believes of every model that it takes prefill, as an old version's would."""
    known = models._known
    monkeypatch.setattr(models, "_known", lambda name, own: (True, known(name, own)[1]))


def refusals(house) -> int:
    return house.simulator.books.requests_by_status["400"]


@pytest.mark.parametrize("wording", [simulator_validate.PREFILL_REFUSED, OLD_WORDING])
async def test_a_refused_prefill_switches_to_turn_at_once(tmp_path, monkeypatch, trusting, wording):
    monkeypatch.setattr(simulator_validate, "PREFILL_REFUSED", wording)
    jobs = [job(f"j{n}", model=REFUSES) for n in range(12)]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs)
        worker = house.worker()
        await worker.run()
        await house.assert_whole(*jobs)
        assert refusals(house) == 1  # once a model, not once a job
        assert all([(await house.row(spec.id)).attempt == 0 for spec in jobs])
        assert any("takes no prefill" in notice for notice in worker.progress.notices)
        assert house.simulator.books.restarts == 0


async def test_a_refusal_is_remembered_for_the_next_process(tmp_path, trusting):
    first, second = job("a", model=REFUSES), job("b", model=REFUSES)
    async with a_house(tmp_path) as house:
        await house.submit(first)
        await house.worker().run()
        endpoint = house.client.base_url
        assert await house.store.remembered(endpoint, REFUSES) is PrefillAnswer.REFUSED
        assert await house.store.remembered("http://elsewhere", REFUSES) is None
        await house.submit(first, second)
        async with await Store.open(house.database) as another:
            house.store = another
            await house.worker().run()
            await house.assert_whole(first, second)
        assert refusals(house) == 1


async def test_a_server_that_begins_afresh_is_found_out_once(tmp_path):
    jobs = [job(f"j{n}", model=RESTARTS) for n in range(8)]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs)
        await house.worker().run()
        await house.assert_whole(*jobs)
        calls = [
            c for spec in jobs for c in await house.store.calls((await house.row(spec.id)).key)
        ]
        rejected = [call for call in calls if call.strategy is Strategy.PREFILL]
        assert len(rejected) == 1
        assert rejected[0].text == ""
        assert rejected[0].outcome is not None
        assert rejected[0].outcome.rejected
        remembered = await house.store.remembered(house.client.base_url, RESTARTS)
        assert remembered is PrefillAnswer.RESTARTED


async def test_a_restart_costs_no_try_of_the_seam(tmp_path):
    spec = job("a", model=RESTARTS, continuation=ContinuationSpec(seam_retries=0))
    async with a_house(tmp_path) as house:
        await house.submit(spec)
        await house.worker().run()
        await house.assert_whole(spec)


@pytest.mark.parametrize(
    ("model", "words"),
    [(REFUSES, "Take `strategy: prefill` out"), (RESTARTS, "begins its answer afresh")],
)
async def test_who_asks_for_prefill_in_vain_is_told(tmp_path, model, words):
    good, bad = job("good", model=model), job("bad", model=model, continuation=PREFILL)
    async with a_house(tmp_path) as house:
        await house.submit(good, bad)
        await house.worker().run()
        await house.assert_whole(good)
        row = await house.row("bad")
        assert row.state is State.DISCARDED
        assert words in (row.error or "")
        assert house.true_text(bad).startswith(await house.text("bad"))


async def test_a_model_that_takes_prefill_is_asked_by_all_at_once(tmp_path):
    jobs = [job(f"j{n}") for n in range(6)]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs)
        await house.worker().run()
        await house.assert_whole(*jobs)
        endpoint = house.client.base_url
        assert await house.store.remembered(endpoint, jobs[0].model) is PrefillAnswer.TAKEN


async def test_a_server_that_went_on_once_is_not_watched_any_more(tmp_path, monkeypatch):
    """A document may truly repeat its beginning: from then on that is no sign of a fresh start."""
    watched = []
    watch = FreshStart.__init__

    def counted(self, document):
        watched.append(document)
        watch(self, document)

    monkeypatch.setattr(FreshStart, "__init__", counted)
    jobs = [job(f"j{n}", model="local-goes-on") for n in range(3)]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=1))
        await house.worker().run()
        await house.assert_whole(*jobs)
        assert sum([(await house.row(spec.id)).calls for spec in jobs]) > 6
    # The first job's first seam, and the plan for its second, each made twice: then never again.
    assert 1 <= len(watched) <= 4


async def test_a_mixed_batch_finishes_in_one_run_despite_faults(tmp_path):
    """Old, current, unknown and local models; a fifth of all requests meets a fault."""
    passing = ["http_429", "http_500", "http_529", "drop", "clean_end", "error_overloaded", "reset"]
    options = SimulatorOptions(faults=dict.fromkeys(passing, 0.2 / len(passing)), retry_after_s=0)
    names = ("claude-haiku-4-5", "claude-opus-5-5", "claude-saga-7", RESTARTS, "local-goes-on")
    jobs = [job(f"j{n}", model=names[n % 5]) for n in range(50)]
    async with a_house(tmp_path, options) as house:
        await house.submit(*jobs, limits=BatchLimits(concurrency=25, max_attempts=30))
        with anyio.fail_after(60):
            await house.worker().run()
        await house.assert_whole(*jobs)
        assert refusals(house) <= 2  # no model refuses more than once


async def test_a_refusal_is_met_once_a_model_in_a_mixed_batch(tmp_path, trusting):
    names = ("claude-haiku-4-5", "claude-opus-5-5", "claude-saga-7", RESTARTS)
    jobs = [job(f"j{n}", model=names[n % 4]) for n in range(40)]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs)
        await house.worker().run()
        await house.assert_whole(*jobs)
        assert refusals(house) == 2


async def test_a_stop_does_not_wait_for_the_first_prefill(tmp_path):
    jobs = [job("a"), job("b")]
    async with a_house(tmp_path) as house:
        await house.submit(*jobs)
        worker = house.worker()
        lock = worker._place.models.trial("claude-haiku-4-5")
        await lock.acquire()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await house.simulator.books.wait_for(lambda b: b.stop_reasons["max_tokens"] == 2)
            worker.stop()
        assert [(await house.row(spec.id)).state for spec in jobs] == [State.AVAILABLE] * 2
        await house.worker().run()
        await house.assert_whole(*jobs)


async def test_the_endpoints_own_limits_go_before_the_table(tmp_path):
    async with a_house(tmp_path) as house:
        known = Models(house.store, house.client, lambda _: None)
        told = await known.traits("claude-haiku-4-5")
        assert (told.max_output_tokens, told.context_window) == (64_000, 200_000)
        new = await known.traits("claude-saga-7")
        assert (new.max_output_tokens, new.context_window) == (128_000, 1_000_000)
        local = await known.traits("local-x")  # this endpoint tells nothing of it
        assert local == house.client.traits("local-x")
        await known.traits("claude-saga-7")
        assert house.simulator.books.requests_by_kind["models"] == 3


def test_what_an_endpoint_tells_is_read_with_care():
    told = {
        "type": "model",
        "max_tokens": 9,
        "max_input_tokens": True,
        "retires_at": "2026-12-01T00:00:00Z",
        "deprecated_at": "soon",
        "capabilities": {"thinking": {"types": {"enabled": {"supported": True}, "x": 1}}},
    }
    info = ModelInfo.from_body(told)
    assert info == ModelInfo(9, None, None, date(2026, 12, 1), frozenset({"enabled"}))
    assert ModelInfo.from_body({"object": "model", "id": "x"}) is None
    assert ModelInfo.from_body([]) is None


@pytest.mark.parametrize(
    ("model", "info", "words"),
    [
        ("claude-sonnet-4-5-20250929", None, "retires on 2026-11-30, in 7 days"),
        ("claude-mythos-preview", None, "was retired on 2026-06-30"),
        ("claude-haiku-4-5", None, None),
        ("claude-opus-5-5", ModelInfo(retires_on=date(2026, 12, 1)), "retires on 2026-12-01"),
        ("claude-opus-5-5", ModelInfo(deprecated_on=date(2026, 1, 1)), "is deprecated"),
        ("claude-sonnet-4-5", ModelInfo(), None),  # the endpoint knows better
        ("local-x", None, None),
    ],
)
def test_models_that_will_be_gone_are_warned_of(model, info, words):
    told = retirement.warning(model, date(2026, 11, 23), info)
    assert (words is None and told is None) or words in (told or "")


BEGINNING = "The bees came back in March, long before the first of the crocuses opened."
DOCUMENT = BEGINNING + " Nobody had expected them. And then"


@pytest.mark.parametrize(
    ("document", "reply", "verdict"),
    [
        (DOCUMENT, " it snowed again, and they were gone.", Verdict.EXACT),
        (DOCUMENT, DOCUMENT + " more", None),
        (DOCUMENT, "\n" + BEGINNING[:40], None),  # cut off early: still no accident
        (DOCUMENT, "The b", Verdict.UNVERIFIED),  # too short to tell
        (DOCUMENT, "The bees came back in April.", Verdict.EXACT),
        (f"{BEGINNING}\n\n{BEGINNING}\n\n", BEGINNING + " x", Verdict.UNVERIFIED),
        ("0, 0", ", 0, 0", Verdict.EXACT),
        ("0, 0", "0, 0, 0, 0", Verdict.UNVERIFIED),
    ],
    ids=["goes on", "restarts", "restarts cut", "short", "differs", "repeats", "row", "tiny"],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_fresh_start_is_known_by_its_opening(document, reply, verdict, size):
    splice = FreshStart(document)
    kept = "".join(splice.feed(reply[at : at + size]) for at in range(0, len(reply), size))
    kept += splice.end(cut=True)
    assert splice.verdict is verdict
    assert kept == ("" if verdict is None else reply)
    assert splice.rejected == (reply if verdict is None else None)


def test_every_fault_is_named_in_the_simulators_page():
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    assert [kind for kind in FaultKind if f"`{kind}`" not in page] == []
