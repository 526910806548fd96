"""Turns the plain fields of a job into a JobSpec, and reports all that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping

from runner.jobs.call import Strategy
from runner.jobs.conditions import check_until
from runner.jobs.conversation import check_messages, check_system
from runner.jobs.keys import KNOWN, REFUSED_PARAMS, SAMPLING, misspelt_field, unknown_key
from runner.jobs.model_names import takes_sampling, thinking_refused
from runner.jobs.price import nano_usd
from runner.jobs.problems import Path, Report, quoted
from runner.jobs.spec import (
    ID_PATTERN,
    Caching,
    ContinuationSpec,
    JobSpec,
    Json,
    OnUnverifiedSeam,
    Until,
)
from runner.jobs.values import (
    check_int,
    check_mapping,
    check_model,
    check_money,
    check_one_of,
    is_text,
)

# Generous bounds: they are there for slips of the keyboard, not to know better than the API.
MAX_TOKENS = 1_000_000
MAX_OUTPUT_TOKENS = 1_000_000_000
MAX_CALLS = 100_000
MAX_SEAM_RETRIES = 10
MAX_NUDGES = 100
MAX_PRIORITY = 1_000_000

ID_RULE = "Use 1 to 64 of the letters a-z and A-Z, digits, _ and -."

_DEFAULT_CONTINUATION = ContinuationSpec()
_BOUNDS = {  # of `continuation`: the least and the most
    "max_calls": (1, MAX_CALLS),
    "max_output_tokens": (1, MAX_OUTPUT_TOKENS),
    "seam_retries": (0, MAX_SEAM_RETRIES),
    "max_nudges": (0, MAX_NUDGES),
}
_TOLD_ELSEWHERE = ("id", "prompt", "messages")  # what is wrong with these has words of its own
_NO_JSON: Mapping[str, Json] = {}


def check_id(value: Json, report: Report, path: Path) -> str | None:
    """The id, when it is well-formed; otherwise the problem is reported."""
    if not isinstance(value, str):
        fix = "Put quotes around it." if isinstance(value, int | float) else ID_RULE
        report(path, f"an id is a text, and this is {quoted(value)}", fix)
    elif not ID_PATTERN.fullmatch(value):
        what = f"{quoted(value)} cannot be an id" if value else "the id is empty"
        if len(value) > 64:
            what += f": it is {len(value)} characters long"
        report(path, what, ID_RULE)
    else:
        return value
    return None


def check_keys(value: Mapping[str, Json], level: str, report: Report, path: Path = ()) -> None:
    """Report every key that `level` does not have, with the one that was probably meant."""
    known = KNOWN[level]
    for key in value:
        if key not in known:
            message, fix = unknown_key(key, level)
            report((*path, key), message, fix, on_key=True)


def build_job(id: str | None, fields: Mapping[str, Json], report: Report) -> JobSpec | None:
    """The job that `fields` describe, or None when anything is wrong with them.

    Args:
        id: None when the id was refused already; the other fields are checked all the same.
        fields: the job's own keys and what it has from `defaults`; unknown keys are the caller's.
    """
    before = report.count
    model: Json = fields.get("model")
    if "model" not in fields:
        report(("model",), "no model is named", "Write `model: …` here or under `defaults`.")
    messages = _read_messages(fields, report)
    known = check_fields(fields, report)
    if isinstance(model, str):
        _check_against_model(model, fields, report)
    if report.count != before or id is None:
        return None
    params = fields.get("params")
    metadata = fields.get("metadata")
    system = fields.get("system")
    return JobSpec(
        id=id,
        model=model,
        messages=messages,
        max_tokens=None if fields.get("max_tokens") == "auto" else fields.get("max_tokens"),
        system=tuple(system) if isinstance(system, list) else system,
        stop_sequences=tuple(fields.get("stop_sequences") or ()),
        thinking=fields.get("thinking"),
        output_config=fields.get("output_config"),
        params=_NO_JSON if params is None else params,
        continuation=known,
        until=_until(fields.get("until")),
        metadata=_NO_JSON if metadata is None else metadata,
        priority=fields.get("priority") or 0,
        caching=Caching(fields.get("caching", Caching.AUTO)),
    )


def check_fields(fields: Mapping[str, Json], report: Report) -> ContinuationSpec:
    """Report what is wrong with the keys that jobs and `defaults` share.

    A key whose value is nothing (`system:` with nothing after it) is refused: it was meant to
    hold something.
    """
    continuation = _DEFAULT_CONTINUATION
    for key, value in fields.items():
        if value is None and key not in _TOLD_ELSEWHERE:
            report((key,), "there is nothing after this key", "Give it a value or take it out.")
        elif key == "model":
            check_model(value, report, (key,))
        elif key == "max_tokens":
            if value != "auto" or not isinstance(value, str):
                check_int(value, report, (key,), 1, MAX_TOKENS, or_else="`auto`")
        elif key == "system":
            check_system(value, report)
        elif key == "stop_sequences":
            _check_stop_sequences(value, report)
        elif key in ("thinking", "output_config"):
            check_mapping(value, report, (key,))
            if key == "thinking" and isinstance(value, Mapping) and not is_text(value.get("type")):
                report((key,), "the type is missing", "Write `thinking: {type: …}`.")
        elif key == "metadata":
            check_mapping(value, report, (key,))
        elif key == "priority":
            check_int(value, report, (key,), -MAX_PRIORITY, MAX_PRIORITY)
        elif key == "params":
            _check_params(value, report)
        elif key == "continuation":
            continuation = _read_continuation(value, report)
        elif key == "until":
            check_until(value, report)
        elif key == "caching":
            check_one_of(value, report, (key,), tuple(Caching))
    return continuation


def _read_messages(fields: Mapping[str, Json], report: Report) -> tuple[Mapping[str, Json], ...]:
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if "prompt" in fields and "messages" in fields:
        report(("messages",), "both `prompt` and `messages` are here", "Keep one.", on_key=True)
        return ()
    if "messages" in fields:
        check_messages(messages, report)
        return tuple(messages) if isinstance(messages, list) else ()
    if "prompt" not in fields:
        report((), "the prompt is missing", "Write `prompt: …` or `messages: […]`.")
    elif isinstance(prompt, str) and prompt and not prompt.isspace():
        return ({"role": "user", "content": prompt},)
    elif isinstance(prompt, str) or prompt is None:
        report(("prompt",), "the prompt is empty", "Write what the document should be.")
    else:
        report(
            ("prompt",),
            f"a prompt is a text, and this is {quoted(prompt)}",
            "Put quotes around it; for a conversation write `messages`.",
        )
    return ()


def _check_stop_sequences(value: Json, report: Report) -> None:
    path: Path = ("stop_sequences",)
    if not isinstance(value, list):
        report(path, f"this is {quoted(value)}", 'Write a list: `["…"]`.')
        return
    for index, text in enumerate(value):
        if not is_text(text):
            report(
                (*path, index),
                f"a stop sequence is a text that is not blank, and this is {quoted(text)}",
                "Correct it or take it out.",
            )


def _check_params(value: Json, report: Report) -> None:
    path: Path = ("params",)
    if check_mapping(value, report, path):
        for key in value:
            if key in REFUSED_PARAMS:
                why, fix = REFUSED_PARAMS[key]
                report((*path, key), f"`{key}` cannot be passed on: {why}", fix, on_key=True)
            elif near := misspelt_field(key):
                what = f"the Messages API knows no field {quoted(key)}"
                report((*path, key), what, f"Did you mean `{near}`?", on_key=True)


def _check_against_model(model: str, fields: Mapping[str, Json], report: Report) -> None:
    """Report what this very model is known to refuse: it would cost the job, at night."""
    params, thinking = fields.get("params"), fields.get("thinking")
    given = params if isinstance(params, Mapping) and not takes_sampling(model) else {}
    for key in SAMPLING:
        if key in given:
            fix = "Take it out, and say in the prompt how bold the text should be."
            report(("params", key), f"{model} refuses `{key}`", fix, on_key=True)
    kind = thinking.get("type") if isinstance(thinking, Mapping) else None
    if isinstance(kind, str) and (takes := thinking_refused(model, kind)):
        what = f"{model} refuses thinking of type {quoted(kind)}"
        report(("thinking",), what, f"It takes {' or '.join(f'`{k}`' for k in sorted(takes))}.")


def _read_continuation(value: Json, report: Report) -> ContinuationSpec:
    path: Path = ("continuation",)
    if not check_mapping(value, report, path):
        return _DEFAULT_CONTINUATION
    before = report.count
    check_keys(value, "`continuation`", report, path)
    strategy = value.get("strategy", "auto")
    if strategy not in ("auto", *Strategy):
        fix = "Write `auto`, `prefill` or `turn`."
        report((*path, "strategy"), f"this is {quoted(strategy)}", fix)
    policy = value.get("on_unverified_seam", OnUnverifiedSeam.FLAG)
    if policy not in tuple(OnUnverifiedSeam):
        fix = "Write `flag` or `fail`."
        report((*path, "on_unverified_seam"), f"this is {quoted(policy)}", fix)
    for key, (least, most) in _BOUNDS.items():
        if key in value:
            check_int(value[key], report, (*path, key), least, most)
    cost = value.get("max_cost_usd")
    if "max_cost_usd" in value:
        check_money(cost, report, (*path, "max_cost_usd"))
    if report.count != before:
        return _DEFAULT_CONTINUATION
    return ContinuationSpec(
        strategy=None if strategy == "auto" else Strategy(strategy),
        on_unverified_seam=OnUnverifiedSeam(policy),
        max_cost_nano_usd=None if cost is None else nano_usd(cost),
        **{key: value[key] for key in _BOUNDS if key in value},
    )


def _until(value: Json) -> Until | None:
    return None if value is None else Until.from_json(value)
