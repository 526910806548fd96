"""The client against a server that sends what each test names, faults included."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from runner.errors import UsageError
from runner.jobs.call import CallOutcome, Usage
from runner.messages.client import CallStream, MessagesClient
from runner.messages.errors import CallError, CredentialsError, ErrorKind
from runner.messages.headers import RateLimit
from tests.messages.turns import every_turn
from tests.messages.wire import (
    STREAM_HEAD,
    Connection,
    WireServer,
    answer,
    block,
    end,
    event,
    start,
    text,
)

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 5,
    "messages": [{"role": "user", "content": "Hello"}],
}
CHUNKED = STREAM_HEAD.replace(b"connection: close", b"transfer-encoding: chunked")
READ_TIMEOUT_S = 0.2


@pytest.fixture(params=["as it comes", "in turns"], autouse=True)
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent means the same, however it is read."""
    if request.param == "in turns":
        every_turn(monkeypatch)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def call(
    server: WireServer,
    body: dict[str, Any] = BODY,
    *,
    on_text: Callable[[], None] = lambda: None,
    **options: Any,
) -> tuple[str, CallStream, CallError | None]:
    """Make one call; the text that came, the stream, and what broke it."""
    words = ""
    client = MessagesClient(
        base_url=server.base_url, **{"read_timeout_s": READ_TIMEOUT_S, **options}
    )
    try:
        async with client.stream(body) as stream:
            try:
                async for piece in stream:
                    assert piece
                    words += piece
                    on_text()
            except CallError as error:
                return words, stream, error
            return words, stream, None
    finally:
        await client.aclose()


async def refused(server: WireServer, **options: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await call(server, **options)
    return caught.value


async def test_a_whole_answer(server: WireServer) -> None:
    server.stream(answer("Hello", " wörld"))
    words, stream, error = await call(server)
    assert (words, error) == ("Hello wörld", None)
    assert stream.request_id == "req_test"
    assert stream.rate_limits.requests == RateLimit(remaining=41)
    assert stream.outcome == CallOutcome(
        "end_turn",
        usage=Usage(input_tokens=10, output_tokens=7),
        request_id="req_test",
        text_characters=11,
        output_counted=True,
    )


async def test_the_body_is_sent_as_it_is(server: WireServer) -> None:
    server.stream(answer("x"))
    body = {
        **BODY,
        "stop_sequences": ["##"],
        "service_tier": "auto",
        "field_of_tomorrow": {"a": [1, None, "é"]},
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [{"type": "text", "text": "a\u2028b", "odd": 1}]},
        ],
    }
    await call(server, body)
    assert server.requests[0].body == {**body, "stream": True}
    assert "stream" not in body


async def test_headers_for_a_server_that_is_not_anthropics(server: WireServer) -> None:
    server.stream(answer("x"))
    await call(server, api_key="sk-ant-local-key")
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer sk-ant-local-key"
    assert headers["x-api-key"] == "sk-ant-local-key"
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["accept-encoding"] == "identity"


async def test_sampling_fields_go_under_the_version_that_has_them(server: WireServer) -> None:
    server.stream(answer("x"))
    await call(server, {**BODY, "temperature": 0})
    assert server.requests[0].headers["anthropic-version"] == "2023-06-01"
    assert server.requests[0].body["temperature"] == 0


async def test_the_key_of_the_environment(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-the-environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url + "/")
    server.stream(answer("x"))
    client = MessagesClient()
    assert client.base_url == server.base_url
    async with client.stream(BODY) as stream:
        assert [piece async for piece in stream] == ["x"]
    await client.aclose()
    assert server.requests[0].headers["x-api-key"] == "key-of-the-environment"


async def test_without_a_key_nothing_is_sent() -> None:
    with pytest.raises(CredentialsError, match="ANTHROPIC_API_KEY") as caught:
        MessagesClient()
    assert caught.value.exit_status == 4
    with pytest.raises(CredentialsError):
        MessagesClient(api_key="")


@pytest.mark.parametrize("key", ["sk-ant-a\nb", "sk ant", "clé-secrète", "\x1b[2J"])
async def test_what_cannot_be_a_key_is_told_and_not_shown(key: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        MessagesClient(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://[", "/v1"])
async def test_what_cannot_be_an_address(url: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        MessagesClient(api_key="k" * 20, base_url=url)


async def test_traits_know_the_endpoint() -> None:
    client = MessagesClient(base_url="http://127.0.0.1:1")
    assert client.traits("claude-haiku-4-5").one_block
    client = MessagesClient(base_url="http://127.0.0.1:1", one_block=False)
    assert not client.traits("claude-haiku-4-5").one_block
    client = MessagesClient(api_key="k" * 20)
    assert not client.traits("claude-haiku-4-5").one_block


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_packets_of_any_size(server: WireServer, size: int) -> None:
    stream = answer("Héllo ", "😀 wörld\r\n", "«»").replace(b"\n", b"\r\n")
    server.stream(*(stream[i : i + size] for i in range(0, len(stream), size)))
    words, _, error = await call(server)
    assert (words, error) == ("Héllo 😀 wörld\r\n«»", None)


async def test_an_error_in_mid_stream_gives_the_text_before_it(server: WireServer) -> None:
    failure = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    server.stream(start() + block() + text("Hello") + failure + text("not this"))
    words, stream, error = await call(server)
    assert words == "Hello"
    assert error is not None
    assert (error.kind, error.type) == (ErrorKind.RETRY, "overloaded_error")
    assert stream.outcome.error == str(error)
    assert stream.outcome.stop_reason is None
    assert stream.outcome.usage == Usage(input_tokens=10, output_tokens=2, estimated=True)


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        event("content_block_stop", index=0),
        end()[: -len(event("message_stop"))],  # all but the last event
        end()[:-1],  # all but the last byte
        b"data: {",
        event("ping"),
    ],
)
async def test_an_end_without_message_stop_is_a_broken_stream(
    server: WireServer, tail: bytes
) -> None:
    server.stream(start(), block(), text("Hello"), tail)
    words, stream, error = await call(server)
    assert words == "Hello"
    assert error is not None
    assert (error.kind, error.type) == (ErrorKind.RETRY, "broken_stream")
    assert stream.outcome.stop_reason is None
    assert stream.outcome.usage.estimated


async def test_an_end_without_a_stop_reason_is_a_broken_stream(server: WireServer) -> None:
    server.stream(start(), block(), text("Hello"), end(None))
    words, _, error = await call(server)
    assert words == "Hello"
    assert error is not None
    assert error.kind is ErrorKind.RETRY


@pytest.mark.parametrize("head", [STREAM_HEAD, CHUNKED], ids=["to the end", "chunked"])
async def test_a_reset_in_mid_stream(server: WireServer, head: bytes) -> None:
    first = start() + block() + text("Hello")

    async def script(connection: Connection) -> None:
        await connection.send(head, chunk(first) if head is CHUNKED else first)
        await received.wait()
        await connection.reset()

    received = asyncio.Event()
    server.play(script)
    words, _, error = await call(server, on_text=received.set)
    assert words == "Hello"
    assert error is not None
    assert (error.kind, error.type) == (ErrorKind.RETRY, "broken_stream")


@pytest.mark.parametrize("tail", [b"", b"zz\r\n", b"5\r\nab", b"ffffffffffffffffff\r\n"])
async def test_a_body_that_is_ill_formed(server: WireServer, tail: bytes) -> None:
    first = start() + block() + text("Hello")

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED, chunk(first))
        await received.wait()
        await connection.send(tail)

    received = asyncio.Event()
    server.play(script)
    words, _, error = await call(server, on_text=received.set)
    assert words == "Hello"
    assert error is not None
    assert error.kind is ErrorKind.RETRY


async def test_garbage_in_mid_stream(server: WireServer) -> None:
    server.stream(start() + block() + text("Hello") + b"data: {oops\n\n")
    words, _, error = await call(server)
    assert words == "Hello"
    assert error is not None
    assert error.kind is ErrorKind.RETRY


async def test_a_line_without_end(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.messages.sse.MAX_EVENT_BYTES", 10_000)

    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start())
        while not connection.writer.transport.is_closing():
            await connection.send(b"x" * 1000)

    server.play(script)
    _, _, error = await call(server, read_timeout_s=20)
    assert error is not None
    assert error.kind is ErrorKind.RETRY
    assert "without end" in str(error)


async def test_silence_in_mid_stream(server: WireServer) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start(), block(), text("Hello"))
        await asyncio.Event().wait()

    server.play(script)
    words, stream, error = await call(server)
    assert words == "Hello"
    assert error is not None
    assert (error.kind, error.type) == (ErrorKind.RETRY, "timeout")
    assert stream.outcome.usage.estimated


async def test_silence_before_the_answer(server: WireServer) -> None:
    async def script(connection: Connection) -> None:
        await asyncio.Event().wait()

    server.play(script)
    error = await refused(server)
    assert (error.kind, error.type) == (ErrorKind.RETRY, "timeout")


@pytest.mark.parametrize("filler", [event("ping"), b": ping\n\n", text(""), event("of_tomorrow")])
@pytest.mark.parametrize("writing", [True, False])
async def test_pings_alone_do_not_keep_a_stream_alive(
    server: WireServer, filler: bytes, writing: bool
) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start(), block() if writing else b"")
        while not connection.writer.transport.is_closing():
            await connection.send(filler)
            await asyncio.sleep(0.01)

    server.play(script)
    _, _, error = await call(server, read_timeout_s=0.1)
    assert error is not None
    assert (error.kind, error.type) == (ErrorKind.RETRY, "timeout")
    assert ("0.1 s" if writing else "0.5 s") in str(error)


async def test_a_thinking_model_may_be_silent_longer(server: WireServer) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start(), block(0, "thinking", thinking=""))
        for _ in range(20):  # twice the read time-out, and less than its patience
            await connection.send(event("ping"))
            await asyncio.sleep(0.01)
        await connection.send(answer("Hello"))

    server.play(script)
    words, _, error = await call(server, read_timeout_s=0.1)
    assert (words, error) == ("Hello", None)


async def test_nobody_listens(server: WireServer) -> None:
    client = MessagesClient(base_url="http://127.0.0.1:1")
    with pytest.raises(CallError, match="cannot be reached") as caught:
        async with client.stream(BODY):
            pass
    await client.aclose()
    assert (caught.value.kind, caught.value.type) == (ErrorKind.RETRY, "unreachable")


@pytest.mark.parametrize("packet", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: y"])
async def test_no_answer_or_none_of_http(server: WireServer, packet: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(packet)

    server.play(script)
    error = await refused(server)
    assert (error.kind, error.type) == (ErrorKind.RETRY, "unreachable")


def api_error(type: str, message: str = "words", code: str | None = None) -> dict[str, Any]:
    details = {} if code is None else {"details": {"error_code": code}}
    return {"type": "error", "error": {"type": type, "message": message, **details}}


BAD = "invalid_request_error"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            400,
            api_error(BAD, "x does not support assistant message prefill."),
            ErrorKind.PREFILL_REFUSED,
        ),
        (
            429,
            api_error("rate_limit_error", code="enforced_spend_limit_reached"),
            ErrorKind.SPEND_CAP,
        ),
        (402, api_error("billing_error"), ErrorKind.SPEND_CAP),
        (
            400,
            api_error(BAD, "You have reached your specified API usage limits."),
            ErrorKind.SPEND_CAP,
        ),
        (400, api_error(BAD, "Your credit balance is too low."), ErrorKind.SPEND_CAP),
        (400, api_error(BAD, code="organization_on_hold"), ErrorKind.CREDENTIALS),
        (401, api_error("authentication_error"), ErrorKind.CREDENTIALS),
        (403, api_error("permission_error"), ErrorKind.CREDENTIALS),
        (429, api_error("rate_limit_error", code="ramp_limit_exceeded"), ErrorKind.RATE_LIMIT),
        (429, api_error("rate_limit_error"), ErrorKind.RATE_LIMIT),
        (404, api_error("not_found_error", "model: x"), ErrorKind.JOB),
        (404, b"<html>nothing here", ErrorKind.RETRY),
        (413, b"", ErrorKind.JOB),
        (409, api_error("conflict_error"), ErrorKind.RETRY),
        (529, api_error("overloaded_error"), ErrorKind.RETRY),
        (500, api_error("api_error"), ErrorKind.RETRY),
        (502, b"<html>\x1b[2JBad gateway", ErrorKind.RETRY),
        (503, b"\xff\xfe", ErrorKind.RETRY),
        (400, api_error(BAD), ErrorKind.JOB),
        (400, b"{", ErrorKind.JOB),
        (418, b"", ErrorKind.JOB),
    ],
)
async def test_errors_before_the_answer(
    server: WireServer, status: int, body: Any, kind: ErrorKind
) -> None:
    server.status(status, body, [("retry-after", "3")])
    error = await refused(server)
    assert (error.kind, error.status, error.request_id) == (kind, status, "req_err")
    assert error.retry_after_s == 3.0
    assert str(error).isprintable()
    assert "Hello" not in str(error)
    assert len(server.requests) == 1  # the SDK's own retries are off


async def test_an_error_whose_body_breaks_off(server: WireServer) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 500 Oops\r\ncontent-length: 99\r\n\r\n{")

    server.play(script)
    assert (await refused(server)).kind is ErrorKind.RETRY


async def test_a_page_in_place_of_a_stream(server: WireServer) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>Log in")

    server.play(script)
    error = await refused(server)
    assert error.kind is ErrorKind.RETRY
    assert "text/html" in str(error)


async def test_a_prompt_that_is_no_unicode(server: WireServer) -> None:
    server.stream(answer("x"))
    body = {**BODY, "messages": [{"role": "user", "content": "\ud83d"}]}
    with pytest.raises(CallError) as caught:
        await call(server, body)
    assert (caught.value.kind, caught.value.type) == (ErrorKind.JOB, "unsendable")
    assert server.requests == []


async def test_the_key_is_in_no_message_and_no_log(
    server: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    key = "a-key-like-no-other"
    server.status(401, api_error("authentication_error", f"invalid key {key}"))
    error = await refused(server, api_key=key)
    server.stream(start(), event("error", error={"type": "api_error", "message": f"{key} again"}))
    _, stream, broken = await call(server, api_key=key)
    for shown in (str(error), str(broken), str(stream.outcome.error), caplog.text):
        assert key not in shown


async def test_leaving_early_hangs_up_and_leaves_an_estimate(server: WireServer) -> None:
    hung_up = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start(), block(), text("Hello"))
        await connection.closed()
        hung_up.set()

    server.play(script)
    client = MessagesClient(base_url=server.base_url)
    async with client.stream(BODY) as stream:
        async for piece in stream:
            assert piece == "Hello"
            break
        assert stream.outcome.usage == Usage(input_tokens=10, output_tokens=2, estimated=True)
    await asyncio.wait_for(hung_up.wait(), 5)
    await client.aclose()


async def test_a_cancelled_call_hangs_up(server: WireServer) -> None:
    hung_up, reading = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start(), block(), text("Hello"))
        await connection.closed()
        hung_up.set()

    async def read(client: MessagesClient) -> None:
        async with client.stream(BODY) as stream:
            async for _ in stream:
                reading.set()

    server.play(script)
    client = MessagesClient(base_url=server.base_url)
    task = asyncio.create_task(read(client))
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(hung_up.wait(), 5)
    await client.aclose()


async def test_what_follows_the_end_is_not_read(server: WireServer) -> None:
    server.stream(answer("Hello") + text(" again"), text("and again") + b"data: {\n\n")
    words, stream, error = await call(server)
    assert (words, error) == ("Hello", None)
    assert stream.outcome.stop_reason == "end_turn"


async def test_a_server_that_holds_the_line_after_the_end_does_not_hold_us(
    server: WireServer,
) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, answer("Hello"))
        await asyncio.Event().wait()

    server.play(script)
    words, _, error = await asyncio.wait_for(call(server, read_timeout_s=60), 5)
    assert (words, error) == ("Hello", None)


@pytest.mark.parametrize(("one_block", "connections"), [(False, 1), (None, 3)])
async def test_connections_are_used_again_where_that_is_safe(
    server: WireServer, one_block: bool | None, connections: int
) -> None:
    """A local server that hangs up after announcing keep-alive must not break the next call."""

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED, chunk(answer("Hello")) + b"0\r\n\r\n")

    server.keep_alive = True
    server.play(script)
    client = MessagesClient(base_url=server.base_url, one_block=one_block)
    for _ in range(3):
        async with client.stream(BODY) as stream:
            assert [piece async for piece in stream] == ["Hello"]
    await client.aclose()
    assert server.connections == connections


async def test_a_connection_that_does_not_come_about_is_no_silence(monkeypatch) -> None:
    """No request was sent: the API is not there for anybody, which is not the job's doing."""
    monkeypatch.setattr("runner.messages.client.CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as others:
        for _ in range(4):  # nobody accepts them, so there is no place for another
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        client = MessagesClient(base_url=f"http://127.0.0.1:{full.getsockname()[1]}")
        with pytest.raises(CallError) as caught:
            async with client.stream(BODY):
                pass
        await client.aclose()
    assert (caught.value.kind, caught.value.type) == (ErrorKind.RETRY, "unreachable")
