"""Limits that are no chance: ramp, spending, overload, patience; fast time, and changes while it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic import AsyncAnthropic
from hypothesis import given
from hypothesis import strategies as st

from runner.simulator import Simulator, SimulatorError, SimulatorOptions
from runner.simulator.admission import Admission
from runner.simulator.books import Books
from runner.simulator.clock import Clock
from runner.simulator.control import CHANGEABLE
from runner.simulator.limits import RateLimits
from runner.simulator.problems import ApiProblem
from runner.simulator.ramp import Ramp

pytestmark = pytest.mark.anyio
Clients = Callable[..., AsyncAnthropic]

BODY: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Tell me of otters, in 600 words."}],
}


class HandClock(Clock):
    """A clock that is set by hand."""

    at_s = 0.0

    def now_s(self) -> float:
        return self.at_s


async def answers(client: AsyncAnthropic, times: int) -> list[int]:
    statuses = []
    for _ in range(times):
        try:
            await client.messages.create(**BODY)
            statuses.append(200)
        except anthropic.APIStatusError as error:
            statuses.append(error.status_code)
    return statuses


async def refused(client: AsyncAnthropic) -> anthropic.APIStatusError:
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(**BODY)
    return caught.value


async def told(simulator: Simulator, path: str, **changes: Any) -> Any:
    async with aiohttp.ClientSession() as session:
        if changes:
            answer = await session.post(simulator.base_url + path, json=changes)
        else:
            answer = await session.get(simulator.base_url + path)
        return await answer.json()


def test_a_ramp_lets_the_last_minute_come_again_and_so_much_more() -> None:
    ramp, now_s, admitted = Ramp(60, 0.0), 0.0, list[float]()
    while now_s < 240:  # as fast as it lets
        now_s += max(ramp.wait_s(now_s), 0.001)
        if ramp.wait_s(now_s) == 0:
            ramp.take(now_s)
            admitted.append(now_s)
    minutes = [sum(60 * m <= at < 60 * m + 60 for at in admitted) for m in range(4)]
    # Steady growth: never the double of the minute before by more than the growth and the burst.
    assert 60 <= minutes[0] <= 130
    for before, after in pairwise(minutes):
        assert before < after <= 2 * before + 60 + 60


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200), st.integers(1, 600))
def test_a_ramp_never_lets_more_in_than_it_says(gaps: list[float], growth: int) -> None:
    ramp, now_s, admitted = Ramp(growth, 0.0), 0.0, list[float]()
    for gap in gaps:
        now_s += gap
        wait_s = ramp.wait_s(now_s)
        assert wait_s >= 0
        if wait_s == 0:
            ramp.take(now_s)
            admitted.append(now_s)
        else:
            assert ramp.wait_s(now_s + wait_s + 1e-6) == 0
            now_s += wait_s + 1e-6
    for place, at in enumerate(admitted):
        last = sum(1 for other in admitted[:place] if other > at - 10)
        before = sum(1 for other in admitted[:place] if other > at - 70)
        # Ten seconds at the rate that their minute and the growth allow, and a burst.
        assert last <= (before + growth) * 15 / 60 + 2


async def test_acceleration_is_refused_and_grows_back(client_of: Clients) -> None:
    options = SimulatorOptions(ramp_requests_per_minute=24)
    async with Simulator(options) as simulator:
        client = client_of(simulator)
        assert await answers(client, 2) == [200, 200]  # five seconds' worth at once
        error = await refused(client)
        assert (error.status_code, error.type) == (429, "rate_limit_error")
        assert isinstance(error, anthropic.RateLimitError)
        assert error.error_code == "ramp_limit_exceeded"
        assert 1 <= int(error.response.headers["retry-after"]) <= 3
        assert simulator.books.faults == {"http_429_ramp": 1}
        simulator.change(ramp_requests_per_minute=0)
        assert await answers(client, 3) == [200] * 3


@pytest.mark.parametrize(
    ("option", "status", "code", "fault"),
    [
        ("spend_cap_tokens", 429, "enforced_spend_limit_reached", "http_429_spend_cap"),
        ("own_limit_tokens", 400, None, "http_400_own_limit"),
    ],
)
async def test_a_spending_limit_holds_until_it_is_lifted(
    client_of: Clients, option: str, status: int, code: str | None, fault: str
) -> None:
    async with Simulator(SimulatorOptions(**{option: 60})) as simulator:  # type: ignore[arg-type]
        client = client_of(simulator)
        assert await answers(client, 4) == [200, status, status, status]
        error = await refused(client)
        assert error.error_code == code
        assert "retry-after" not in error.response.headers
        assert simulator.books.faults == {fault: 4}
        assert simulator.books.billed_requests == 1
        assert (await told(simulator, "/control", **{option: 0}))[option] == 0
        assert await answers(client, 2) == [200, 200]


async def test_an_overload_lasts_as_long_as_it_is_told(client_of: Clients) -> None:
    async with Simulator(SimulatorOptions(overloaded_s=3600, time_factor=36_000)) as simulator:
        client, loop = client_of(simulator), asyncio.get_running_loop()
        started_s = loop.time()
        assert await answers(client, 1) == [529]
        while await answers(client, 1) == [529]:
            pass
        assert loop.time() - started_s >= 0.1  # an hour
        simulator.change(overloaded_s=1e9)
        assert await answers(client, 2) == [529, 529]
        simulator.change(overloaded_s=0)
        assert await answers(client, 1) == [200]


async def test_impatience_is_written_down(client_of: Clients) -> None:
    options = SimulatorOptions(requests_per_minute=60, burst_s=1)
    async with Simulator(options) as simulator:
        client = client_of(simulator)
        assert await answers(client, 2) == [200, 429]
        assert simulator.books.impatient == 0
        assert await answers(client, 1) == [429]
        (early,) = simulator.books.impatient_log
        assert early.rate_class == "haiku-4-5"
        assert 0 <= early.since_429_s < 1
        assert 0 < early.early_s <= 1
        # Another limit is another matter.
        other = BODY | {"model": "claude-haiku-5-5"}
        await client.messages.create(**other)
        assert simulator.books.impatient == 1
        assert (await told(simulator, "/books"))["impatient_log"][0]["rate_class"] == "haiku-4-5"


async def test_patience_is_asked_for_by_faults_too(client_of: Clients) -> None:
    script = {1: "http_429:2", 2: "http_429_no_retry_after"}
    options = SimulatorOptions(fault_script=script, time_factor=40)
    async with Simulator(options) as simulator:
        client = client_of(simulator)
        headers = (await refused(client)).response.headers
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("1", "50")
        assert await answers(client, 1) == [429]
        assert simulator.books.impatient == 1


def test_patience_ends_with_the_time_that_was_asked_for() -> None:
    clock, books = HandClock(10), Books()
    admission = Admission(SimulatorOptions(requests_per_minute=6, burst_s=1), clock, books)
    admission.admit("a", 1)
    with pytest.raises(ApiProblem) as caught:
        admission.admit("a", 1)
    assert admission.headers_of(caught.value, "a") == {"retry-after": "1", "retry-after-ms": "1000"}
    for rate_class, at_s, impatient in (("a", 9.9, 1), ("b", 9.9, 1), ("a", 10.0, 1)):
        clock.at_s = at_s
        admission.arrived(rate_class, clock.now_s())
        assert books.impatient == impatient
    assert books.impatient_log[0].since_429_s == pytest.approx(0.99)
    assert books.impatient_log[0].early_s == pytest.approx(0.01)
    admission.admit("a", 1)


async def test_headers_tell_limits_that_changed(client_of: Clients) -> None:
    options = SimulatorOptions(requests_per_minute=4)
    async with Simulator(options) as simulator:
        client = client_of(simulator)

        async def limit_and_left() -> tuple[str | None, str | None]:
            headers = (await client.messages.with_raw_response.create(**BODY)).headers
            name = "anthropic-ratelimit-requests-"
            return headers.get(name + "limit"), headers.get(name + "remaining")

        assert await limit_and_left() == ("4", "3")
        simulator.change(requests_per_minute=400)
        assert await limit_and_left() == ("400", "299")  # three quarters were left
        simulator.change(requests_per_minute=0)
        assert await limit_and_left() == (None, None)
        simulator.change(requests_per_minute=1)
        assert await answers(client, 2) == [200, 429]


async def test_headers_speak_of_the_clients_minutes(client_of: Clients) -> None:
    options = SimulatorOptions(requests_per_minute=60, time_factor=10)
    async with Simulator(options) as simulator:
        answer = await client_of(simulator).messages.with_raw_response.create(**BODY)
        assert answer.headers["anthropic-ratelimit-requests-limit"] == "600"
        assert answer.headers["anthropic-ratelimit-requests-remaining"] == "590"
        reset = datetime.fromisoformat(answer.headers["anthropic-ratelimit-requests-reset"])
        assert reset - datetime.now(UTC) <= timedelta(seconds=0.1)


async def test_fast_time_speeds_streams_up(client_of: Clients) -> None:
    options = SimulatorOptions(tokens_per_second=10, first_token_s=5, time_factor=100)
    async with Simulator(options) as simulator:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        async with client_of(simulator).messages.stream(**BODY) as stream:
            await stream.until_done()
        assert 0.05 + 49 / 1000 <= loop.time() - started_s < 5


async def test_every_answered_request_has_a_bill(client_of: Clients) -> None:
    options = SimulatorOptions(fault_script={2: "http_500", 3: "drop:20"})
    async with Simulator(options) as simulator:
        client, books = client_of(simulator), simulator.books
        body = BODY | {"system": [{"type": "text", "text": "Be brief. " * 3000,
                                   "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}  # fmt: skip
        raw = await client.messages.with_raw_response.create(**body)
        message = await raw.parse()
        assert await answers(client, 1) == [500]
        with pytest.raises(Exception):  # noqa: B017, PT011 (any break of the transport will do)
            async with client.messages.stream(**BODY) as stream:
                await stream.until_done()
        await client.messages.create(**body)
        await books.wait_for(lambda books: not books.streams_open)
        first, broken, again = books.bills
        assert books.billed_requests == 3
        assert first.request_id == raw.headers["request-id"]
        assert first.model == BODY["model"]
        assert first.input_tokens == message.usage.input_tokens
        assert first.cache_creation_1h_tokens == message.usage.cache_creation_input_tokens > 4096
        assert again.cache_read_tokens == first.cache_creation_1h_tokens
        assert again.prompt == first.prompt != broken.prompt
        assert (first.output_tokens, first.stop_reason) == (50, "max_tokens")
        assert (broken.output_tokens, broken.stop_reason) == (20, None)
        assert first.began_ms <= first.ended_ms <= again.began_ms
        for name in ("input", "cache_read", "cache_creation_1h", "cache_creation_5m"):
            total = sum(getattr(bill, f"{name}_tokens") for bill in books.bills)
            assert total == getattr(books, f"{name}_tokens"), name
        assert sum(bill.output_tokens for bill in books.bills) == books.output_tokens_billed


async def test_the_latest_bills_are_kept(client_of: Clients) -> None:
    async with Simulator(SimulatorOptions(bills_kept=3)) as simulator:
        assert await answers(client_of(simulator), 5) == [200] * 5
        log = await told(simulator, "/books/bills")
        assert (len(log["bills"]), log["next"], log["lost"]) == (3, 5, 2)
        log = await told(simulator, "/books/bills?from=4")
        assert [bill["request_id"] for bill in log["bills"]] == [
            simulator.books.bills[-1].request_id
        ]
        assert log["lost"] == 0
        assert (await told(simulator, "/books/bills?from=5"))["bills"] == []
        assert (await told(simulator, "/books/bills?from=x"))["error"]["message"].startswith("from")
        simulator.books.reset()
        assert (await told(simulator, "/books/bills"))["next"] == 0
        assert await answers(client_of(simulator), 4) == [200] * 4
        assert len(simulator.books.bills) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 3}, "'seed' cannot change while it runs. What can: requests_per_minute,"),
        ({"requests_per_minute": -1}, "too small"),
        ({"requests_per_minute": 1.5}, "no whole number"),
        ({"requests_per_minute": True}, "no whole number"),
        ({"tokens_per_second": "fast"}, "'fast' is no number"),
        ({"burst_s": 0}, "too small"),
        ({"tokens_per_event": 0}, "too small"),
        ({"faults": ["drop"]}, "an object with names"),
        ({"faults": {"drop": 2}}, "from 0 to 1"),
        ({"faults": {"drip": 0.5}}, "drip"),
        ({"behaviours": {"sings": 0.5}}, "sings"),
    ],
)
async def test_what_cannot_change_is_refused_and_named(changes: dict[str, Any], said: str) -> None:
    async with Simulator(SimulatorOptions(requests_per_minute=7)) as simulator:
        with pytest.raises(SimulatorError) as caught:
            simulator.change(output_tokens_per_minute=9, **changes)
        assert said in str(caught.value)
        answer = await told(simulator, "/control", **changes)
        assert said in answer["error"]["message"]
        now = await told(simulator, "/control", retry_after_s=2)
        assert set(now) == set(CHANGEABLE)
        assert (now["requests_per_minute"], now["output_tokens_per_minute"]) == (7, 0)


async def test_a_page_in_a_browser_cannot_change_it() -> None:
    async with Simulator() as simulator, aiohttp.ClientSession() as session:
        data = json.dumps({"overloaded_s": 9})
        answer = await session.post(
            simulator.base_url + "/control", data=data, headers={"content-type": "text/plain"}
        )
        assert answer.status == 400


async def test_faults_and_ways_of_answering_change(client_of: Clients) -> None:
    async with Simulator() as simulator:
        client = client_of(simulator)
        assert await answers(client, 1) == [200]
        simulator.change(faults={"http_503": 1}, behaviours={"thinks_only": 1})
        assert await answers(client, 1) == [503]
        simulator.change(faults={})
        message = await client.messages.create(**BODY)
        assert [block.type for block in message.content] == ["thinking"]


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 500), st.integers(0, 300)), max_size=60))
def test_a_bucket_that_changes_never_holds_more_than_it_may(
    steps: list[tuple[float, int, int]],
) -> None:
    limits, now_s = RateLimits({"input-tokens": 300}, 60, 0.0), 0.0
    for gap_s, limit, taken in steps:
        now_s += gap_s
        limits.change({"input-tokens": limit}, 60, now_s)
        limits.spend_output(taken, now_s)
        headers = limits.headers(now_s)
        assert headers["anthropic-ratelimit-input-tokens-limit"] == str(limit)
        assert 0 <= int(headers["anthropic-ratelimit-input-tokens-remaining"]) <= limit
