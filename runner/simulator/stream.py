"""Hands an answer to the transport, event by event, at its speed and with its fault."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from aiohttp import web

from runner.simulator import wire
from runner.simulator.books import Books, PromptBooks
from runner.simulator.cache import InputUsage
from runner.simulator.clock import Clock
from runner.simulator.faults import Fault, FaultKind
from runner.simulator.generate import Answer, Piece
from runner.simulator.limits import RateLimits
from runner.simulator.options import SimulatorOptions
from runner.simulator.problems import ApiProblem
from runner.simulator.request import Request

# At full speed so many events share a packet; between packets the other streams have their turn.
_EVENTS_A_PACKET = 32
_PING_FLOOD_S = 0.02
_UNKNOWN_EVERY = 5


@dataclass
class Gate:
    """Holds streams at a character of their document until it is released.

    Args:
        at_character: streams wait before the event that brings this character.
        prompt_contains: only prompts with these words are held.
        reached: set as soon as one stream waits here.
    """

    at_character: int
    prompt_contains: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Let all streams go on, those that come later too."""
        self._open.set()

    async def pass_through(self, request: Request, piece: Piece) -> None:
        """Wait if this piece of this request's answer is one to hold."""
        if self._open.is_set() or not piece.start <= self.at_character < piece.end:
            return
        if self.prompt_contains in request.prompt_text():
            self.reached.set()
            await self._open.wait()


@dataclass
class Call:
    """One request that is being answered."""

    request: Request
    answer: Answer
    usage: InputUsage
    prompt: PromptBooks
    request_id: str
    message_id: str
    fault: Fault | None
    random: Random
    began_ms: int


class StreamOver(Exception):
    """The fault of this stream has ended it."""


class Stream:
    """Writes one answer as server-sent events."""

    def __init__(
        self,
        call: Call,
        http: web.Request,
        response: web.StreamResponse,
        options: SimulatorOptions,
        books: Books,
        limits: RateLimits,
        gates: Sequence[Gate],
        clock: Clock,
    ) -> None:
        self._call = call
        self._http = http
        self._response = response
        self._options = options
        self._books = books
        self._limits = limits
        self._gates = gates
        self._clock = clock
        self._kind = call.fault.kind if call.fault else None
        self._bytes_left: int | None = None
        self._strike_at: int | None = None
        self.tokens = 0
        self._place_fault()

    async def run(self) -> None:
        """Write the whole answer.

        Raises:
            StreamOver: a fault ended it.
        """
        answer = self._call.answer
        opening = [wire.message_start(self._call.request, self._call.message_id, self._call.usage)]
        index = 0
        if answer.thinking_tokens:
            opening += wire.thinking_block(answer.thinking_tokens)
            self.tokens += answer.thinking_tokens
            index = 1
        if answer.has_text:
            opening.append(wire.block_start(index))
        await self._frame([*opening, wire.PING])
        await self._pause(self._options.first_token_s)
        await self._text()
        if self._strike_at is not None:  # the answer was too short for its fault
            await self._strike(None)
        closing = [wire.message_delta(answer, self._call.usage), wire.MESSAGE_STOP]
        await self._frame([wire.block_stop(index), *closing] if answer.has_text else closing)

    async def _text(self) -> None:
        call, speed = self._call, self._options.tokens_per_second
        # A fault within the text is placed between two events, so each must be its own write.
        packet = 1 if speed or self._strike_at is not None else _EVENTS_A_PACKET
        started_s = self._clock.now_s()
        waiting: list[bytes] = []
        first: Piece | None = None
        tokens = apart = 0
        block = 1 if call.answer.thinking_tokens else 0
        for index, piece in enumerate(call.answer.pieces(self._options.tokens_per_event)):
            if speed:
                await self._pause(started_s + self.tokens / speed - self._clock.now_s())
            for gate in self._gates:
                if waiting and first is not None:
                    await self._hand_over(waiting, first.start, piece.start, tokens, apart)
                    waiting, first, tokens, apart = [], None, 0, 0
                await gate.pass_through(call.request, piece)
            if index == self._strike_at:
                await self._strike(piece)
                data = wire.broken_delta(piece.text)
            else:
                data = wire.text_delta(piece.text, block) if piece.text else b""
            if self._kind is FaultKind.UNKNOWN_EVENTS and index % _UNKNOWN_EVERY == 0:
                data += wire.UNKNOWN_EVENT + wire.UNKNOWN_DELTA
            waiting.append(data)
            first = first or piece
            tokens += piece.tokens
            apart += piece.tokens if piece.apart else 0
            if len(waiting) >= packet:
                await self._hand_over(waiting, first.start, piece.end, tokens, apart)
                waiting, first, tokens, apart = [], None, 0, 0
        if first is not None:
            await self._hand_over(waiting, first.start, piece.end, tokens, apart)

    async def _hand_over(
        self, events: list[bytes], start: int, end: int, tokens: int, apart: int
    ) -> None:
        call = self._call
        # First the books: whoever has read a token can rely on it being counted.
        self.tokens += tokens
        self._books.generated(call.prompt, call.answer.document, start, end, tokens, apart)
        self._limits.spend_output(tokens, self._clock.now_s())
        await self._write(b"".join(events))
        if not self._options.tokens_per_second:
            await asyncio.sleep(0)

    async def _frame(self, events: list[bytes]) -> None:
        """Write the events around the text."""
        if self._kind is FaultKind.DUPLICATE_EVENTS:
            events = [event for event in events for _ in range(2)]
        if self._kind is FaultKind.UNKNOWN_EVENTS:
            events = [wire.UNKNOWN_EVENT if event is wire.PING else event for event in events]
        await self._write(b"".join(events))

    async def _write(self, data: bytes) -> None:
        if self._bytes_left is not None:
            if len(data) >= self._bytes_left:
                await self._response.write(data[: self._bytes_left])
                self._hang_up()
            self._bytes_left -= len(data)
        if self._kind is FaultKind.SPLIT_PACKETS:
            await self._write_split(data)
        elif data:
            await self._response.write(data)

    async def _write_split(self, data: bytes) -> None:
        random, place = self._call.random, 0
        while place < len(data):
            size = random.choice((1, 2, 3, 7, 31, 120))
            await self._response.write(data[place : place + size])
            place += size
            await asyncio.sleep(0)

    async def _pause(self, seconds: float) -> None:
        """Wait, with pings where it takes long."""
        every_s = self._options.ping_interval_s
        while seconds > every_s:
            await self._clock.sleep(every_s)
            await self._write(wire.PING)
            seconds -= every_s
        # Also where it is late already: the other streams must have their turn.
        await self._clock.sleep(seconds)

    def _place_fault(self) -> None:
        call = self._call
        if call.fault is None or self._kind in _UNPLACED:
            return
        events = -(-call.answer.token_count // self._options.tokens_per_event)
        place = call.fault.place(call.random, events)
        if self._kind is FaultKind.DROP_BYTE:
            self._bytes_left = max(1, place)
        else:
            self._strike_at = min(place, events)

    async def _strike(self, piece: Piece | None) -> None:
        """The fault's moment has come; only after `invalid_json` the stream goes on."""
        self._strike_at = None
        match self._kind:
            case FaultKind.ERROR_OVERLOADED | FaultKind.ERROR_API:
                problem = _MID_STREAM[self._kind]
                await self._write(wire.error_event(problem, self._call.request_id))
            case FaultKind.DROP | FaultKind.RESET:
                self._hang_up()
            case FaultKind.STALL:
                await asyncio.Event().wait()  # ends when the client goes: the handler is cancelled
            case FaultKind.PINGS:
                while True:
                    await self._write(wire.PING)
                    await asyncio.sleep(_PING_FLOOD_S)
            case FaultKind.INVALID_JSON:
                if piece is None:
                    await self._write(wire.broken_delta(""))
                return
            case _:  # CLEAN_END
                pass
        raise StreamOver

    def _hang_up(self) -> None:
        hang_up(self._http, reset=self._kind is FaultKind.RESET)
        raise StreamOver


def hang_up(http: web.Request, *, reset: bool) -> None:
    """Close the connection under a request; with `reset` so that nothing on its way is safe."""
    transport = http.transport
    if transport is None:
        return
    if reset:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


# These change the stream as a whole, or strike before it begins.
_UNPLACED = frozenset(
    {
        FaultKind.SLOW_START,
        FaultKind.DUPLICATE_EVENTS,
        FaultKind.UNKNOWN_EVENTS,
        FaultKind.SPLIT_PACKETS,
    }
)
_MID_STREAM = {
    FaultKind.ERROR_OVERLOADED: ApiProblem(529, "overloaded_error", "Overloaded"),
    FaultKind.ERROR_API: ApiProblem(500, "api_error", "Internal server error"),
}
