"""The prompt cache: written only at breakpoints, read at block boundaries.

Source: Messages API documentation, prompt caching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from runner.simulator.models import Model
from runner.simulator.request import Block

_LOOK_BACK_BLOCKS = 20
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class InputUsage:
    """How a request's input is billed, in tokens; `writes` is what it leaves in the cache."""

    input_tokens: int
    creation_5m_tokens: int = 0
    creation_1h_tokens: int = 0
    read_tokens: int = 0
    writes: tuple[tuple[bytes, int], ...] = ()

    @property
    def creation_tokens(self) -> int:
        return self.creation_5m_tokens + self.creation_1h_tokens

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.creation_tokens + self.read_tokens


@dataclass(slots=True)
class _Entry:
    expires_s: float
    ttl_s: int


class PromptCache:
    """What earlier requests have left behind, by the digest of everything up to a breakpoint."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._sweep_at = 1024

    def bill(
        self, model: Model, blocks: Sequence[Block], tokens: Sequence[int], extra: int, now_s: float
    ) -> InputUsage:
        """Look a request up and say how its input is billed; `keep` then leaves its entries.

        Args:
            blocks: all content blocks in order; `tokens` has the tokens of each.
            extra: tokens that stand before all blocks, such as tools.
            now_s: a monotonic clock, in seconds.
        """
        total = extra + sum(tokens)
        breakpoints = [i for i, block in enumerate(blocks) if block.cache_ttl_s is not None]
        if not breakpoints:
            return InputUsage(total)
        digests, sums = _prefixes(model, blocks, tokens, extra)
        hit = self._longest_hit(breakpoints, digests, now_s)
        read = sums[hit] if hit >= 0 else 0
        billed, created = read, {False: 0, True: 0}
        writes = []
        for index in breakpoints:
            ttl_s = blocks[index].cache_ttl_s
            if ttl_s is None or sums[index] < model.cache_minimum_tokens:
                continue
            writes.append((digests[index], ttl_s))
            if index > hit:
                created[ttl_s == _HOUR_S] += sums[index] - billed
                billed = sums[index]
        return InputUsage(total - billed, created[False], created[True], read, tuple(writes))

    def keep(self, usage: InputUsage, now_s: float) -> None:
        """Leave a request's entries behind, as happens when its answer begins."""
        for digest, ttl_s in usage.writes:
            self._entries[digest] = _Entry(now_s + ttl_s, ttl_s)
        self._sweep(now_s)

    def _longest_hit(self, breakpoints: list[int], digests: list[bytes], now_s: float) -> int:
        for index in reversed(breakpoints):
            for place in range(index, max(-1, index - _LOOK_BACK_BLOCKS), -1):
                entry = self._entries.get(digests[place])
                if entry is not None and entry.expires_s > now_s:
                    entry.expires_s = now_s + entry.ttl_s
                    return place
        return -1

    def _sweep(self, now_s: float) -> None:
        if len(self._entries) < self._sweep_at:
            return
        self._entries = {k: e for k, e in self._entries.items() if e.expires_s > now_s}
        self._sweep_at = max(1024, 2 * len(self._entries))


def _prefixes(
    model: Model, blocks: Sequence[Block], tokens: Sequence[int], extra: int
) -> tuple[list[bytes], list[int]]:
    """Digest and tokens of everything up to and including each block."""
    state = blake2b(f"{model.id}:{extra}".encode(), digest_size=16)
    digests, sums, running = [], [], extra
    for block, count in zip(blocks, tokens, strict=True):
        state.update(f"{block.role}:{len(block.data)}:".encode())
        state.update(block.data)
        running += count
        digests.append(state.copy().digest())
        sums.append(running)
    return digests, sums
