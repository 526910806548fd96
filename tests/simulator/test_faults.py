"""Each fault by name, speed and gates, and what clients and books see of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic

from runner.simulator import FaultKind, Simulator, SimulatorError, SimulatorOptions
from runner.simulator.limits import RateLimits
from runner.simulator.problems import ApiProblem

pytestmark = pytest.mark.anyio
Clients = Callable[..., AsyncAnthropic]

BODY: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Tell me of otters, in 600 words."}],
}


def scripted(fault: str, **options: Any) -> Simulator:
    return Simulator(SimulatorOptions(fault_script={1: fault}, **options))


async def read(client: AsyncAnthropic, got: list[str]) -> Any:
    async with client.messages.stream(**BODY) as stream:
        async for piece in stream.text_stream:
            got.append(piece)  # noqa: PERF401 (what came before a break must be kept)
        return await stream.get_final_message()


@pytest.mark.parametrize(
    ("fault", "error", "retry_after"),
    [
        ("http_400_own_limit", anthropic.BadRequestError, None),
        ("http_401", anthropic.AuthenticationError, None),
        ("http_403", anthropic.PermissionDeniedError, None),
        ("http_404", anthropic.NotFoundError, None),
        ("http_413", anthropic.RequestTooLargeError, None),
        ("http_429", anthropic.RateLimitError, "1"),
        ("http_429:7", anthropic.RateLimitError, "7"),
        ("http_429_no_retry_after", anthropic.RateLimitError, None),
        ("http_429_ramp", anthropic.RateLimitError, "1"),
        ("http_429_spend_cap", anthropic.RateLimitError, None),
        ("http_500", anthropic.InternalServerError, None),
        ("http_502_html", anthropic.InternalServerError, None),
        ("http_503", anthropic.InternalServerError, None),
        ("http_504", anthropic.InternalServerError, None),
        ("http_529", anthropic.InternalServerError, None),
    ],
)
async def test_http_errors(
    client_of: Clients, fault: str, error: type[anthropic.APIStatusError], retry_after: str | None
) -> None:
    async with scripted(fault) as simulator:
        client = client_of(simulator)
        with pytest.raises(error) as caught:
            await read(client, [])
        assert caught.value.status_code == int(fault[5:8])
        assert caught.value.response.headers.get("retry-after") == retry_after
        assert caught.value.request_id
        codes = {
            "http_429_ramp": "ramp_limit_exceeded",
            "http_429_spend_cap": "enforced_spend_limit_reached",
        }
        assert caught.value.error_code == codes.get(fault)
        assert simulator.books.faults == {fault.partition(":")[0]: 1}
        assert simulator.books.tokens_generated == 0
        assert (await read(client, [])).stop_reason == "max_tokens"


def test_every_kind_of_fault_is_tried_here() -> None:
    tried = set(TRIED) | {kind for kind in FaultKind if kind.startswith("http_")}
    assert tried == set(FaultKind)


TRIED = {
    "drop": httpx2.HTTPError,
    "drop_byte": httpx2.HTTPError,
    "reset": httpx2.HTTPError,
    "error_overloaded": anthropic.APIStatusError,
    "error_api": anthropic.APIStatusError,
    "invalid_json": ValueError,
    "clean_end": None,
    "stall": httpx2.ReadTimeout,
    "pings": None,
    "slow_start": None,
    "duplicate_events": None,
    "unknown_events": None,
    "split_packets": None,
}


@pytest.mark.parametrize("fault", ["drop:20", "drop_byte:3000", "reset:20", "error_overloaded:20", "error_api:20", "invalid_json:20"])  # fmt: skip
async def test_a_stream_that_breaks(client_of: Clients, fault: str) -> None:
    async with scripted(fault) as simulator:
        true, got = simulator.true_document(BODY), list[str]()
        with pytest.raises(TRIED[fault.partition(":")[0]]) as caught:
            await read(client_of(simulator), got)
        if fault.startswith("error"):
            assert caught.value.status_code == 200
            assert caught.value.type == fault.partition(":")[0].removeprefix("error_").replace("overloaded", "overloaded_error").replace("api", "api_error")  # fmt: skip
        assert true.startswith("".join(got))
        if not fault.startswith("reset"):
            assert got
        await simulator.books.wait_for(lambda books: not books.streams_open)
        assert simulator.books.faults.total() == 1
        assert len(got) <= simulator.books.tokens_generated <= 200


async def test_a_clean_end_lacks_message_stop(client_of: Clients) -> None:
    async with scripted("clean_end:20") as simulator:
        got: list[str] = []
        message = await read(client_of(simulator), got)
        assert message.stop_reason is None
        assert len(got) == simulator.books.tokens_generated == 20


async def test_a_stall_lasts_until_the_client_goes(client_of: Clients) -> None:
    async with scripted("stall:20") as simulator:
        client = client_of(simulator, timeout=httpx2.Timeout(5, read=0.1))
        got: list[str] = []
        with pytest.raises(httpx2.ReadTimeout):
            await read(client, got)
        assert len(got) == 20
        await simulator.books.wait_for(lambda books: books.disconnects == 1)


async def test_endless_pings_keep_a_client_from_timing_out(client_of: Clients) -> None:
    async with scripted("pings:5") as simulator:
        client = client_of(simulator)
        pings = 0
        async with await client.messages.create(**BODY, stream=True) as stream:
            async for event in type(stream).raw_events(stream.response):
                pings += event.event == "ping"
                if pings == 5:
                    break
        await simulator.books.wait_for(lambda books: books.disconnects == 1)
        assert simulator.books.tokens_generated == 5


@pytest.mark.parametrize(
    "fault", ["duplicate_events", "unknown_events", "split_packets", "slow_start:0"]
)
async def test_odd_streams_still_hold_the_text(fault: str) -> None:
    async with scripted(fault) as simulator:
        body = BODY | {"stream": True, "max_tokens": 64_000}
        text, names, chunks = "", list[str](), list[bytes]()
        async with (
            aiohttp.ClientSession(headers={"anthropic-version": "2023-06-01"}) as session,
            session.post(f"{simulator.base_url}/v1/messages", json=body) as answer,
        ):
            async for chunk in answer.content.iter_any():
                chunks.append(chunk)
        for event in b"".join(chunks).decode().removesuffix("\n\n").split("\n\n"):
            name, data = event.split("\n")
            names.append(name.removeprefix("event: "))
            delta = json.loads(data.removeprefix("data: ")).get("delta", {})
            if delta.get("type") == "text_delta":
                text += delta["text"]
        assert text == simulator.true_document(BODY)
        assert names.count("message_stop") == (2 if fault == "duplicate_events" else 1)
        assert ("sparkle" in names) == (fault == "unknown_events")
        assert simulator.books.faults.total() == 1


async def test_chance_is_drawn_from_the_seed(client_of: Clients) -> None:
    struck = []
    for seed in (1, 1, 2):
        options = SimulatorOptions(seed=seed, faults={"http_529": 0.3, "http_500": 0.3})
        async with Simulator(options) as simulator:
            client, statuses = client_of(simulator), []
            for _ in range(20):
                try:
                    await client.messages.create(**BODY)
                    statuses.append(200)
                except anthropic.APIStatusError as error:
                    statuses.append(error.status_code)
            struck.append(statuses)
            assert simulator.books.faults.total() == 20 - statuses.count(200)
    assert struck[0] == struck[1] != struck[2]
    assert set(struck[0]) == {200, 500, 529}


async def test_a_marker_strikes_one_prompt_once_or_always(client_of: Clients) -> None:
    async with Simulator() as simulator:
        client = client_of(simulator)

        async def status(prompt: str) -> int:
            body = BODY | {"messages": [{"role": "user", "content": prompt}]}
            try:
                await client.messages.create(**body)
            except anthropic.APIStatusError as error:
                return error.status_code
            return 200

        once, always = "[[simulate: fault=http_503]] a", "[[simulate: always=http_403]] b"
        assert [await status(once) for _ in range(3)] == [503, 200, 200]
        assert [await status(always) for _ in range(3)] == [403, 403, 403]
        assert await status("[[simulate: fault=nonsense]]") == 400


def test_an_unknown_fault_is_named() -> None:
    with pytest.raises(SimulatorError, match="http_999"):
        Simulator(SimulatorOptions(faults={"http_999": 1}))


async def test_a_gate_holds_a_stream_and_a_client_that_goes_ends_it(client_of: Clients) -> None:
    async with Simulator() as simulator:
        gate = simulator.hold(400, prompt_contains="otters")
        got: list[str] = []
        reader = asyncio.create_task(read(client_of(simulator), got))
        await gate.reached.wait()
        assert simulator.books.streams_open == 1
        held_at = simulator.books.tokens_generated
        assert 50 < held_at < 200
        reader.cancel()
        await simulator.books.wait_for(lambda books: books.disconnects == 1)
        assert simulator.books.tokens_generated == held_at
        assert simulator.books.output_tokens_billed == held_at
        gate.release()
        assert (await read(client_of(simulator), got)).stop_reason == "max_tokens"


async def test_speed_is_kept(client_of: Clients) -> None:
    options = SimulatorOptions(tokens_per_second=2000, first_token_s=0.05, ping_interval_s=0.02)
    async with Simulator(options) as simulator:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await read(client_of(simulator), [])
        assert loop.time() - started_s >= 0.05 + 199 / 2000


async def test_rate_limits_answer_429(client_of: Clients) -> None:
    options = SimulatorOptions(requests_per_minute=2, output_tokens_per_minute=100_000)
    async with Simulator(options) as simulator:
        client = client_of(simulator)
        answer = await client.messages.with_raw_response.create(**BODY)
        assert answer.headers["anthropic-ratelimit-requests-remaining"] == "1"
        assert answer.headers["anthropic-ratelimit-output-tokens-limit"] == "100000"
        await client.messages.create(**BODY)
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(**BODY)
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30
        assert simulator.books.requests_by_status == {"200": 2, "429": 1}


def test_buckets_fill_with_time() -> None:
    by_minute = RateLimits({"requests": 60, "input-tokens": 600}, 60, 0.0)
    for _ in range(6):
        by_minute.admit(100, 0.0)
    with pytest.raises(ApiProblem) as caught:
        by_minute.admit(100, 0.0)
    assert caught.value.retry_after_s == 10
    by_minute.admit(100, 10.0)
    by_second = RateLimits({"requests": 60}, 1, 0.0)
    by_second.admit(1, 0.0)
    with pytest.raises(ApiProblem):
        by_second.admit(1, 0.5)
    by_second.admit(1, 1.0)


def test_output_is_taken_as_it_is_written() -> None:
    limits = RateLimits({"output-tokens": 600}, 60, 0.0)
    limits.admit(10**6, 0.0)
    limits.spend_output(700, 0.0)
    with pytest.raises(ApiProblem) as caught:
        limits.admit(1, 0.0)
    assert caught.value.retry_after_s == pytest.approx(10.1)
    limits.admit(1, 11.0)
