"""Prices of models: every row typed in by hand from the price list, none taken from the package."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from runner.jobs.price import Rates, nano_usd
from runner.messages import prices
from runner.messages.prices import price_of

ANTHROPIC = "https://api.anthropic.com"
SIMULATED = "http://127.0.0.1:41234"
DAY = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)

# USD a million tokens: input, output, cache write for 5 minutes and for an hour, cache read.
PRICE_LIST = {
    "claude-fable-5-2": ("8", "40", "10", "16", "0.2"),
    "claude-mythos-5-2": ("8", "40", "10", "16", "0.2"),
    "claude-fable-5-1": ("10", "50", "12.5", "20", "0.25"),
    "claude-opus-5-5": ("4", "20", "5", "8", "0.2"),
    "claude-opus-5": ("5", "25", "6.25", "10", "0.5"),
    "claude-opus-4-8": ("5", "25", "6.25", "10", "0.5"),
    "claude-opus-4-7": ("5", "25", "6.25", "10", "0.5"),
    "claude-opus-4-6": ("5", "25", "6.25", "10", "0.5"),
    "claude-sonnet-5-5": ("2", "10", "2.5", "4", "0.1"),
    "claude-sonnet-5": ("2", "10", "2.5", "4", "0.2"),
    "claude-sonnet-4-6": ("3", "15", "3.75", "6", "0.3"),
    "claude-haiku-5-5": ("0.1", "0.5", "0.125", "0.2", "0.01"),
    "claude-opus-4-5": ("5", "25", "6.25", "10", "0.5"),
    "claude-sonnet-4-5": ("3", "15", "3.75", "6", "0.3"),
    "claude-haiku-4-5": ("1", "5", "1.25", "2", "0.1"),
}


def rates(*usd: str) -> Rates:
    return Rates(*map(nano_usd, usd))


def known(model: str, base_url: str = ANTHROPIC, *, at: datetime = DAY, speed: str | None = None):
    price = price_of(model, base_url=base_url, at=at, own={}, speed=speed)
    assert price is not None
    return price


@pytest.mark.parametrize("base_url", [ANTHROPIC, SIMULATED])
@pytest.mark.parametrize("model", PRICE_LIST)
def test_every_model_costs_what_the_price_list_says(model: str, base_url: str) -> None:
    assert known(model, base_url).rates(50_000) == rates(*PRICE_LIST[model])


def test_a_long_prompt_makes_the_whole_call_dearer() -> None:
    price = known("claude-haiku-5-5")
    assert price.rates(100_000) == rates("0.1", "0.5", "0.125", "0.2", "0.01")
    assert price.rates(100_001) == rates("0.5", "2.5", "0.625", "1", "0.05")
    price = known("claude-sonnet-4-5")
    assert price.rates(200_000) == rates(*PRICE_LIST["claude-sonnet-4-5"])
    assert price.rates(200_001) == rates("6", "22.5", "7.5", "12", "0.6")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-opus-4-5-20251101", "claude-opus-4-5"),
        ("claude-haiku-4-5-latest", "claude-haiku-4-5"),
        ("claude-haiku-5-5-latest", "claude-haiku-5-5"),
        ("claude-opus-5-5-20260820", "claude-opus-5-5"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("claude-sonnet-4-6[1m]", "claude-sonnet-4-6"),
        ("Claude-Haiku-4-5", "claude-haiku-4-5"),
    ],
)
def test_dated_names_and_aliases_cost_the_same(name: str, model: str) -> None:
    assert known(name) == known(model)


def test_the_price_is_that_of_the_calls_day() -> None:
    # Until 12 March 2026 a prompt beyond 200,000 tokens was dearer, since the 13th it is not.
    before = known("claude-opus-4-6", at=datetime(2026, 3, 12, 23, 59, tzinfo=UTC))
    since = known("claude-opus-4-6", at=datetime(2026, 3, 13, 0, 0, tzinfo=UTC))
    assert before.rates(200_001) == rates("10", "37.5", "12.5", "20", "1")
    assert since.rates(200_001) == rates("5", "25", "6.25", "10", "0.5")


def test_fast_mode_has_a_price_of_its_own_and_an_unknown_speed_none() -> None:
    assert known("claude-opus-5-5", speed="fast").base == rates("8", "40", "10", "16", "0.4")
    assert known("claude-opus-5-5", speed="standard") == known("claude-opus-5-5")
    for model, speed in (("claude-opus-5-5", "warp"), ("claude-haiku-4-5", "fast")):
        assert price_of(model, base_url=ANTHROPIC, at=DAY, own={}, speed=speed) is None


@pytest.mark.parametrize(
    "model", ["local-llama", "claude-nova-9", "gpt-5", "", "claude", "qwen3:8b"]
)
@pytest.mark.parametrize("base_url", [ANTHROPIC, SIMULATED, "not a url"])
def test_an_unknown_price_is_none(model: str, base_url: str) -> None:
    assert price_of(model, base_url=base_url, at=DAY, own={}) is None


def test_a_seller_with_prices_of_its_own_is_known_by_its_address() -> None:
    price = known("anthropic/claude-sonnet-4.5", "https://openrouter.ai/api")
    assert (price.base.input, price.base.output) == (nano_usd("3"), nano_usd("15"))


def test_the_job_files_own_price_goes_first() -> None:
    own = {"claude-haiku-4-5": rates("7", "8", "9", "10", "11"), "local-llama": rates(*"12345")}
    for model in own:
        price = price_of(model, base_url=ANTHROPIC, at=DAY, own=own)
        assert price is not None
        assert price.rates(10**9) == own[model]


def test_a_price_is_looked_up_once_a_model_and_day(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = []
    real = prices._info
    monkeypatch.setattr(prices, "_info", lambda *of: looked_up.append(of) or real(*of))
    prices._known.cache_clear()
    for minute in range(60):
        at = datetime(2026, 11, 22, 3, minute, tzinfo=UTC)
        price_of("claude-haiku-4-5", base_url=SIMULATED, at=at, own={})
        price_of("local-llama", base_url=SIMULATED, at=at, own={})
    assert len(looked_up) == 2


def test_nothing_goes_online(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a price was asked for online")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    prices._known.cache_clear()
    known("claude-haiku-4-5")


@pytest.mark.parametrize("module", ["runner.messages.prices", "runner.cli.status"])
def test_the_price_data_is_loaded_only_when_a_price_is_asked_for(module: str) -> None:
    code = f"import sys, {module}; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
