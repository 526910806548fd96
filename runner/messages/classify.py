"""What every error of a call means for us: one table, read from the top, the first match counts.

`docs/errors.md` shows the same rows to users, and a test keeps the two alike.

Source: Messages API documentation, errors and rate limits; the error codes and types that the
official SDK knows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from runner.messages.errors import CallError, ErrorKind
from runner.messages.headers import NO_LIMITS, RateLimits

LONGEST_MESSAGE = 300  # characters of the API's own words that we repeat

RUNNER_DOES: Mapping[ErrorKind, str] = {
    ErrorKind.RETRY: "Tries the job again later, from its last saved character.",
    ErrorKind.RATE_LIMIT: "Rests all calls on that limit, in every process, as long as the API asks; "
    "costs no attempt.",
    ErrorKind.CREDENTIALS: "Pauses the batch and says why. Nothing is discarded.",
    ErrorKind.SPEND_CAP: "Pauses the batch and says why. Nothing is discarded.",
    ErrorKind.PREFILL_REFUSED: "Goes on by `turn`, and remembers it for this model and endpoint; "
    "costs no attempt. A job that asks for `strategy: prefill` is discarded, its text kept.",
    ErrorKind.JOB: "Discards this job and keeps its text. The others go on.",
}
# Where waiting mends it, the message need not tell the reader what to do.
_MENDED_BY_WAITING = frozenset({ErrorKind.RETRY, ErrorKind.RATE_LIMIT})


@dataclass(frozen=True, slots=True)
class Rule:
    """A row: which errors it means, what they ask of us, and the words for the reader.

    An error code alone is enough. Else the status must be among `statuses` (of an HTTP error) or
    the type among `types` (of an error told in mid-stream, or our own), and the message must match
    `pattern` where there is one.
    """

    kind: ErrorKind
    happened: str
    do: str
    statuses: Collection[int] = ()
    types: Collection[str] = ()
    codes: Collection[str] = ()
    pattern: re.Pattern[str] | None = None

    def matches(self, status: int | None, type: str | None, code: str | None, message: str) -> bool:
        if code in self.codes:
            return True
        told_by_status = status is not None and status >= 300
        if not (status in self.statuses if told_by_status else type in self.types):
            return False
        return self.pattern is None or self.pattern.search(message) is not None


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_BAD_REQUEST = ({400}, {"invalid_request_error"})

RULES: tuple[Rule, ...] = (
    Rule(
        ErrorKind.PREFILL_REFUSED,
        "The model does not go on from a prefill",
        "Take `strategy: prefill` out, or use a model that takes it, such as claude-haiku-4-5.",
        *_BAD_REQUEST,
        pattern=_pattern(r"prefill|must end with a user message|must start with a thinking block"),
    ),
    Rule(
        ErrorKind.SPEND_CAP,
        "The account's spending limit is reached",
        "Raise the limit, or wait until it starts anew, then run the same command again.",
        {402},
        {"billing_error"},
        {
            "enforced_spend_limit_reached",
            "contract_spend_limit_reached",
            "linked_organization_spend_limit_reached",
            "linked_organization_billing_unavailable",
        },
    ),
    Rule(
        ErrorKind.SPEND_CAP,
        "The spending limit you set yourself is reached",
        "Raise it in the Console, or wait until it starts anew, then run the same command again.",
        *_BAD_REQUEST,
        pattern=_pattern(r"you have reached your specified (workspace )?api usage limits"),
    ),
    Rule(
        ErrorKind.SPEND_CAP,
        "The account has no credit left",
        "Buy credit in the Console, then run the same command again.",
        *_BAD_REQUEST,
        pattern=_pattern(r"credit balance is too low"),
    ),
    Rule(
        ErrorKind.CREDENTIALS,
        "The organization is on hold or disabled",
        "Ask the owner of the account, then run the same command again.",
        *_BAD_REQUEST,
        {"organization_on_hold", "cmek_key_disabled", "cmek_key_network_blocked"},
        _pattern(r"organization has been disabled"),
    ),
    Rule(
        ErrorKind.CREDENTIALS,
        "The key was refused",
        "Set ANTHROPIC_API_KEY to a valid key, then run the same command again.",
        {401},
        {"authentication_error"},
    ),
    Rule(
        ErrorKind.CREDENTIALS,
        "The key may not do this",
        "Check that the key's workspace may use this model, and that no proxy blocks the way.",
        {403},
        {"permission_error"},
    ),
    Rule(
        ErrorKind.RATE_LIMIT,
        "Use grew faster than the API allows",
        "Nothing; a lower `concurrency` starts more gently.",
        codes={"ramp_limit_exceeded"},
    ),
    Rule(
        ErrorKind.RATE_LIMIT,
        "A rate limit is reached",
        "Nothing; a lower `concurrency` meets it less often.",
        {429},
        {"rate_limit_error"},
    ),
    Rule(
        ErrorKind.JOB,
        "There is no such model",
        "Check the model's name; it may also be retired, or not open to this key.",
        {404},
        {"not_found_error"},
        pattern=_pattern(r"\bmodel\b"),
    ),
    Rule(
        ErrorKind.RETRY,
        "The address does not answer as a Messages API does",
        "Check ANTHROPIC_BASE_URL (without `/v1`), and any proxy in between.",
        {*range(300, 400), 404, 405},
        {"not_found_error", "not_an_event_stream"},
    ),
    Rule(
        ErrorKind.JOB,
        "The request is too large",
        "Shorten the prompt: a request may have 32 MB.",
        {413},
        {"request_too_large"},
    ),
    Rule(
        ErrorKind.RETRY,
        "The request took too long or met another one",
        "Nothing.",
        {408, 409, 425, 499},
        {"timeout_error", "conflict_error"},
        {"request_body_timeout"},
    ),
    Rule(
        ErrorKind.RETRY,
        "The API is overloaded",
        "Nothing.",
        {529},
        {"overloaded_error"},
    ),
    Rule(
        ErrorKind.RETRY,
        "The API met an error of its own",
        "Nothing; if it lasts, look at the API's status page.",
        range(500, 600),
        {"api_error"},
    ),
    Rule(
        ErrorKind.JOB,
        "The API refused the request",
        "Mend what it names in the job file, then submit the job again with `--replace`.",
        range(400, 500),
        {"invalid_request_error"},
    ),
    Rule(
        ErrorKind.JOB,
        "The request cannot be sent",
        "Mend the job's texts: they must be well-formed Unicode.",
        types={"unsendable"},
    ),
    Rule(
        ErrorKind.RETRY,
        "The API cannot be reached",
        "Check the network and ANTHROPIC_BASE_URL if it lasts.",
        types={"unreachable"},
    ),
    Rule(
        ErrorKind.RETRY,
        "The API fell silent",
        "Nothing; if it lasts, check the network.",
        types={"timeout"},
    ),
    Rule(
        ErrorKind.RETRY,
        "The stream broke off",
        "Nothing; if it lasts, check the network.",
        types={"broken_stream"},
    ),
)
UNKNOWN = Rule(
    ErrorKind.RETRY,
    "The API told of an error unknown to this version",
    "Nothing; if it lasts, report it.",
)


def find_rule(status: int | None, type: str | None, code: str | None, message: str) -> Rule:
    """The row that an error falls under."""
    for rule in RULES:
        if rule.matches(status, type, code, message):
            return rule
    return UNKNOWN


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it was told, before we judge it.

    Args:
        type, code: the API's error type and error code; or our own type.
        message: in the words of whoever told it; hostile input.
        retry_after_s: seconds the server asks us to wait.
        should_retry: the server says that trying again helps (`x-should-retry: true`).
        rate_limits: as the response's headers told them.
    """

    message: str
    type: str | None = None
    code: str | None = None
    status: int | None = None
    retry_after_s: float | None = None
    should_retry: bool = False
    request_id: str | None = None
    rate_limits: RateLimits = NO_LIMITS

    @staticmethod
    def from_body(body: object, **known: Any) -> Failure:
        """Read an error from JSON: the API's form, and what local servers make of it."""
        outer = body if isinstance(body, Mapping) else {}
        error = outer.get("error", body)
        inner = error if isinstance(error, Mapping) else outer
        details = inner.get("details")
        words = error if isinstance(error, str) else inner.get("message", inner.get("detail"))
        known.setdefault("request_id", None)
        known["request_id"] = known["request_id"] or _text(outer.get("request_id"))
        return Failure(
            # A page of HTML comes from something in between, and says less than the status.
            message="" if not isinstance(words, str) or words.lstrip()[:1] == "<" else words,
            type=_text(inner.get("type")),
            code=_text(details.get("error_code")) if isinstance(details, Mapping) else None,
            **known,
        )


def call_error(failure: Failure, *, secrets: Collection[str] = ()) -> CallError:
    """Judge a failure, and say it in one line that is fit for a terminal and a database.

    Args:
        secrets: what must never be shown, should the server repeat it.
    """
    rule = find_rule(failure.status, failure.type, failure.code, failure.message)
    kind = rule.kind
    # `x-should-retry: false` is not obeyed: it is meant for a client that asks again at once.
    if kind is ErrorKind.JOB and failure.should_retry:
        kind = ErrorKind.RETRY
    name = failure.code or failure.type or "unknown_error"
    words = clean(failure.message, secrets)
    text = f"{rule.happened}: {words}" if words else rule.happened
    if kind not in _MENDED_BY_WAITING:
        text = f"{text.rstrip('.')}. {rule.do}"
    status = f"{failure.status} " if failure.status is not None else ""
    request_id = clean(failure.request_id or "", secrets) or None
    request = f", request {request_id}" if request_id else ""
    return CallError(
        kind,
        f"{text} [{status}{clean(name, secrets)}{request}]",
        type=name,
        status=failure.status,
        retry_after_s=failure.retry_after_s,
        request_id=request_id,
        rate_limits=failure.rate_limits,
    )


_KEY = re.compile(r"sk-[A-Za-z0-9_-]{6,}")
_READ_AT_MOST = 20_000  # characters: bounds the work on a hostile message


def clean(message: str, secrets: Collection[str] = ()) -> str:
    """A server's words on one line: no control characters, no key, at most `LONGEST_MESSAGE`."""
    message = message[:_READ_AT_MOST]
    for secret in secrets:
        message = message.replace(secret, "[key]")
    message = _KEY.sub("[key]", message)
    printable = "".join(c if c.isprintable() else " " for c in message)
    line = " ".join(printable.split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
