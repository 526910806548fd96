"""The event parser: the same events for any packets, and never more memory than it may have."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.messages import sse
from runner.messages.sse import EventTooLong, SseEvent, SseParser


def parse(*packets: bytes) -> list[SseEvent]:
    parser = SseParser()
    return [event for packet in packets for event in parser.feed(packet)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"event: x\ndata: a\n\n", [(b"x", b"a")]),
        (b"data: a\nevent: x\n\n", [(b"x", b"a")]),
        (b"event:x\ndata:a\n\n", [(b"x", b"a")]),
        (b"data:  a\n\n", [(b"", b" a")]),  # one blank belongs to the form, the next to the data
        (b"data: a\r\n\r\n", [(b"", b"a")]),
        (b"data: a\r\r", [(b"", b"a")]),
        (b"data: a\r\n\ndata: b\n\r", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data: a: b\n\n", [(b"", b"a: b")]),
        (b": comment\n\n:\ndata: a\n: more\n\n", [(b"", b"a")]),
        (b"id: 1\nretry: 5\nwhatever\ndata: a\n\n", [(b"", b"a")]),
        (b"event: x\n\ndata: a\n\n", [(b"", b"a")]),  # no data: no event, and its name is gone
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"\n\n\n", []),
        (b"data: a\n", []),  # the blank line never came
        (b"data: a", []),
        (b"", []),
        (b"data: \xc3\xa9\xf0\x9f\x98\x80\n\n", [(b"", "é😀".encode())]),
    ],
)
def test_forms(stream: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert parse(stream) == events
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == events


PIECES = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"event: x",
        b": c",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\xef\xbb\xbf",
        "é😀".encode(),
        b"{}",
    ]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.data())
@example(b"\xef\xbb\xbfdata: a\r\n\r\n", None)
def test_any_packets_give_the_same_events(stream: bytes, data: st.DataObject | None) -> None:
    if data is None:
        cuts = list(range(len(stream)))
    else:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    borders = [0, *cuts, len(stream)]
    packets = [stream[a:b] for a, b in pairwise(borders)]
    assert parse(*packets) == parse(stream)


@pytest.mark.parametrize(
    "packet",
    [b"x" * 100, b"data: " + b"x" * 100 + b"\n", b"data:\n"],
    ids=["line", "event", "empty lines"],
)
def test_what_does_not_end_is_given_up(packet: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    with pytest.raises(EventTooLong):
        parse(*[packet] * 1001)


def test_many_events_together_may_be_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    parser = SseParser()
    for _ in range(50):
        assert len(parser.feed(b"data: " + b"x" * 900 + b"\n\n")) == 1
