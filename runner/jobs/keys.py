"""The keys of a job file, by level, and what to say of every other one."""

from __future__ import annotations

import functools

from runner.jobs.problems import nearest, quoted

JOB_ONLY = ("id", "prompt", "messages", "foreach")
SHARED = (
    "model",
    "system",
    "max_tokens",
    "stop_sequences",
    "thinking",
    "output_config",
    "metadata",
    "priority",
    "params",
    "continuation",
    "until",
    "caching",
)

# By the name of the level, as messages write it.
KNOWN: dict[str, tuple[str, ...]] = {
    "the top level": ("version", "batch", "defaults", "limits", "prices", "jobs"),
    "`limits`": (
        "concurrency",
        "concurrency_by_model",
        "max_attempts",
        "max_cost_usd",
        "max_output_tokens",
        "budget",
        "confirm_above_usd",
        "requests_per_minute",
        "input_tokens_per_minute",
        "output_tokens_per_minute",
        "breaker",
    ),
    "a price": ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read"),
    "`defaults`": SHARED,
    "a job": JOB_ONLY + SHARED,
    "`continuation`": (
        "strategy",
        "max_calls",
        "max_output_tokens",
        "seam_retries",
        "on_unverified_seam",
        "max_nudges",
        "max_cost_usd",
    ),
    "`until`": ("contains", "matches", "min_words", "min_chars", "closes_tags", "all", "stop"),
    "a message": ("role", "content"),
    "a request": ("custom_id", "params"),
}

# Older models and local ones take these in `params`; which ones refuse them is checked apart.
SAMPLING = ("temperature", "top_p", "top_k")
_TOOLS = (
    "runner writes documents and does not run tools",
    "Take it out, or use the Messages API directly for this job.",
)
_OWN_KEY = ("it has a key of its own", "Write it in the job itself, outside `params`.")

# Request fields that `params` may not pass on.
REFUSED_PARAMS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            "model",
            "messages",
            "max_tokens",
            "system",
            "stop_sequences",
            "thinking",
            "output_config",
        ),
        _OWN_KEY,
    ),
    **dict.fromkeys(("tools", "tool_choice", "mcp_servers"), _TOOLS),
    "stream": ("every answer is streamed, so that it can be saved as it comes", "Take it out."),
}

# Request fields that people write straight into a job.
_PARAMS = (
    *("service_tier", "inference_geo", "cache_control", "container", "context_management"),
    *SAMPLING,
)

_OTHER_WORDS = {
    "custom_id": "id",
    "name": "id",
    "max_tokens_to_sample": "max_tokens",
    "stop": "stop_sequences",
    "system_prompt": "system",
    "extra_body": "params",
}


def unknown_key(key: str, level: str) -> tuple[str, str]:
    """What is wrong with a key that `level` does not have, and the fix."""
    if level in ("a job", "`defaults`"):
        if key in REFUSED_PARAMS and REFUSED_PARAMS[key] is not _OWN_KEY:
            return REFUSED_PARAMS[key]
        if key in _PARAMS:
            return "request fields without a key of their own stand under `params`", (
                f"Write `params: {{{key}: …}}`."
            )
    known = KNOWN[level]
    message = f"{level} has no key {quoted(key)}"
    other = _OTHER_WORDS.get(key)
    if other in known:
        return message, f"Did you mean `{other}`?"
    home = _home_of(key, level)
    if home is not None:
        return message, f"`{key}` belongs {home}."
    near = nearest(key, known)
    if near is not None:
        return message, f"Did you mean `{near}`?"
    return message, f"The keys here are {', '.join(known)}."


@functools.lru_cache(maxsize=1024)  # a file of a million requests holds a handful of different keys
def misspelt_field(key: str) -> str | None:
    """The request field that a key of `params` was meant to be, when it is a near miss.

    Other unknown fields pass: the API may know newer ones than we do.
    """
    return nearest(key, tuple(REFUSED_PARAMS), cutoff=0.85)


def _home_of(key: str, level: str) -> str | None:
    if level == "`defaults`" and key in JOB_ONLY:
        return "in each job: it cannot be shared"
    places = {
        "`limits`": "under `limits`",
        "`continuation`": "under `continuation`",
        "`until`": "under `until`",
        "the top level": "at the top of the file",
        "a job": "in a job (or under `defaults`)" if key in SHARED else "in a job",
    }
    for home, words in places.items():
        if home != level and key in KNOWN[home]:
            return words
    return None
