"""`runner cost`: figures typed in by hand, in every form."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator

import pytest

from runner.jobs.call import CallOutcome, Charge, Strategy, Usage
from runner.jobs.price import Rates, nano_usd
from runner.jobs.spec import BatchSpec, JobSpec
from runner.jobs.states import Finish, State
from runner.store.purposes import LEDGER_COLUMNS
from runner.store.records import CallStart, Lane, Selection, Settlement
from runner.store.store import Store
from tests.places import Place
from tests.strangers import a_stranger

RATES = Rates(*map(nano_usd, ("1", "5", "1.25", "2", "0.1")))  # claude-haiku-4-5
HOSTILE = "=cmd()\x1b[31m"
DAY_MS = 86_400_000
NOON_MS = 20_780 * DAY_MS + DAY_MS // 2  # 23 November 2026

DONE = Settlement(State.COMPLETED, finish=Finish.END_TURN)
MORE = None


async def one_call(
    store: Store,
    claim: object,
    number: int,
    usage: Usage,
    *,
    rates: Rates | None = RATES,
    prompt: int = 1_000,
    dropped: int = 0,
    lost: int = 0,
    then: Settlement | None = DONE,
) -> None:
    start = CallStart(
        number=number,
        strategy=Strategy.PREFILL if number > 1 else None,
        resume_at=0 if number == 1 else 3,
        max_tokens=9_000,
        model="claude-haiku-4-5",
        rates=rates,
        prompt_tokens=prompt,
        dropped_output_tokens=dropped,
    )
    call_key = await store.begin_call(claim, start)  # type: ignore[arg-type]
    await store.save(claim, call_key, number, "text")  # type: ignore[arg-type]
    cost = None if rates is None else rates.cost(usage)
    outcome = CallOutcome(
        None if usage.estimated else "max_tokens", usage=usage, charge=Charge(cost, prompt, lost)
    )
    if then is None:
        await store.end_call(claim, call_key, outcome)  # type: ignore[arg-type]
    else:
        await store.end_call_and_settle(claim, call_key, outcome, then)  # type: ignore[arg-type]


async def fill(database: str) -> None:
    """Batch `animals`: heron (two calls on two days, the second with a cache), badger (a broken
    call), fox (a call whose price nobody knows); a simulated batch with a hostile name."""
    now_ms = NOON_MS
    async with await Store.open(database, now_ms=lambda: now_ms) as store:
        await store.register_worker("w", host="h", pid=1, lease_ms=60_000)

        def spec(id: str) -> JobSpec:
            return JobSpec(id, "claude-haiku-4-5", ({"role": "user", "content": "?"},))

        async def claimed(batch_key: int) -> object:
            (claim,) = await store.claim("w", [Lane(batch_key, "claude-haiku-4-5", 1)], 1)
            return claim

        specs = [spec(name) for name in ("heron", "badger", "fox")]
        key = (await store.submit(BatchSpec("animals"), specs)).batch_key
        claim = await claimed(key)
        await one_call(store, claim, 1, Usage(1_000, output_tokens=400), then=MORE)
        now_ms += DAY_MS
        cached = Usage(100, 300, 1_000, 200, cache_creation_1h_input_tokens=100)
        await one_call(store, claim, 2, cached, dropped=2)
        claim = await claimed(key)
        broken = Usage(1_000, output_tokens=100, estimated=True)
        await one_call(store, claim, 1, broken, lost=10)
        claim = await claimed(key)
        await one_call(store, claim, 1, Usage(7, output_tokens=7), rates=None)

        receipt = await store.submit(BatchSpec(HOSTILE), [spec("owl")], simulated=True)
        claim = await claimed(receipt.batch_key)
        await one_call(store, claim, 1, Usage(1_000_000, output_tokens=1_000_000))


# Heron: 1,000 + 5 * 400, then 100 + 1.25 * 200 + 2 * 100 + 0.1 * 1,000 + 5 * 200 millionths of a
# dollar. Badger: 1,000 + 5 * 100.
HERON_1, HERON_2, BADGER, OWL = 0.003, 0.00165, 0.0015, 6.0
ANIMALS = HERON_1 + HERON_2 + BADGER


@pytest.fixture(scope="module")
def templates() -> dict[str, str]:
    """Ledgers to copy, by kind of database."""
    return {}


@pytest.fixture
def ledger(place: Place, templates: dict[str, str]) -> Iterator[str]:
    if place.kind not in templates:
        templates[place.kind] = place.new()
        asyncio.run(fill(templates[place.kind]))
    database = place.copy(templates[place.kind])
    yield database
    place.drop(database)


def rows_of(runner, *args: object) -> list[dict[str, object]]:
    value = json.loads(runner("cost", *args, "--json").stdout)
    rows: list[dict[str, object]] = value["rows"]
    return rows


def test_by_batch_with_purposes_and_comparisons(runner, ledger: str) -> None:
    value = json.loads(runner("cost", "--db", ledger, "--json").stdout)
    animals, owls = value["rows"]
    assert (animals["batch"], animals["simulated"], animals["calls"]) == ("animals", False, 4)
    assert animals["cost_usd"] == pytest.approx(ANIMALS)
    assert animals["estimated_cost_usd"] == pytest.approx(BADGER)
    assert animals["unpriced_calls"] == 1
    found = {
        name: (part["tokens"], pytest.approx(part["cost_usd"], abs=1e-9))
        for name, part in animals["purposes"].items()
    }
    # The tokens of the fox count, its price does not.
    assert found == {
        "prompt_first": (2_007, 0.002),
        "prompt_again": (0, 0),
        "document_again": (100, 0.0001),
        "cache_written": (300, 0.00045),
        "cache_read": (1_000, 0.0001),
        "output_kept": (695, 0.00344),
        "output_lost": (12, 0.00006),
    }
    # Heron's second call without the cache: 1,400 + 5 * 200.
    assert animals["without_caching_usd"] == pytest.approx(HERON_1 + 0.0024 + BADGER)
    # Two prompts of 1,000 once, and 598 + 90 tokens that were kept.
    assert animals["in_one_call_usd"] == pytest.approx(0.002 + 688 * 5e-6)
    assert (owls["simulated"], owls["cost_usd"]) == (True, OWL)
    # What is simulated never mixes with what was paid.
    assert [total["cost_usd"] for total in value["totals"]] == [
        pytest.approx(ANIMALS),
        pytest.approx(OWL),
    ]
    assert value["pruned"] == []


def test_by_day_by_model_and_by_job(runner, ledger: str) -> None:
    days = rows_of(runner, "--db", ledger, "--by", "day", "--batch", "animals")
    assert [(day["day"], day["cost_usd"]) for day in days] == [
        ("2026-11-23", pytest.approx(HERON_1)),
        ("2026-11-24", pytest.approx(HERON_2 + BADGER)),
    ]
    models = rows_of(runner, "--db", ledger, "--by", "model")
    assert [(row["model"], row["simulated"], row["cost_usd"]) for row in models] == [
        ("claude-haiku-4-5", False, pytest.approx(ANIMALS)),
        ("claude-haiku-4-5", True, pytest.approx(OWL)),
    ]
    lines = runner("cost", "--db", ledger, "--by", "job", "--json").stdout.splitlines()
    assert [(row["job"], row["cost_usd"]) for row in map(json.loads, lines)] == [
        ("heron", pytest.approx(HERON_1 + HERON_2)),
        ("badger", pytest.approx(BADGER)),
        ("fox", 0),
        ("owl", pytest.approx(OWL)),
    ]


def test_jobs_are_read_page_by_page(runner, ledger: str, monkeypatch) -> None:
    whole = runner("cost", "--db", ledger, "--by", "job", "--json").stdout
    monkeypatch.setattr("runner.store.ledger.JOBS_A_PAGE", 1)
    assert runner("cost", "--db", ledger, "--by", "job", "--json").stdout == whole


@pytest.mark.parametrize("by", ["batch", "model", "day", "job"])
def test_the_table_fits_its_screen_and_its_reader(runner, ledger: str, by: str) -> None:
    told = runner("cost", "--db", ledger, "--by", by).stdout
    assert max(map(len, told.splitlines())) <= 100
    assert len(told.splitlines()) <= 24
    assert "\x1b" not in told
    assert "~$0.006150" in told  # in part estimated
    for words in ("prompt read first", "without prompt caching", "each document in one call"):
        assert words in told
    assert "price unknown: 1 call, in no sum of money" in told
    assert "simulated batches left out" in told


def test_csv_has_a_line_a_row_and_no_formulas(runner, ledger: str) -> None:
    told = runner("cost", "--db", ledger, "--csv").stdout
    animals, owls = csv.DictReader(io.StringIO(told))
    assert float(animals["cost_usd"]) == pytest.approx(ANIMALS)
    assert float(animals["output_lost_cost_usd"]) == pytest.approx(0.00006)
    assert animals["estimated"] == "1"
    assert owls["batch"] == "'=cmd()"


def test_money_of_pruned_jobs_stays_in_sight(runner, ledger: str) -> None:
    async def prune() -> None:
        async with await Store.open(ledger) as store:
            heron = await store.find_job("heron")
            await store.prune(Selection(job_keys=(heron.key,)))
            (animals,) = await store.batches(["animals"])
            assert animals.cost_nano_usd == nano_usd(f"{ANIMALS:.9f}")

    asyncio.run(prune())
    told = runner("cost", "--db", ledger).stdout
    assert "animals: pruned jobs" in told
    assert "$0.004650" in told.split("pruned jobs")[1].splitlines()[0]
    value = json.loads(runner("cost", "--db", ledger, "--json").stdout)
    assert value["pruned"] == [
        {"batch": "animals", "simulated": False, "cost_usd": pytest.approx(HERON_1 + HERON_2)}
    ]


def test_mistakes_are_told(runner, ledger: str) -> None:
    both = runner("cost", "--db", ledger, "--json", "--csv")
    assert (both.exit_code, "give one of them" in both.stderr) == (2, True)
    unknown = runner("cost", "--db", ledger, "--batch", "nobody")
    assert (unknown.exit_code, "no batch nobody" in unknown.stderr) == (2, True)


def test_before_the_first_call_there_is_nothing(runner, database: str) -> None:
    told = runner("cost", "--db", database)
    assert (told.exit_code, told.stdout) == (0, "")
    assert "no calls yet" in told.stderr


def test_the_view_says_the_same_in_dollars(runner, ledger: str) -> None:
    parts = " + ".join(name for name in LEDGER_COLUMNS if name.endswith("_usd"))
    parts = parts.removeprefix("cost_usd + ")
    with a_stranger(ledger) as stranger:
        rows = stranger.execute(
            f"SELECT job, day, cost_usd, {parts}, estimated FROM ledger ORDER BY call_key"  # noqa: S608
        )
    in_floats = [
        (job, day, *(usd if usd is None else float(usd) for usd in paid), estimated)
        for job, day, *paid, estimated in rows  # a server has decimal numbers
    ]
    assert in_floats == [
        ("heron", "2026-11-23", pytest.approx(HERON_1), pytest.approx(HERON_1), 0),
        ("heron", "2026-11-24", pytest.approx(HERON_2), pytest.approx(HERON_2), 0),
        ("badger", "2026-11-24", pytest.approx(BADGER), pytest.approx(BADGER), 1),
        ("fox", "2026-11-24", None, None, 0),
        ("owl", "2026-11-24", pytest.approx(OWL), pytest.approx(OWL), 0),
    ]
