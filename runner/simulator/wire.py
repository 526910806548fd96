"""The bytes of answers: JSON bodies and server-sent events, as the API sends them.

Source: Messages API documentation, streaming.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from runner.simulator.cache import InputUsage
from runner.simulator.generate import Answer
from runner.simulator.problems import ApiProblem, error_object
from runner.simulator.request import Request

_DELTA_HEADS = tuple(
    f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
    '"delta":{"type":"text_delta","text":'
    for index in (0, 1)
)
_DELTA_TAIL = "}}\n\n"
# The API says this much before it knows better.
_PLACEHOLDER_OUTPUT_TOKENS = 1
_EXPLANATION = "This request was declined because a marker in its prompt asks for a refusal."

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
UNKNOWN_EVENT = b'event: sparkle\ndata: {"type":"sparkle","index":0,"glow":[1,{"a":null}]}\n\n'
UNKNOWN_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"sparkle_delta","text":"not text","glow":3}}\n\n'
)


def event(value: Mapping[str, Any]) -> bytes:
    """One server-sent event, named by its type."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"event: {value['type']}\ndata: {data}\n\n".encode()


def block_start(index: int, kind: str = "text") -> bytes:
    """The event that opens a content block."""
    block = {"type": "text", "text": ""}
    if kind == "thinking":
        block = {"type": "thinking", "thinking": "", "signature": ""}
    return event({"type": "content_block_start", "index": index, "content_block": block})


def block_stop(index: int) -> bytes:
    """The event that closes a content block."""
    return event({"type": "content_block_stop", "index": index})


def thinking_block(tokens: int) -> list[bytes]:
    """The events of a block of thinking, which says how long it took and nothing else."""
    thought = {"type": "thinking_delta", "thinking": f"({tokens} tokens of thinking)"}
    signature = {"type": "signature_delta", "signature": "c2ltdWxhdGVk"}
    deltas = [
        event({"type": "content_block_delta", "index": 0, "delta": delta})
        for delta in (thought, signature)
    ]
    return [block_start(0, "thinking"), *deltas, block_stop(0)]


def text_delta(text: str, index: int = 0) -> bytes:
    """The event that carries a piece of text."""
    return (_DELTA_HEADS[index] + encode_basestring(text) + _DELTA_TAIL).encode()


def broken_delta(text: str) -> bytes:
    """A text event whose data ends too early."""
    return (_DELTA_HEADS[0] + encode_basestring(text)[:-1] + "\n\n").encode()


def error_event(problem: ApiProblem, request_id: str) -> bytes:
    """An `error` event in mid-stream."""
    return event(error_object(problem, request_id))


def message_start(request: Request, message_id: str, usage: InputUsage) -> bytes:
    """The first event of a stream; its `output_tokens` are a placeholder."""
    message = _message(request, message_id) | {"usage": _usage(usage, _PLACEHOLDER_OUTPUT_TOKENS)}
    return event({"type": "message_start", "message": message})


def message_delta(answer: Answer, usage: InputUsage) -> bytes:
    """The event that says why the answer stops, and its final usage."""
    counts = _usage(usage, answer.output_tokens)
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return event(
        {
            "type": "message_delta",
            "delta": _stop(answer),
            "usage": {name: counts[name] for name in (*names, "output_tokens")}
            | {"output_tokens_details": {"thinking_tokens": answer.thinking_tokens}},
        }
    )


def whole_message(
    request: Request, message_id: str, answer: Answer, text: str, usage: InputUsage
) -> bytes:
    """The body of an answer in one piece."""
    message = _message(request, message_id) | _stop(answer)
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    if answer.thinking_tokens:
        content.insert(0, {"type": "thinking", "thinking": "…", "signature": "c2ltdWxhdGVk"})
    message["content"] = content
    message["usage"] = _usage(usage, answer.output_tokens)
    return json.dumps(message, ensure_ascii=False).encode()


def _message(request: Request, message_id: str) -> dict[str, Any]:
    return {
        "model": request.model_name,
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }


def _stop(answer: Answer) -> dict[str, Any]:
    details = None
    if answer.refusal is not None:
        details = {"type": "refusal", "category": answer.refusal, "explanation": _EXPLANATION}
    return {
        "stop_reason": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "stop_details": details,
    }


def _usage(usage: InputUsage, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.creation_tokens,
        "cache_read_input_tokens": usage.read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.creation_5m_tokens,
            "ephemeral_1h_input_tokens": usage.creation_1h_tokens,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
        "inference_geo": "not_available",
    }
