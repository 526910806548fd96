"""What events mean: text, usage, endings, errors, and the oddities of servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.jobs.call import Usage
from runner.messages.errors import CallError, ErrorKind
from runner.messages.events import Reply
from runner.messages.sse import SseParser
from tests.messages.wire import answer, block, end, event, start, text


def take(reply: Reply, stream: bytes) -> str:
    return "".join(reply.take(*event) for event in SseParser().feed(stream))


def read(*parts: bytes) -> tuple[str, Reply]:
    reply = Reply("req_1")
    return take(reply, b"".join(parts)), reply


def delta(**fields: Any) -> bytes:
    return event("content_block_delta", index=0, delta=fields)


def message_delta(usage: Any = None, **fields: Any) -> bytes:
    return event("message_delta", delta=fields, **({} if usage is None else {"usage": usage}))


STOP = event("message_stop")


def test_a_whole_answer() -> None:
    words, reply = read(answer("Hello", " world"))
    assert words == "Hello world"
    assert reply.finished
    outcome = reply.outcome()
    assert (outcome.stop_reason, outcome.request_id, outcome.error) == ("end_turn", "req_1", None)
    assert outcome.usage == Usage(input_tokens=10, output_tokens=7)


def test_text_that_comes_with_the_block_counts() -> None:
    assert read(start(), block(text="He"), text("llo"), end())[0] == "Hello"


@pytest.mark.parametrize(
    "part",
    [
        block(type="thinking", thinking="hm", text="not this"),
        delta(type="thinking_delta", thinking="hm"),
        delta(type="signature_delta", signature="c2ln"),
        delta(type="input_json_delta", partial_json='{"a'),
        delta(type="citations_delta", citation={"cited_text": "x"}),
        delta(type="of_tomorrow", text="x"),
        block(type="tool_use", id="t", name="n", input={}),
        event("ping"),
        event("of_tomorrow", text="x"),
        event("content_block_stop", index=7),  # without a start, as local servers send it
        event("content_block_delta", index=0, delta=None),
        event("content_block_delta"),
        event("content_block_start", index=0, content_block=None),
        event("content_block_start", index=None, content_block={"type": "text", "text": None}),
        delta(type="text_delta", text=None),
        delta(type="text_delta"),
        message_delta({"output_tokens": None}, stop_reason=None),
        event("message_delta", delta=None, usage=None),
        event("message_start", message=None),
        b'data: {"type": 5}\n\n',
        b"data: {}\n\n",
    ],
)
def test_what_is_no_text_changes_nothing(part: bytes) -> None:
    words, reply = read(start(), part, block(), text("a"), part, text("b"), part, end())
    assert words == "ab"
    assert reply.outcome().stop_reason == "end_turn"
    assert reply.outcome().usage.output_tokens == 7


def test_events_told_twice_do_no_harm() -> None:
    words, reply = read(
        start(), start(), block(text="a"), block(text="a"), text("b"), start(), end(), STOP
    )
    assert words == "ab"
    assert reply.outcome().usage == Usage(input_tokens=10, output_tokens=7)
    take(reply, start())
    assert reply.outcome().usage.output_tokens == 7  # the placeholder does not undo the count


def test_usage_is_cumulative_and_never_summed() -> None:
    _, reply = read(
        start(
            input_tokens=5,
            cache_creation_input_tokens=3,
            cache_read_input_tokens=2,
            output_tokens=1,
        ),
        message_delta({"output_tokens": 20}),
        message_delta({"input_tokens": 5, "output_tokens": 30}, stop_reason="max_tokens"),
        STOP,
    )
    assert reply.outcome().usage == Usage(5, 3, 2, 30)


def test_an_input_count_said_once_is_kept() -> None:
    _, reply = read(
        start(input_tokens=5, output_tokens=1),
        message_delta({"input_tokens": 0, "output_tokens": 9}, stop_reason="end_turn"),
        STOP,
    )
    assert reply.outcome().usage.input_tokens == 5


@pytest.mark.parametrize("count", [-1, 1.5, "9", True, None, 10**8, 2**63, [], {}])
def test_a_count_that_is_none_is_not_taken(count: Any) -> None:
    _, reply = read(
        start(input_tokens=5), message_delta({"output_tokens": count}, stop_reason="end_turn"), STOP
    )
    assert reply.outcome().usage == Usage(input_tokens=5, output_tokens=0, estimated=True)


def test_without_any_usage_the_output_is_estimated() -> None:
    _, reply = read(text("x" * 40), message_delta(stop_reason="end_turn"), STOP)
    assert reply.outcome().usage == Usage(output_tokens=10, estimated=True)


def test_a_broken_answer_is_estimated_from_all_that_was_written() -> None:
    _, reply = read(
        start(input_tokens=5, output_tokens=1),
        delta(type="thinking_delta", thinking="t" * 40),
        text("x" * 40),
    )
    outcome = reply.outcome("it broke")
    assert outcome.usage == Usage(input_tokens=5, output_tokens=20, estimated=True)
    assert (outcome.stop_reason, outcome.error) == (None, "it broke")


def test_a_broken_answer_trusts_a_larger_count_of_the_api() -> None:
    _, reply = read(
        start(), text("x"), message_delta({"output_tokens": 50}, stop_reason="end_turn")
    )
    assert not reply.finished
    assert reply.outcome().usage == Usage(input_tokens=10, output_tokens=50, estimated=True)
    assert reply.outcome().stop_reason is None


def test_stop_details_are_kept() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "no"}
    _, reply = read(start(), end("refusal", stop_details=details, stop_sequence="##"))
    outcome = reply.outcome()
    assert outcome.stop_details == details
    assert (outcome.stop_reason, outcome.stop_sequence) == ("refusal", "##")


def test_an_end_without_a_stop_reason_is_broken() -> None:
    with pytest.raises(CallError, match="without a stop reason") as caught:
        read(start(), block(), text("a"), end(None))
    assert caught.value.kind is ErrorKind.RETRY


@pytest.mark.parametrize(
    "stream",
    [
        event(
            "error", error={"type": "overloaded_error", "message": "Overloaded"}, request_id="req_9"
        ),
        b'event: error\ndata: {"error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
        b'data: {"error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
        b'event: error\ndata: {"type": "overloaded_error", "message": "Overloaded"}\n\n',
    ],
)
def test_an_error_event_is_raised(stream: bytes) -> None:
    reply = Reply("req_1")
    with pytest.raises(CallError, match="overloaded: Overloaded") as caught:
        take(reply, stream)
    assert caught.value.kind is ErrorKind.RETRY
    assert caught.value.type == "overloaded_error"
    assert caught.value.status is None
    assert caught.value.request_id == "req_1"


@pytest.mark.parametrize(
    ("type", "kind"),
    [
        ("api_error", ErrorKind.RETRY),
        ("timeout_error", ErrorKind.RETRY),
        ("never_heard_of", ErrorKind.RETRY),
        (None, ErrorKind.RETRY),
        ("rate_limit_error", ErrorKind.RATE_LIMIT),
        ("invalid_request_error", ErrorKind.JOB),
        ("request_too_large", ErrorKind.JOB),
        ("authentication_error", ErrorKind.CREDENTIALS),
        ("permission_error", ErrorKind.CREDENTIALS),
        ("billing_error", ErrorKind.SPEND_CAP),
    ],
)
def test_error_events_are_judged_by_their_type(type: str | None, kind: ErrorKind) -> None:
    with pytest.raises(CallError) as caught:
        read(event("error", error={"type": type, "message": "m"}))
    assert caught.value.kind is kind


def test_an_error_with_a_spent_cap_is_told_by_its_code() -> None:
    error = {
        "type": "rate_limit_error",
        "message": "m",
        "details": {"error_code": "enforced_spend_limit_reached"},
    }
    with pytest.raises(CallError) as caught:
        read(event("error", error=error))
    assert caught.value.kind is ErrorKind.SPEND_CAP
    assert caught.value.type == "enforced_spend_limit_reached"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"",
        b"null",
        b"[1]",
        b'"x"',
        b"\xff\xfe",
        b'{"type": "ping',
        b"[" * 9000,
        b'{"a": "\xf0\x9f"}',
    ],
)
def test_garbage_is_a_broken_stream(data: bytes) -> None:
    with pytest.raises(CallError, match="broke off") as caught:
        Reply().take(b"", data)
    assert caught.value.kind is ErrorKind.RETRY


def test_half_a_surrogate_pair_is_handed_through() -> None:
    def raw(escaped: bytes) -> bytes:
        return (
            b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"%b"}}\n\n'
            % escaped
        )

    words, _ = read(raw(rb"a\ud83d"), raw(rb"\ude00b"), raw(rb"\ud83d\ude00"))
    assert words == "a\ud83d" + "\ude00b" + "😀"
    assert (words[:4].encode("utf-16", "surrogatepass").decode("utf-16")) == "a😀b"


def test_only_what_brings_the_answer_on_is_a_step() -> None:
    _, reply = read(start(), block())
    assert reply.writing
    before = reply.steps
    take(reply, event("ping") * 5 + text("") + event("of_tomorrow") + b": c\n\n")
    assert reply.steps == before
    take(reply, text("a"))
    assert reply.steps == before + 1
    take(reply, event("content_block_stop", index=0))
    assert not reply.writing
    take(reply, block(1, "thinking", thinking=""))
    assert not reply.writing


def test_nested_nonsense_does_not_raise() -> None:
    for value in (None, 5, "x", [], {}, [{}]):
        for kind in (
            "message_start",
            "message_delta",
            "content_block_start",
            "content_block_delta",
        ):
            names = ("message", "delta", "content_block", "usage", "index")
            data = json.dumps({"type": kind, **dict.fromkeys(names, value)}).encode()
            assert Reply().take(b"", data) == ""


def test_what_was_written_to_the_cache_for_an_hour_is_told_apart() -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 500,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 400},
    }
    _, reply = read(event("message_start", message={"usage": usage}))
    expected = Usage(10, 500, estimated=True, cache_creation_1h_input_tokens=400)
    assert reply.input_usage == expected
    usage["cache_creation"]["ephemeral_1h_input_tokens"] = 900  # more than all of it: nonsense
    _, reply = read(event("message_start", message={"usage": usage}))
    assert reply.outcome().usage.cache_creation_1h_input_tokens == 500


def test_thinking_is_counted_apart() -> None:
    usage = {"output_tokens": 50, "output_tokens_details": {"thinking_tokens": 30}}
    _, reply = read(start(), text("12345"), message_delta(usage, stop_reason="end_turn"))
    outcome = reply.outcome()
    assert (outcome.text_characters, outcome.thinking_tokens) == (5, 30)
    usage["output_tokens_details"]["thinking_tokens"] = 80  # more than all of it: nonsense
    _, reply = read(start(), message_delta(usage, stop_reason="end_turn"))
    assert reply.outcome().thinking_tokens == 50
