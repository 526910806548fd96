"""Models that are retired or soon will be: told before a night's run, not in it.

Source: the official SDK's list of deprecated models, and the Messages API documentation, model
deprecations, as of November 2026. An endpoint that tells its own dates is believed before it.
"""

from __future__ import annotations

from datetime import date, timedelta

from runner.jobs.model_names import plain_name
from runner.messages.model_info import ModelInfo

SOON = timedelta(days=60)  # the notice that the documentation promises

# Announced dates, by plain name. Of other old models only is known how long they stay at least.
RETIRES_ON = {
    "claude-mythos-preview": date(2026, 6, 30),
    "claude-sonnet-4-5": date(2026, 11, 30),
}


def warning(model: str, today: date, info: ModelInfo | None = None) -> str | None:
    """What the user should know of a model's end, in a sentence; None where there is nothing.

    Args:
        info: what the endpoint told, where it told something.
    """
    retires = RETIRES_ON.get(plain_name(model))
    if info is not None:
        retires = info.retires_on or (None if info.deprecated_on is None else retires)
    if retires is not None and retires <= today:
        return f"{model} was retired on {retires}: its calls will fail. Choose another model."
    if retires is not None and retires - today <= SOON:
        return (
            f"{model} retires on {retires}, in {(retires - today).days} days: what is unfinished "
            "then will fail. Choose another model for what is to last."
        )
    if info is not None and info.deprecated_on is not None and info.deprecated_on <= today:
        return (
            f"{model} is deprecated and will be retired. Choose another model for what is to last."
        )
    return None
