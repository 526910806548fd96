"""The table of errors: every case the documentation names, and nothing shown that must not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.messages.classify import (
    LONGEST_MESSAGE,
    RULES,
    RUNNER_DOES,
    UNKNOWN,
    Failure,
    call_error,
    clean,
    find_rule,
)
from runner.messages.errors import ErrorKind

PREFILL = (
    "This model does not support assistant message prefill. "
    "The conversation must end with a user message."
)
THINKING = (
    "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `text`. When "
    "`thinking` is enabled, a final `assistant` message must start with a thinking block"
)
OWN_LIMIT = (
    "You have reached your specified API usage limits. You will regain access on 2026-12-01."
)
OWN_LIMIT_WORKSPACE = "You have reached your specified workspace API usage limits."
NO_CREDIT = "Your credit balance is too low to access the Anthropic API."
NOT_SENT = "invalid_request_error"

# status, type, code, message -> kind
CASES = [
    (400, NOT_SENT, None, PREFILL, ErrorKind.PREFILL_REFUSED),
    (
        400,
        NOT_SENT,
        None,
        "Prefilling assistant messages is not supported for this model.",
        ErrorKind.PREFILL_REFUSED,
    ),
    (
        400,
        None,
        None,
        "Assistant response prefill is incompatible with enable_thinking.",
        ErrorKind.PREFILL_REFUSED,
    ),
    (400, NOT_SENT, None, THINKING, ErrorKind.PREFILL_REFUSED),
    (400, NOT_SENT, None, OWN_LIMIT, ErrorKind.SPEND_CAP),
    (400, NOT_SENT, None, OWN_LIMIT_WORKSPACE, ErrorKind.SPEND_CAP),
    (400, NOT_SENT, None, NO_CREDIT, ErrorKind.SPEND_CAP),
    (400, NOT_SENT, None, "This organization has been disabled.", ErrorKind.CREDENTIALS),
    (400, NOT_SENT, "organization_on_hold", "m", ErrorKind.CREDENTIALS),
    (400, NOT_SENT, "request_body_timeout", "m", ErrorKind.RETRY),
    (
        400,
        NOT_SENT,
        None,
        "messages: final assistant content cannot end with trailing whitespace",
        ErrorKind.JOB,
    ),
    (400, NOT_SENT, None, "temperature: Extra inputs are not permitted", ErrorKind.JOB),
    (400, NOT_SENT, "a_code_of_tomorrow", "m", ErrorKind.JOB),
    (400, None, None, "", ErrorKind.JOB),
    (401, "authentication_error", None, "invalid x-api-key", ErrorKind.CREDENTIALS),
    (402, "billing_error", None, "m", ErrorKind.SPEND_CAP),
    (402, "billing_error", "linked_organization_spend_limit_reached", "m", ErrorKind.SPEND_CAP),
    (403, "permission_error", None, "m", ErrorKind.CREDENTIALS),
    (403, None, None, "", ErrorKind.CREDENTIALS),
    (404, "not_found_error", None, "model: claude-opus-1", ErrorKind.JOB),
    (404, "not_found_error", None, "model 'llama9' not found", ErrorKind.JOB),
    (404, None, None, "", ErrorKind.RETRY),
    (404, "not_found_error", None, "File Not Found", ErrorKind.RETRY),
    (405, None, None, "", ErrorKind.RETRY),
    (302, None, None, "", ErrorKind.RETRY),
    (408, "timeout_error", None, "m", ErrorKind.RETRY),
    (409, "conflict_error", None, "m", ErrorKind.RETRY),
    (413, "request_too_large", None, "m", ErrorKind.JOB),
    (413, None, None, "", ErrorKind.JOB),
    (422, NOT_SENT, None, "m", ErrorKind.JOB),
    (429, "rate_limit_error", None, "m", ErrorKind.RATE_LIMIT),
    (429, None, None, "", ErrorKind.RATE_LIMIT),
    (429, "rate_limit_error", "ramp_limit_exceeded", "m", ErrorKind.RATE_LIMIT),
    (429, "rate_limit_error", "enforced_spend_limit_reached", "m", ErrorKind.SPEND_CAP),
    (429, "rate_limit_error", "contract_spend_limit_reached", "m", ErrorKind.SPEND_CAP),
    (431, None, None, "", ErrorKind.JOB),
    (499, None, None, "", ErrorKind.RETRY),
    (500, "api_error", None, "m", ErrorKind.RETRY),
    (500, NOT_SENT, None, "a local server's own mistake", ErrorKind.RETRY),
    (501, None, None, "", ErrorKind.RETRY),
    (502, None, None, "", ErrorKind.RETRY),
    (503, "api_error", None, "m", ErrorKind.RETRY),
    (504, "timeout_error", None, "m", ErrorKind.RETRY),
    (520, None, None, "", ErrorKind.RETRY),
    (529, "overloaded_error", None, "m", ErrorKind.RETRY),
    (None, "unreachable", None, "m", ErrorKind.RETRY),
    (None, "timeout", None, "m", ErrorKind.RETRY),
    (None, "broken_stream", None, "m", ErrorKind.RETRY),
    (None, "unsendable", None, "m", ErrorKind.JOB),
    (None, "not_an_event_stream", None, "m", ErrorKind.RETRY),
    (None, NOT_SENT, None, PREFILL, ErrorKind.PREFILL_REFUSED),
    (None, NOT_SENT, None, OWN_LIMIT, ErrorKind.SPEND_CAP),
    (None, "not_found_error", None, "model: x", ErrorKind.JOB),
    (None, None, None, "", ErrorKind.RETRY),
    (999, "of_tomorrow", None, "m", ErrorKind.RETRY),
]


@pytest.mark.parametrize(("status", "type", "code", "message", "kind"), CASES)
def test_kinds(
    status: int | None, type: str | None, code: str | None, message: str, kind: ErrorKind
) -> None:
    failure = Failure(message, type=type, code=code, status=status, request_id="req_1")
    error = call_error(failure)
    assert error.kind is kind
    assert error.status == status
    assert error.type == (code or type or "unknown_error")
    assert "\n" not in str(error)
    assert "req_1" in str(error)


def test_every_row_has_its_case() -> None:
    met = [find_rule(*case[:4]) for case in CASES]
    assert [rule.happened for rule in (*RULES, UNKNOWN) if rule not in met] == []
    assert {rule.kind for rule in RULES} == set(ErrorKind) == set(RUNNER_DOES)


def test_where_waiting_does_not_mend_it_the_message_says_what_to_do() -> None:
    for rule in RULES:
        error = call_error(
            Failure(
                "words.",
                type=next(iter(rule.types), None),
                code=next(iter(rule.codes), None),
                status=next(iter(rule.statuses), None),
            )
        )
        if error.kind in (ErrorKind.RETRY, ErrorKind.RATE_LIMIT):
            continue
        assert rule.do
        assert str(error).count("..") == 0


def test_the_whole_message() -> None:
    failure = Failure("model: claude-9", type="not_found_error", status=404, request_id="req_1")
    assert str(call_error(failure)) == (
        "There is no such model: model: claude-9. Check the model's name; it may also be retired, "
        "or not open to this key. [404 not_found_error, request req_1]"
    )


def test_a_server_that_wants_us_back_is_believed() -> None:
    refused = Failure("m", type="invalid_request_error", status=400)
    assert call_error(refused).kind is ErrorKind.JOB
    again = Failure("m", type="invalid_request_error", status=400, should_retry=True)
    assert call_error(again).kind is ErrorKind.RETRY
    capped = Failure("m", code="enforced_spend_limit_reached", status=429, should_retry=True)
    assert call_error(capped).kind is ErrorKind.SPEND_CAP


@pytest.mark.parametrize(
    ("body", "type", "code", "message"),
    [
        (
            {
                "type": "error",
                "error": {"type": "t", "message": "m", "details": {"error_code": "c"}},
            },
            "t",
            "c",
            "m",
        ),
        ({"error": {"code": 400, "type": "t", "message": "m"}}, "t", None, "m"),
        ({"error": {"type": "t", "message": "m", "details": None}}, "t", None, "m"),
        ({"error": {"type": "t", "message": "m", "details": {"error_code": 7}}}, "t", None, "m"),
        ({"type": "t", "message": "m"}, "t", None, "m"),
        ({"error": "m"}, None, None, "m"),
        ({"detail": "m"}, None, None, "m"),
        ({"detail": [{"loc": 1}]}, None, None, ""),
        ({"error": None}, None, None, ""),
        ({"error": {"message": {"a": 1}, "type": 5}}, None, None, ""),
        ("m", None, None, "m"),
        ("  <html><body>Bad gateway", None, None, ""),
        (["m"], None, None, ""),
        (None, None, None, ""),
        ("", None, None, ""),
    ],
)
def test_bodies(body: object, type: str | None, code: str | None, message: str) -> None:
    failure = Failure.from_body(body, status=400)
    assert (failure.type, failure.code, failure.message) == (type, code, message)


def test_the_request_id_of_the_body_stands_in_for_a_missing_header() -> None:
    assert Failure.from_body({"error": {}, "request_id": "req_b"}).request_id == "req_b"
    assert Failure.from_body({"error": {}, "request_id": "b"}, request_id="a").request_id == "a"


def test_keys_are_taken_out() -> None:
    hidden = "its-very-own-key"
    words = f"bad key {hidden} and sk-ant-api03-abcDEF_123-x in\nrequest"
    assert clean(words, (hidden,)) == "bad key [key] and [key] in request"
    failure = Failure(words, type=f"t{hidden}", status=401, request_id=hidden)
    error = call_error(failure, secrets=(hidden,))
    assert hidden not in str(error)
    assert hidden not in (error.request_id or "")


def test_a_key_at_the_cut_does_not_show_its_half() -> None:
    hidden = "its-very-own-key"
    for before in range(LONGEST_MESSAGE - len(hidden) - 3, LONGEST_MESSAGE + 3):
        assert "its-very" not in clean("x" * before + hidden, (hidden,))


@given(st.text(max_size=600))
def test_a_message_is_one_printable_line_of_bounded_length(words: str) -> None:
    line = clean(words)
    assert line.isprintable()
    assert len(line) <= LONGEST_MESSAGE
    line.encode()  # no lone surrogate, so it can be saved


def test_hostile_messages_cost_little() -> None:
    assert len(clean("\x1b[2J" * 5_000_000)) <= LONGEST_MESSAGE
