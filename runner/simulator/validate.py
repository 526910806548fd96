"""Refuses what the real API refuses, in its words.

Source: Messages API documentation, errors and versioning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from runner.simulator.models import Model, find_model
from runner.simulator.problems import ApiProblem, invalid
from runner.simulator.request import Block, Request
from runner.simulator.tokens import count_tokens
from runner.simulator.turns import anchor_of, asks_to_go_on

VERSION_WITHOUT_SAMPLING = "2026-10-21"
_VERSIONS = frozenset({"2023-01-01", "2023-06-01", VERSION_WITHOUT_SAMPLING})
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_COUNTED_FIELDS = frozenset(
    {
        "cache_control", "messages", "model", "output_config", "speed", "system", "thinking",
        "tool_choice", "tools", "user_profile_id", "workspace_id",
    }
)  # fmt: skip
_FIELDS = _COUNTED_FIELDS | {
    "container", "diagnostics", "inference_geo", "max_tokens", "metadata", "service_tier",
    "stop_sequences", "stream",
}  # fmt: skip
_MAX_BREAKPOINTS = 4
_CACHE_TTLS_S = {"5m": 300, "1h": 3600}
_BLOCK_TYPES = frozenset({"text", "image", "document", "thinking", "redacted_thinking"})
_IMAGE_TOKENS = 1500
PREFILL_REFUSED = (
    "This model does not support assistant message prefill. "
    "The conversation must end with a user message."
)


def check_version(version: str | None) -> str:
    """The request's `anthropic-version`; raises where it is missing or unknown."""
    if version is None:
        raise invalid("anthropic-version: header is required")
    if version not in _VERSIONS:
        raise invalid(f'anthropic-version: "{version}" is not a valid API version')
    return version


def parse_body(raw: bytes) -> dict[str, Any]:
    """The body as JSON; raises the API's 400 where it is none."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise invalid(f"The request body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise invalid("The request body is not valid JSON: expected an object")
    return body


def read_request(
    body: Mapping[str, Any],
    version: str,
    *,
    counting: bool = False,
    prefill_restarts: bool = False,
) -> Request:
    """Check a body of `/v1/messages` (or of `count_tokens`) and make a request of it.

    Args:
        prefill_restarts: models of local servers begin afresh after a prefill.

    Raises:
        ApiProblem: with the status and message the real API answers.
    """
    allowed = _COUNTED_FIELDS if counting else _FIELDS
    if version != VERSION_WITHOUT_SAMPLING and not counting:
        allowed = allowed | _SAMPLING
    for name in body:
        if name not in allowed:
            raise invalid(f"{name}: Extra inputs are not permitted")
    required = ("model", "messages") if counting else ("model", "messages", "max_tokens")
    for name in required:
        if name not in body:
            raise invalid(f"{name}: Field required")
    model = _model(body["model"], prefill_restarts=prefill_restarts)
    max_tokens = 1 if counting else _max_tokens(body["max_tokens"], model)
    _check_thinking(body.get("thinking"), model, max_tokens, counting=counting)
    stream = body.get("stream", False)
    if not isinstance(stream, bool):
        raise invalid("stream: Input should be a valid boolean")
    prompt, given, asking = _blocks(body)
    _check_breakpoints(body.get("cache_control"), [*prompt, *given, *asking])
    if body.get("cache_control") is not None:
        ttl_s = _cache_ttl_s(body["cache_control"], "cache_control")
        _mark_last(asking or given or prompt, ttl_s)
    anchor = ""
    if given and not asking:
        _check_prefill(body, model, given)
    elif asking:
        anchor = anchor_of(_text(given), _text(asking))
        if not asks_to_go_on(_text(given), _text(asking), anchor):
            prompt, given, asking, anchor = [*prompt, *given, *asking], [], [], ""
    tools = body.get("tools")
    return Request(
        model=model,
        model_name=body["model"],
        max_tokens=max_tokens,
        stream=stream,
        stop_sequences=_stop_sequences(body.get("stop_sequences")),
        prompt=tuple(prompt),
        prefill_blocks=tuple(given),
        asking_blocks=tuple(asking),
        anchor=anchor,
        extra_tokens=count_tokens(json.dumps(tools)) if tools else 0,
    )


def _text(blocks: Sequence[Block]) -> str:
    return "".join(block.text or "" for block in blocks)


def _model(name: object, *, prefill_restarts: bool) -> Model:
    if not isinstance(name, str):
        raise invalid("model: Input should be a valid string")
    if not name:
        raise invalid("model: String should have at least 1 character")
    model = find_model(name, prefill_restarts=prefill_restarts)
    if model is None:
        raise ApiProblem(404, "not_found_error", f"model: {name}")
    return model


def _max_tokens(value: object, model: Model) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if value < 0:
        raise invalid("max_tokens: Input should be greater than or equal to 0")
    if value > model.max_output_tokens:
        raise invalid(
            f"max_tokens: {value} > {model.max_output_tokens}, which is the maximum allowed "
            f"number of output tokens for {model.id}"
        )
    return value


def _check_thinking(value: object, model: Model, max_tokens: int, *, counting: bool) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise invalid("thinking: Input should be an object with a type")
    kind = value["type"]
    if kind not in model.thinking:
        raise invalid(f'"thinking.type.{kind}" is not supported for this model.')
    if kind != "enabled":
        return
    budget = value.get("budget_tokens")
    if not isinstance(budget, int):
        raise invalid("thinking.enabled.budget_tokens: Field required")
    if budget < 1024:
        raise invalid(
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        )
    if budget >= max_tokens and not counting:
        raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _stop_sequences(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid("stop_sequences: Input should be a valid list of strings")
    if not all(item.strip() for item in value):
        raise invalid("stop_sequences: each stop sequence must contain non-whitespace")
    return tuple(value)


def _blocks(body: Mapping[str, Any]) -> tuple[list[Block], list[Block], list[Block]]:
    """The prompt's blocks, those of the last assistant message, and those behind it."""
    prompt: list[Block] = []
    if body.get("system"):
        prompt += _content(body["system"], "system", "system")
    messages = body["messages"]
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list")
    if not messages:
        raise invalid("messages: at least one message is required")
    given: list[Block] = []
    asking: list[Block] = []
    for index, message in enumerate(messages):
        place = f"messages.{index}"
        if not isinstance(message, Mapping):
            raise invalid(f"{place}: Input should be a valid dictionary")
        for name in message:
            if name not in {"role", "content"}:
                raise invalid(f"{place}.{name}: Extra inputs are not permitted")
        role = message.get("role")
        if role not in {"user", "assistant"}:
            raise invalid(f"{place}.role: Input should be 'user' or 'assistant'")
        if index == 0 and role != "user":
            raise invalid('messages: first message must use the "user" role')
        if "content" not in message:
            raise invalid(f"{place}.content: Field required")
        blocks = _content(message["content"], role, f"{place}.content")
        if role == "assistant":
            if asking:
                prompt += [*given, *asking]
                given, asking = [], []
            given += blocks
        elif given:
            asking += blocks
        else:
            prompt += blocks
    return prompt, given, asking


def _content(value: object, role: str, place: str) -> list[Block]:
    if isinstance(value, str):
        return [_text_block(value, role, "messages" if role != "system" else "system", None)]
    if not isinstance(value, list):
        raise invalid(f"{place}: Input should be a valid string or list")
    if not value:
        raise invalid(f"{place.removesuffix('.content')}: all messages must have non-empty content")
    return [_block(item, role, f"{place}.{index}") for index, item in enumerate(value)]


def _block(value: object, role: str, place: str) -> Block:
    if not isinstance(value, Mapping):
        raise invalid(f"{place}: Input should be a valid dictionary")
    kind = value.get("type")
    if kind not in _BLOCK_TYPES or (role == "system" and kind != "text"):
        raise invalid(f"{place}: Input tag '{kind}' found using 'type' is not supported here")
    control = value.get("cache_control")
    ttl_s = None if control is None else _cache_ttl_s(control, f"{place}.cache_control")
    if kind == "text":
        if not isinstance(value.get("text"), str):
            raise invalid(f"{place}.text: Input should be a valid string")
        for name in value:
            if name not in {"type", "text", "cache_control", "citations"}:
                raise invalid(f"{place}.text.{name}: Extra inputs are not permitted")
        return _text_block(value["text"], role, place.rsplit(".", 1)[0], ttl_s)
    if kind == "document" and role == "assistant":
        raise invalid(f"{place}: document blocks are not permitted in assistant messages")
    data = json.dumps({k: v for k, v in value.items() if k != "cache_control"}, sort_keys=True)
    weight = _IMAGE_TOKENS if kind == "image" else count_tokens(data)
    return Block(role, None, data.encode(), weight, ttl_s)


def _text_block(text: str, role: str, place: str, ttl_s: int | None) -> Block:
    if not text:
        raise invalid(f"{place}: text content blocks must be non-empty")
    if text.isspace():
        raise invalid(f"{place}: text content blocks must contain non-whitespace text")
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise invalid("The request body is not valid JSON: no low surrogate in string") from error
    return Block(role, text, data, 0, ttl_s)


def _cache_ttl_s(value: object, place: str) -> int:
    if not isinstance(value, Mapping) or value.get("type") != "ephemeral":
        raise invalid(f"{place}: Input tag should be 'ephemeral'")
    ttl = value.get("ttl", "5m")
    if ttl not in _CACHE_TTLS_S:
        raise invalid(f"{place}.ttl: Input should be '5m' or '1h'")
    return _CACHE_TTLS_S[ttl]


def _check_breakpoints(automatic: object, blocks: Sequence[Block]) -> None:
    ttls = [block.cache_ttl_s for block in blocks if block.cache_ttl_s is not None]
    found = len(ttls) + (automatic is not None)
    if found > _MAX_BREAKPOINTS:
        raise invalid(
            f"A maximum of {_MAX_BREAKPOINTS} blocks with cache_control may be provided. "
            f"Found {found}."
        )
    if ttls != sorted(ttls, reverse=True):
        raise invalid(
            "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block."
        )


def _mark_last(blocks: list[Block], ttl_s: int) -> None:
    """Top-level `cache_control` marks the last block."""
    last = blocks[-1]
    if last.cache_ttl_s not in {None, ttl_s}:
        raise invalid("cache_control: conflicts with the ttl of the last block's cache_control")
    blocks[-1] = Block(last.role, last.text, last.data, last.weight_tokens, ttl_s)


def _check_prefill(body: Mapping[str, Any], model: Model, blocks: Sequence[Block]) -> None:
    if not model.prefill:
        raise invalid(PREFILL_REFUSED)
    thinking = body.get("thinking") or {}
    if thinking.get("type") in {"enabled", "adaptive"}:
        raise invalid(
            "messages: Expected `thinking` or `redacted_thinking`, but found `text`. When "
            "`thinking` is enabled, a final `assistant` message must start with a thinking block."
        )
    if (body.get("output_config") or {}).get("format") is not None:
        raise invalid("output_config.format: incompatible with message prefilling")
    last = blocks[-1].text
    if last is None:
        raise invalid("messages: final assistant content must end with a text block")
    if last != last.rstrip():
        raise invalid("messages: final assistant content cannot end with trailing whitespace")
