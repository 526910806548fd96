"""Reads what a job file says of its batch: `limits` and `prices`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runner.jobs.fields import MAX_OUTPUT_TOKENS, check_keys
from runner.jobs.price import Rates, nano_usd
from runner.jobs.problems import Path, Report, quoted
from runner.jobs.spec import BatchLimits, Budget, Json
from runner.jobs.values import check_int, check_mapping, check_model, check_money, check_one_of

MAX_CONCURRENCY: Final = 1_000  # connections the client keeps
MAX_ATTEMPTS: Final = 1_000
MAX_A_MINUTE: Final = 1_000_000_000

_RATES = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
_WHOLE: Final = {  # the least and the most
    "concurrency": (1, MAX_CONCURRENCY),
    "max_attempts": (1, MAX_ATTEMPTS),
    "max_output_tokens": (1, MAX_OUTPUT_TOKENS * 1_000),
}
_MONEY: Final = {"max_cost_usd": "max_cost_nano_usd", "confirm_above_usd": "confirm_above_nano_usd"}
MAX_PRICE_USD = 1_000_000  # a million tokens: a dollar a token, and sums still fit into 64 bits

# What the prompt cache costs where a price does not say it, of the input's price.
# Source: Messages API documentation, prompt caching.
_CACHE: Final = {"cache_write_5m": 1.25, "cache_write_1h": 2.0, "cache_read": 0.1}


def read_limits(value: Json, report: Report) -> BatchLimits:
    """The batch's limits; what is wrong is reported, by paths that begin with `limits`."""
    path: Path = ("limits",)
    if not check_mapping(value, report, path):
        return BatchLimits()
    check_keys(value, "`limits`", report, path)
    read: dict[str, Json] = {}
    for key, (least, most) in _WHOLE.items():
        if key in value and check_int(value[key], report, (*path, key), least, most):
            read[key] = value[key]
    for key in _RATES:
        auto = value.get(key, "auto") == "auto"
        if not auto and check_int(
            value[key], report, (*path, key), 1, MAX_A_MINUTE, or_else="`auto`"
        ):
            read[key] = value[key]
    for key, field in _MONEY.items():
        zero = key == "confirm_above_usd"  # asked before anything that costs something
        if key in value and check_money(value[key], report, (*path, key), zero=zero):
            read[field] = nano_usd(value[key])
    if "budget" in value and check_one_of(
        value["budget"], report, (*path, "budget"), tuple(Budget)
    ):
        read["budget"] = Budget(value["budget"])
    if "breaker" in value:
        read["breaker"] = _on_or_off(value["breaker"], report, (*path, "breaker"))
    here = (*path, "concurrency_by_model")
    by_model = value.get("concurrency_by_model", {})
    if check_mapping(by_model, report, here):
        for model, number in by_model.items():
            check_model(model, report, (*here, model))
            check_int(number, report, (*here, model), 1, MAX_CONCURRENCY)
        read["concurrency_by_model"] = dict(by_model)
    return BatchLimits(**read)


def read_prices(value: Json, report: Report) -> dict[str, Rates]:
    """Prices by model; what is wrong is reported, by paths that begin with `prices`."""
    path: Path = ("prices",)
    prices: dict[str, Rates] = {}
    if not check_mapping(value, report, path):
        return prices
    for model, given in value.items():
        here = (*path, model)
        check_model(model, report, here)
        if not check_mapping(given, report, here):
            continue
        check_keys(given, "a price", report, here)
        before = report.count
        for key in ("input", "output"):
            if key not in given:
                fix = f"Write `{key}: …`, in dollars a million tokens."
                report(here, f"the price of {quoted(model)} lacks `{key}`", fix)
        for key, amount in given.items():
            check_money(amount, report, (*here, key), zero=True, most=MAX_PRICE_USD)
        if report.count == before:
            prices[model] = _rates(given)
    return prices


def _rates(given: Mapping[str, Json]) -> Rates:
    """Nano-dollars a million tokens out of dollars a million tokens."""
    for_input = nano_usd(given["input"])
    cache = {
        key: nano_usd(given[key]) if key in given else round(for_input * part)
        for key, part in _CACHE.items()
    }
    return Rates(input=for_input, output=nano_usd(given["output"]), **cache)


def _on_or_off(value: Json, report: Report, path: Path) -> bool:
    if not isinstance(value, bool) and value not in ("on", "off"):
        report(path, f"this is {quoted(value)}", "Write `on` or `off`.")
    return value in (True, "on")
