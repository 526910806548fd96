"""Streams that are read in turns: nothing is lost, nobody's connection is stopped, and silence,
ends and errors are noticed, over TLS as without."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.messages.client import MessagesClient
from runner.messages.errors import CallError
from runner.messages.rhythm import MOST_BYTES, Rhythm, Turns
from runner.messages.tls import read_small, slim
from tests.messages.turns import every_turn
from tests.messages.wire import STREAM_HEAD, Connection, WireServer, block, end, start, text

pytestmark = pytest.mark.anyio

CERTIFICATE = Path(__file__).with_name("localhost.pem")
BODY = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
CHUNKED = STREAM_HEAD.replace(b"connection: close", b"transfer-encoding: chunked")
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Socket:
    """A transport whose bytes wait in the kernel while it is paused; and aiohttp's protocol."""

    connected = True

    def __init__(self) -> None:
        self.paused = False
        self.ours = True  # until the body's end: then the connection serves another request
        self.kernel: list[bytes | Exception | None] = []  # None is the end
        self.content = aiohttp.StreamReader(
            cast(Any, self), limit=2**16, loop=asyncio.get_running_loop()
        )

    def pause_reading(self) -> None:
        assert self.ours
        self.paused = True

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: ARG002  aiohttp's call
        self.paused = False

    def deliver(self, most: int) -> None:
        while self.kernel and most and not self.paused:
            most -= 1
            item = self.kernel.pop(0)
            if isinstance(item, bytes):
                self.content.feed_data(item)
            elif item is None:
                self.content.feed_eof()
                self.ours = False
            else:
                self.content.set_exception(item)


def turns_of(socket: Socket, silence_s: float = 1e9, rhythm: Rhythm | None = None) -> Turns:
    transport = cast(asyncio.Transport, socket)
    return Turns(rhythm or Rhythm(every_s=1e6), socket.content, transport, silence_s)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def take_turn(turns: Turns, socket: Socket, most: int = 1000) -> None:
    turns.open()
    await settle()
    socket.deliver(most)
    turns.gather(asyncio.get_running_loop().time())
    await settle()


STEPS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=9),  # sent
        st.integers(0, 3),  # a turn, in which so many packets come
        st.just("cancel"),  # whoever reads is cancelled, and another reads on
        st.just("busy"),  # nobody reads for a while
    ),
    max_size=25,
)


@settings(deadline=None)
@given(STEPS, st.sampled_from([None, aiohttp.ClientPayloadError("reset")]))
def test_all_that_was_sent_is_read_in_order(
    steps: list[bytes | int | str], last: Exception | None
) -> None:
    """Whatever comes when, and whoever is cancelled when; and what came before an error is given
    before the error."""

    async def play() -> None:
        socket, got, told = Socket(), [], []
        turns = turns_of(socket)

        async def read() -> None:
            try:
                while data := await turns.read():
                    got.append(data)
                told.append(None)
            except aiohttp.ClientPayloadError as error:
                told.append(error)

        reader: asyncio.Task[None] | None = asyncio.create_task(read())
        for step in steps:
            if isinstance(step, bytes):
                socket.kernel.append(step)
            elif isinstance(step, int):
                await take_turn(turns, socket, step)
            else:
                if reader is not None:
                    reader.cancel()
                    await asyncio.wait([reader])
                    reader = None
                if step == "cancel":
                    reader = asyncio.create_task(read())
            await settle()
        socket.kernel.append(last)
        reader = reader or asyncio.create_task(read())
        for _ in range(3):
            await take_turn(turns, socket)
        await asyncio.wait_for(reader, 60)
        assert b"".join(got) == b"".join(step for step in steps if isinstance(step, bytes))
        assert told == [last]
        turns.leave()

    asyncio.run(play())


async def test_between_turns_the_socket_is_left_alone() -> None:
    socket = Socket()
    turns = turns_of(socket)
    assert socket.paused
    reading = asyncio.create_task(turns.read())
    socket.kernel.append(b"one")
    await take_turn(turns, socket)
    assert await asyncio.wait_for(reading, 60) == b"one"
    assert socket.paused
    turns.leave()
    assert not socket.paused


async def test_who_does_not_take_what_came_is_brought_no_more() -> None:
    """A disk that hangs must stop the streams, not fill the memory."""
    socket = Socket()
    turns = turns_of(socket)
    for _ in range(3):
        socket.kernel.append(b"x")
        await take_turn(turns, socket)
    assert socket.content.total_bytes == 1
    assert await asyncio.wait_for(turns.read(), 5) == b"x"
    await take_turn(turns, socket)
    assert await asyncio.wait_for(turns.read(), 5) == b"xx"


async def test_a_connection_that_serves_others_is_not_stopped() -> None:
    socket = Socket()
    turns = turns_of(socket)
    reading = asyncio.create_task(turns.read())
    socket.kernel += [b"x", None]
    await take_turn(turns, socket)
    assert await asyncio.wait_for(reading, 60) == b"x"
    assert await asyncio.wait_for(turns.read(), 5) == b""
    await take_turn(turns, socket)
    turns.leave()
    assert not socket.paused


async def test_silence_ends_the_wait() -> None:
    socket = Socket()
    turns = turns_of(socket, silence_s=0)
    reading = asyncio.create_task(turns.read())
    await take_turn(turns, socket)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reading, 60)


def brings_at_each_turn(socket: Socket) -> None:
    """What lies in the kernel comes when the socket is listened to."""
    resume = socket.resume_reading

    def arrive(resume_parser: bool = True) -> None:
        resume()
        asyncio.get_running_loop().call_soon(socket.deliver, 1)

    socket.resume_reading = arrive  # type: ignore[method-assign]


async def test_turns_come_by_themselves_and_cease_with_the_last_stream() -> None:
    socket, rhythm = Socket(), Rhythm(every_s=0.01)
    turns = turns_of(socket, rhythm=rhythm)
    brings_at_each_turn(socket)
    socket.kernel += [b"one", b"two"]
    assert await asyncio.wait_for(turns.read(), 5) == b"one"
    assert await asyncio.wait_for(turns.read(), 5) == b"two"
    turns.leave()
    while rhythm._loop is not None:  # noqa: ASYNC110  it tells nobody
        await asyncio.sleep(0.001)


def test_turns_come_in_an_event_loop_after_one_that_ended_between_two_beats() -> None:
    rhythm = Rhythm(every_s=0.01)

    async def one_turn(*, leaves: bool) -> bytes:
        socket = Socket()
        socket.kernel.append(b"text")
        turns = turns_of(socket, rhythm=rhythm)
        brings_at_each_turn(socket)
        text = await asyncio.wait_for(turns.read(), 60)
        if leaves:
            turns.leave()
        return text

    for leaves in (True, False, True):
        assert asyncio.run(one_turn(leaves=leaves)) == b"text"


# Against a server, over TLS.


@pytest.fixture
async def tls_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WireServer]:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    wire = WireServer()
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0, ssl=context)
    wire.base_url = f"https://localhost:{listener.sockets[0].getsockname()[1]}"
    yield wire
    listener.close()
    for task in list(wire.tasks):
        task.cancel()
    await asyncio.gather(*wire.tasks, return_exceptions=True)


def word(number: int) -> str:
    return f"{number} wörd😀 "


async def test_over_tls_packets_gather_and_connections_are_used_again(
    tls_server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_turn(monkeypatch)
    sent = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED, chunk(start() + block() + text(word(0))))
        await sent.wait()
        packets = b"".join(text(word(number)) for number in range(1, 50)) + end()
        for at in range(0, len(packets), 70):  # through the midst of events and characters
            await connection.send(chunk(packets[at : at + 70]))
        await connection.send(LAST_CHUNK)

    tls_server.play(script)
    tls_server.keep_alive = True
    client = MessagesClient(api_key="k" * 20, base_url=tls_server.base_url, one_block=False)
    for _ in range(2):
        sent.clear()
        async with client.stream(BODY) as stream:
            words = await anext(stream)
            assert stream.gathered
            sent.set()
            words += "".join([piece async for piece in stream])
        assert words == "".join(map(word, range(50)))
        assert stream.outcome.stop_reason == "end_turn"
    assert tls_server.connections == 1
    await client.aclose()


async def test_who_reads_nothing_for_a_while_finds_the_stream_alive(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a database does not answer: what was sent meanwhile waits in the kernel."""
    every_turn(monkeypatch)
    went_on = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start() + block() + text("one "))
        await went_on.wait()
        for number in range(50):
            await connection.send(text(word(number)))
            await asyncio.sleep(0.01)
        await connection.send(end())

    server.play(script)
    client = MessagesClient(base_url=server.base_url, read_timeout_s=0.2)
    async with client.stream(BODY) as stream:
        words = await anext(stream)
        went_on.set()
        await asyncio.sleep(0.8)
        words += "".join([piece async for piece in stream])
    assert words == "one " + "".join(map(word, range(50)))
    await client.aclose()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_over_tls_a_server_that_goes_while_it_is_not_listened_to(
    tls_server: WireServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What it had sent is given, and then told that the stream broke."""
    every_turn(monkeypatch)
    resting, gone = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start(), block(), text("one "))
        await resting.wait()
        await connection.send(text("two"))
        if how == "reset":
            await connection.reset()
        gone.set()

    tls_server.play(script)
    client = MessagesClient(api_key="k" * 20, base_url=tls_server.base_url)
    async with client.stream(BODY) as stream:
        words = await anext(stream)
        resting.set()
        await gone.wait()
        error = None
        try:
            async for piece in stream:
                words += piece
        except CallError as broken:
            error = broken
    assert error is not None
    assert error.type == "broken_stream"
    assert words == "one two" or (how, words) == ("reset", "one ")
    await client.aclose()


async def test_over_tls_connections_share_a_buffer(tls_server: WireServer) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start() + block() + text("Hello"))
        await asyncio.Event().wait()

    tls_server.play(script)
    client = MessagesClient(api_key="k" * 20, base_url=tls_server.base_url)
    buffers = []
    async with client.stream(BODY) as one, client.stream(BODY) as two:
        for stream in (one, two):
            assert await anext(stream) == "Hello"
            transport: Any = stream._packets._answer.connection.transport  # type: ignore[attr-defined]
            buffers.append(transport._ssl_protocol._ssl_buffer)
    assert buffers[0] is buffers[1]
    await client.aclose()


def test_connections_begin_with_a_small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.sslproto.SSLProtocol, "max_size", 256 * 1024)
    read_small()
    made = asyncio.sslproto.SSLProtocol(
        cast(Any, None),
        cast(Any, asyncio.Protocol()),
        ssl.create_default_context(),
        cast(Any, None),
    )
    assert len(made._ssl_buffer) == 32 * 1024
    transport: Any = made._get_app_transport()
    transport._closed = True  # it was never opened


def test_a_transport_without_tls_has_nothing_to_let_go_of() -> None:
    slim(None)
    slim(cast(asyncio.Transport, object()))


def test_what_tls_lets_go_of_sends_nothing() -> None:
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(cafile=CERTIFICATE),
    )
    server.load_cert_chain(CERTIFICATE)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname="localhost")
    theirs = server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    theirs.write(b"head")
    assert ours.read() == b"head"
    assert there.pending == 0
    connection: Any = SimpleNamespace(_ssl_protocol=SimpleNamespace(_sslobj=ours))
    slim(connection)
    assert there.pending == 0
    theirs.write(b"body")
    assert ours.read() == b"body"
    with suppress(ssl.SSLWantReadError):
        theirs.unwrap()
    with suppress(ssl.SSLWantReadError):
        ours.unwrap()
    slim(connection)  # closed: nothing to be said of it


async def test_an_open_stream_holds_no_headers(tls_server: WireServer) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start() + block() + text("Hello"))
        await asyncio.Event().wait()

    tls_server.play(script)
    client = MessagesClient(api_key="k" * 20, base_url=tls_server.base_url)
    async with client.stream(BODY) as stream:
        assert await anext(stream) == "Hello"
        answer: Any = stream._packets._answer  # type: ignore[attr-defined]
        assert not answer.headers
        assert not answer.raw_headers
        assert not answer.request_info.headers
        tls = answer.connection.transport._ssl_protocol
        assert "peercert" not in tls._extra
    await client.aclose()


async def test_leaving_a_stream_early_waits_for_no_farewell(tls_server: WireServer) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start() + block() + text("Hello"))
        await asyncio.Event().wait()

    tls_server.play(script)
    client = MessagesClient(api_key="k" * 20, base_url=tls_server.base_url)
    async with client.stream(BODY) as stream:
        assert await anext(stream) == "Hello"
        below: Any = stream._packets._answer.connection.transport._ssl_protocol._transport  # type: ignore[attr-defined]
        assert not below.is_closing()
    assert below.is_closing()
    await client.aclose()


# Who takes turns.


async def gathered(
    server: WireServer, send: Callable[[Connection], Any], *, gather_s: float, **options: Any
) -> set[bool]:
    """Whether pieces of an answer were left to gather."""

    async def script(connection: Connection) -> None:
        await connection.send(STREAM_HEAD, start(), block())
        for _ in range(20):
            await send(connection)
            await asyncio.sleep(0.002)
        await connection.send(end())

    server.play(script)
    client = MessagesClient(base_url=server.base_url, read_timeout_s=1)
    client._rhythm = Rhythm(**{"every_s": 0.01, "crowd": 1, "plain_s": 0} | options)
    async with client.stream(BODY, gather_s=gather_s) as stream:
        found = {stream.gathered async for _ in stream}
    await client.aclose()
    assert client._rhythm.streams == 0
    return found


async def test_who_takes_turns(server: WireServer) -> None:
    async def trickle(connection: Connection) -> None:
        await connection.send(text("x"))

    async def pour(connection: Connection) -> None:
        await connection.send(text("x" * MOST_BYTES))

    reads = partial(gathered, server)
    assert True in await reads(trickle, gather_s=0.01)
    assert await reads(trickle, gather_s=0.009) == {False}  # its text must not wait so long
    assert await reads(trickle, gather_s=1, every_s=0.3) == {False}  # a turn might seem silence
    assert await reads(trickle, gather_s=1, crowd=2) == {False}
    assert await reads(trickle, gather_s=1, plain_s=60) == {False}
    assert False in await reads(pour, gather_s=1)


def test_streams_that_last_take_turns_sooner() -> None:
    rhythm = Rhythm(every_s=0.2, plain_s=1.0)
    assert rhythm.plain_s == 1.0  # of the first nobody knows
    rhythm.ended(30.0)
    assert rhythm.plain_s == 0.2
    for _ in range(40):
        rhythm.ended(0.5)
    assert rhythm.plain_s == 1.0  # they would only end later
    for _ in range(40):
        rhythm.ended(30.0)
    assert rhythm.plain_s == 0.2
    assert Rhythm(plain_s=0.0).plain_s == 0.0
