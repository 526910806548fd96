"""What holds once a job was taken over from a worker that comes back later, the zombie."""

from __future__ import annotations

from runner.jobs.spec import JobSpec
from runner.simulator.stream import Gate
from tests.house import House
from tests.strangers import a_stranger
from tests.workers.process import Process


async def both_end(zombie: Process, heir: Process, late: Gate) -> None:
    """Once the zombie knows, the heir's answer goes on, and both come to their ends."""
    await zombie.tells("the lease was lost; going on under a new one")
    late.release()
    await heir.ends()
    await zombie.ends()


async def assert_handed_over_once(house: House, spec: JobSpec) -> None:
    """The document is whole, no text of the zombie stands behind the heir's, and no more was paid
    for twice than the rest of one call."""
    await house.assert_whole(spec)
    with a_stranger(house.database) as stranger:
        claims = stranger.execute(
            "SELECT call.claim FROM chunk JOIN call ON call.key = chunk.call_key ORDER BY chunk.key"
        )
    assert claims == sorted(claims)
    assert {claim for (claim,) in claims} == {1, 2}
    assert house.simulator.books.tokens_generated_twice <= spec.max_tokens
    assert await house.store.workers() == []
