"""Clients that read every stream in turns, however few there are."""

from __future__ import annotations

from functools import partial

import httpx2
import pytest

from runner.messages.packets import Packets, packets_of
from runner.messages.rhythm import Rhythm

TURN_S = 0.01


def every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on clients read in turns from the first packet on."""

    def gathering(
        response: httpx2.Response, read_timeout_s: float, _: float, rhythm: Rhythm
    ) -> Packets:
        return packets_of(response, read_timeout_s, gather_s=1, rhythm=rhythm)

    rhythm = partial(Rhythm, every_s=TURN_S, crowd=1, plain_s=0)
    monkeypatch.setattr("runner.messages.client.Rhythm", rhythm)
    monkeypatch.setattr("runner.messages.client.packets_of", gathering)
