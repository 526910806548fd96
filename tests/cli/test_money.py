"""Money for people."""

from __future__ import annotations

import pytest

from runner.cli.money import cost_cell, cost_words, dollars
from runner.jobs.price import nano_usd


@pytest.mark.parametrize(
    ("usd", "told"),
    [
        ("0", "$0.00"),
        ("1234.567", "$1,234.57"),
        ("10", "$10.00"),
        ("9.87654", "$9.8765"),
        ("0.1", "$0.1000"),
        ("0.0123456", "$0.012346"),
        ("0.000000001", "<$0.000001"),
        ("-0.5", "-$0.5000"),
    ],
)
def test_small_sums_have_small_change(usd: str, told: str) -> None:
    assert dollars(nano_usd(usd)) == told


def test_beside_large_sums_there_is_none() -> None:
    assert dollars(nano_usd("0.0123"), like=nano_usd(25)) == "$0.01"
    assert dollars(nano_usd("0.0000123"), like=nano_usd(25)) == "<$0.01"
    assert dollars(nano_usd(3), estimated=True, like=nano_usd(25)) == "~$3.00"


def test_an_unknown_price_is_never_nothing() -> None:
    assert cost_words(0, 12) == "price unknown: 12 calls"
    assert cost_words(nano_usd(2), 1) == "$2.0000 (price unknown: 1 call)"
    assert cost_words(0, 0) == "$0.00"
    assert (cost_cell(0, 3), cost_cell(0, 0)) == ("unknown", "$0.00")
