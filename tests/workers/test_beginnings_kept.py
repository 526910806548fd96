"""What a worker keeps of shared beginnings does not grow with the queue."""

from __future__ import annotations

import pytest

from runner.jobs.beginnings import beginnings
from runner.jobs.spec import JobSpec
from runner.store.prefixes import SharedPrefix
from runner.workers import beginnings as rooms
from runner.workers.beginnings import Beginnings

pytestmark = pytest.mark.anyio


class Told:
    """A store in which every beginning is shared by two jobs, and more than are read at once."""

    async def shared_prefixes(self, batch_key, hashes=None, *, limit=None):  # noqa: ARG002
        if hashes is None:
            return [SharedPrefix(b"%d" % n, 2, 0, 0) for n in range(limit)]
        return [SharedPrefix(one, 2, 0, 0) for one in hashes]


def spec(number: int) -> JobSpec:
    message = {"role": "user", "content": f"{number} " * 2_000}
    return JobSpec(f"j{number}", "m", (message,))


async def test_beginnings_that_nobody_uses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "KNOWN_AT_ONCE", 3)
    monkeypatch.setattr(rooms, "MOST_KEPT", 50)
    home = Beginnings(Told(), now_ms=lambda: 1_000)  # type: ignore[arg-type]
    await home.of(1, spec(0))  # finds out that there are more than are read at once
    first = await home.of(1, spec(0))
    assert first == beginnings(spec(0))
    kept = home._batches[1].prefixes
    used, warm = first[0].hash, (await home.of(1, spec(1)))[0].hash
    kept[used].present = 1
    kept[warm].warm_until_ms = 10**9
    for number in range(2, 300):
        assert await home.of(1, spec(number)) == beginnings(spec(number))
        assert len(kept) <= 60
    assert {used, warm} <= kept.keys()
    # One that was forgotten between two steps of a job is as good as not known yet.
    gone = beginnings(spec(2))[0].hash
    assert gone not in kept
    home.begun(1, [gone])
