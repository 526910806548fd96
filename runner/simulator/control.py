"""Which options may change while a simulator runs, and what they may become."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runner.simulator.behaviours import BehaviourPlan
from runner.simulator.faults import FaultPlan
from runner.simulator.options import SimulatorOptions

_WHOLE = (
    "requests_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "ramp_requests_per_minute",
    "spend_cap_tokens",
    "own_limit_tokens",
    "retry_after_s",
    "tokens_per_event",
)
_NUMBERS = ("burst_s", "overloaded_s", "tokens_per_second", "first_token_s", "slow_start_s")
_CHANCES = ("faults", "behaviours")
CHANGEABLE = (*_WHOLE, *_NUMBERS, *_CHANCES)
_POSITIVE = frozenset({"tokens_per_event", "burst_s"})


def changed(options: SimulatorOptions, changes: Mapping[str, Any]) -> SimulatorOptions:
    """The options with these changes.

    Raises:
        ValueError: one of them has no such name, may not change, or cannot be that.
    """
    for name, value in changes.items():
        if name not in CHANGEABLE:
            raise ValueError(
                f"{name!r} cannot change while it runs. What can: {', '.join(CHANGEABLE)}."
            )
        if name in _CHANCES:
            _check_chances(name, value)
        else:
            _check_number(name, value)
    new = replace(options, **changes)
    # Their names are checked by those who know them.
    FaultPlan(new.faults, new.fault_script)
    BehaviourPlan(new.behaviours)
    return new


def _check_number(name: str, value: object) -> None:
    kinds = int if name in _WHOLE else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is no {'whole ' if name in _WHOLE else ''}number.")
    if value < 0 or (value == 0 and name in _POSITIVE):
        raise ValueError(f"{name}: {value} is too small.")


def _check_chances(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: an object with names and probabilities is wanted.")  # noqa: TRY004
    for key, chance in value.items():
        if isinstance(chance, bool) or not isinstance(chance, (int, float)) or not 0 <= chance <= 1:
            raise ValueError(f"{name}: {key}: a probability is a number from 0 to 1.")
