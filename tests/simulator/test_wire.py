"""The wire format, read by the real SDK."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic import AsyncAnthropic

from runner.simulator import Simulator, SimulatorOptions

pytestmark = pytest.mark.anyio
Clients = Callable[..., AsyncAnthropic]

BODY: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 300,
    "messages": [{"role": "user", "content": "Tell me of herons, in 600 words."}],
}


def prefilled(text: str, **fields: Any) -> dict[str, Any]:
    messages = [*BODY["messages"], {"role": "assistant", "content": text}]
    return BODY | {"messages": messages} | fields


async def post(simulator: Simulator, body: Any, **headers: str) -> tuple[int, Any, Any]:
    sent = {"anthropic-version": "2023-06-01", "content-type": "application/json", **headers}
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{simulator.base_url}/v1/messages", data=data, headers=sent) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


async def test_a_document_is_streamed_by_continuations(client_of: Clients) -> None:
    async with Simulator() as simulator:
        client, text, output = client_of(simulator), "", 0
        while True:
            text = text.rstrip()
            body = prefilled(text) if text else BODY
            async with client.messages.stream(**body) as stream:
                async for piece in stream.text_stream:
                    text += piece
                message = await stream.get_final_message()
            output += message.usage.output_tokens
            if message.stop_reason == "end_turn":
                break
            assert message.stop_reason == "max_tokens"
            assert message.usage.output_tokens == 300
        assert text == simulator.true_document(BODY)
        books = simulator.books
        assert (books.divergences, books.restarts, books.streams_open) == (0, 0, 0)
        assert books.output_tokens_billed == books.tokens_generated == output


async def test_an_answer_in_one_piece_is_the_streamed_one(client_of: Clients) -> None:
    async with Simulator() as simulator:
        client = client_of(simulator)
        whole = await client.messages.create(**BODY)
        async with client.messages.stream(**BODY) as stream:
            streamed = await stream.get_final_message()
        assert whole.content == [
            type(whole.content[0]).model_validate(streamed.content[0].model_dump())
        ]
        assert whole.usage.output_tokens == streamed.usage.output_tokens
        assert simulator.books.tokens_generated_twice == 300
        assert simulator.books.restarts == 1


async def test_the_bytes_of_a_stream() -> None:
    async with Simulator() as simulator:
        status, body, headers = await post(simulator, BODY | {"stream": True, "max_tokens": 3})
        assert status == 200
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["request-id"].startswith("req_01")
        assert headers["anthropic-organization-id"]
        assert body.endswith("\n\n")
        events = [event.split("\n") for event in body.removesuffix("\n\n").split("\n\n")]
        names = [event[0].removeprefix("event: ") for event in events]
        data = [json.loads(event[1].removeprefix("data: ")) for event in events]
        assert names == [
            "message_start",
            "content_block_start",
            "ping",
            *["content_block_delta"] * 3,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert [event["type"] for event in data] == names
        assert data[0]["message"]["usage"]["output_tokens"] == 1
        assert data[0]["message"]["stop_reason"] is None
        assert data[-2]["usage"]["output_tokens"] == 3


async def test_letters_come_as_utf_8_not_as_escapes() -> None:
    async with Simulator() as simulator:
        _, body, _ = await post(simulator, BODY | {"stream": True, "max_tokens": 64_000})
        assert not body.isascii()
        assert "\\u00" not in body.lower().replace("\\u0085", "").replace("\\u001", "")


async def test_other_endpoints(client_of: Clients) -> None:
    async with Simulator() as simulator:
        client = client_of(simulator)
        counted = await client.messages.count_tokens(model=BODY["model"], messages=BODY["messages"])
        message = await client.messages.create(**BODY)
        assert counted.input_tokens == message.usage.input_tokens
        models = [model.id async for model in client.models.list(limit=4)]
        assert "claude-haiku-4-5" in models
        assert len(models) == len(set(models)) == 15
        model = await client.models.retrieve("claude-haiku-4-5-20251001")
        assert (model.max_tokens, model.max_input_tokens) == (64_000, 200_000)
        with pytest.raises(anthropic.NotFoundError, match="model: claude-nothing"):
            await client.models.retrieve("claude-nothing")


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"colour": 1}, 400, "colour: Extra inputs are not permitted"),
        ({"max_tokens": 64_001}, 400, "max_tokens: 64001 > 64000, which is the maximum"),
        ({"max_tokens": -1}, 400, "max_tokens: Input should be greater"),
        ({"max_tokens": "9"}, 400, "max_tokens: Input should be a valid integer"),
        ({"model": "claude-nothing"}, 404, "model: claude-nothing"),
        ({"messages": []}, 400, "at least one message is required"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "must be non-empty"),
        ({"messages": [{"role": "user", "content": " \n"}]}, 400, "non-whitespace text"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, 400, "not valid JSON"),
        ({"stop_sequences": [" "]}, 400, "must contain non-whitespace"),
        (prefilled("Once "), 400, "final assistant content cannot end with trailing whitespace"),
        (prefilled("Once", model="claude-sonnet-5"), 400, "does not support assistant message prefill"),
        (
            prefilled("Once", max_tokens=4000, thinking={"type": "enabled", "budget_tokens": 1024}),
            400,
            "Expected `thinking` or `redacted_thinking`",
        ),
        ({"thinking": {"type": "adaptive"}}, 400, "not supported for this model"),
        (
            {
                "system": [
                    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
                    for _ in range(5)
                ]
            },
            400,
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
    ],
)  # fmt: skip
async def test_what_the_api_refuses(change: dict[str, Any], status: int, message: str) -> None:
    async with Simulator() as simulator:
        got, text, headers = await post(simulator, BODY | change)
        error = json.loads(text)
        assert got == status
        assert error["type"] == "error"
        assert message in error["error"]["message"]
        assert error["request_id"] == headers["request-id"]
        assert simulator.books.tokens_generated == 0
        assert simulator.books.requests_by_status == {str(status): 1}


async def test_missing_fields_bad_json_and_versions() -> None:
    async with Simulator() as simulator:
        without = {key: value for key, value in BODY.items() if key != "max_tokens"}
        assert "max_tokens: Field required" in (await post(simulator, without))[1]
        assert "not valid JSON" in (await post(simulator, b"{"))[1]
        assert (
            "not a valid API version"
            in (await post(simulator, BODY, **{"anthropic-version": "1999"}))[1]
        )
        warm = BODY | {"temperature": 1.0}
        assert (await post(simulator, warm))[0] == 200
        status, text, _ = await post(simulator, warm, **{"anthropic-version": "2026-10-21"})
        assert status == 400
        assert "temperature: Extra inputs are not permitted" in text


async def test_a_body_beyond_32_mb_is_too_large() -> None:
    async with Simulator() as simulator:
        status, text, _ = await post(simulator, b" " * (32 * 1024 * 1024 + 1))
        assert (status, json.loads(text)["error"]["type"]) == (413, "request_too_large")


async def test_keys(client_of: Clients) -> None:
    async with Simulator(SimulatorOptions(api_key="right")) as simulator:
        await client_of(simulator, api_key="right").messages.create(**BODY)
        assert (await post(simulator, BODY, **{"x-api-key": "right"}))[0] == 200
        assert (await post(simulator, BODY))[0] == 401
        with pytest.raises(anthropic.AuthenticationError):
            await client_of(simulator, api_key="wrong").messages.create(**BODY)


async def test_refusal_and_context_window(client_of: Clients) -> None:
    async with Simulator(SimulatorOptions(context_window_tokens=60)) as simulator:
        client = client_of(simulator)
        message = await client.messages.create(**BODY)
        assert message.stop_reason == "model_context_window_exceeded"
        assert message.usage.input_tokens + message.usage.output_tokens == 60
        refused = await client.messages.create(
            **BODY | {"messages": [{"role": "user", "content": "[[simulate: refusal=bio]]"}]}
        )
        assert (refused.stop_reason, refused.content) == ("refusal", [])
        assert refused.stop_details is not None
        assert refused.stop_details.category == "bio"
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            await client.messages.create(
                **BODY | {"messages": [{"role": "user", "content": "word " * 100}]}
            )


async def test_a_false_prefill_is_a_divergence_and_still_answered(client_of: Clients) -> None:
    async with Simulator() as simulator:
        message = await client_of(simulator).messages.create(**prefilled("Not the document"))
        assert message.usage.output_tokens == 300
        assert simulator.books.divergences == 1
        assert simulator.books.divergence_log[0].given.startswith("Not")


async def test_cache_is_written_at_breakpoints_and_read_at_block_boundaries(
    client_of: Clients,
) -> None:
    async with Simulator() as simulator:
        client = client_of(simulator)
        mark = {"type": "ephemeral"}
        body = BODY | {"max_tokens": 5000}
        prompt = [{"role": "user", "content": "Tell me of tides, in 12,000 words."}]
        first = await client.messages.create(**body | {"messages": prompt})
        text = first.content[0].text.rstrip()
        frozen = {"type": "text", "text": text, "cache_control": mark}
        messages = [*prompt, {"role": "assistant", "content": [frozen]}]
        second = await client.messages.create(**body | {"messages": messages})
        written = second.usage.cache_creation_input_tokens
        assert written == 5000 + first.usage.input_tokens
        assert (second.usage.input_tokens, second.usage.cache_read_input_tokens) == (0, 0)
        more = {"type": "text", "text": second.content[0].text.rstrip(), "cache_control": mark}
        messages = [*prompt, {"role": "assistant", "content": [frozen, more]}]
        third = await client.messages.create(**body | {"messages": messages})
        assert third.usage.cache_read_input_tokens == written
        assert third.usage.cache_creation_input_tokens in {4999, 5000}
        joined = {"type": "text", "text": frozen["text"] + more["text"], "cache_control": mark}
        messages = [*prompt, {"role": "assistant", "content": [joined]}]
        fourth = await client.messages.create(**body | {"messages": messages})
        assert fourth.usage.cache_read_input_tokens == 0
        assert simulator.books.cache_read_tokens == written
        assert simulator.books.divergences == 0


async def test_a_short_prefix_is_not_cached(client_of: Clients) -> None:
    async with Simulator() as simulator:
        message = await client_of(simulator).messages.create(
            **BODY | {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        )
        assert message.usage.cache_creation_input_tokens == 0


async def test_books_over_http_and_their_reset(client_of: Clients) -> None:
    async with Simulator() as simulator:
        await client_of(simulator).messages.create(**BODY)
        async with aiohttp.ClientSession(simulator.base_url) as session:
            async with session.get("/books?detail=1") as answer:
                books = await answer.json()
            assert books["tokens_generated"] == books["prompts"][0]["tokens_generated"] == 300
            assert books["requests_by_kind"]["messages_plain"] == 1
            async with session.post("/books/reset") as answer:
                assert (await answer.json())["tokens_generated"] == 0
        assert simulator.books.prompts == {}
