"""Server-sent events from bytes, in whatever packets they come: pure, no I/O.

Source: HTML Living Standard, "Server-sent events", parsing and interpreting an event stream.
"""

from __future__ import annotations

from typing import NamedTuple

# Nobody streams a line this long on purpose; without a bound a faulty server could fill the memory.
MAX_EVENT_BYTES = 16 * 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event: its name (empty where the stream gave none) and its data, still bytes."""

    name: bytes
    data: bytes


class EventTooLong(ValueError):
    """An event grew beyond `MAX_EVENT_BYTES`: whatever is sent there, it is no event stream."""


class SseParser:
    """Turns packets of bytes into events; the same events for any borders between the packets.

    An event counts once the blank line after it has come. What stands at the end of a stream
    without one is no event.
    """

    __slots__ = (
        "_at_start",
        "_data",
        "_data_bytes",
        "_name",
        "_skip_line_feed",
        "_tail",
        "_tail_bytes",
    )

    def __init__(self) -> None:
        self._tail: list[bytes] = []  # pieces of a line whose end has not come yet
        self._tail_bytes = 0
        self._data: list[bytes] = []  # data lines of the event that is being read
        self._data_bytes = 0
        self._name = b""
        self._at_start = True  # a byte order mark may still come
        self._skip_line_feed = False  # the last packet ended in CR: an LF now belongs to it

    def feed(self, packet: bytes) -> list[SseEvent]:
        """The events that this packet completes, in order.

        Raises:
            EventTooLong: a line or an event is longer than `MAX_EVENT_BYTES`.
        """
        if self._skip_line_feed and packet:
            self._skip_line_feed = False
            packet = packet.removeprefix(b"\n")
        if b"\r" in packet:
            self._skip_line_feed = packet.endswith(b"\r")
            packet = packet.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in packet:
            self._keep(packet)
            return []
        if self._tail:
            packet = b"".join((*self._tail, packet))
            self._tail.clear()
            self._tail_bytes = 0
        lines = packet.split(b"\n")
        self._keep(lines.pop())
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return self._read(lines)

    def _read(self, lines: list[bytes]) -> list[SseEvent]:
        events: list[SseEvent] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append(
                        SseEvent(self._name, data[0] if len(data) == 1 else b"\n".join(data))
                    )
                    data.clear()
                    self._data_bytes = 0
                self._name = b""
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                value = value.removeprefix(b" ")
                data.append(value)
                self._data_bytes += len(value) + 1
                if self._data_bytes > MAX_EVENT_BYTES:
                    raise EventTooLong
            elif field == b"event":
                self._name = value.removeprefix(b" ")
            # All else is a comment (an empty field name), or a field that the Messages API
            # has no use for (id, retry): passed over, as the standard asks.
        return events

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self._tail.append(piece)
        self._tail_bytes += len(piece)
        if self._tail_bytes > MAX_EVENT_BYTES:
            raise EventTooLong
