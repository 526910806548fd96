"""A request as the generation sees it, after it was found valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from runner.simulator.models import Model


@dataclass(frozen=True, slots=True)
class Block:
    """One content block, of the system prompt or of a message.

    Args:
        role: `system`, `user` or `assistant`.
        text: the text of a text block; None for other kinds.
        data: what tells this block from others; `cache_control` is no part of it.
        weight_tokens: tokens of a block that is not text.
        cache_ttl_s: how long what ends here is to be cached, in seconds; None for no breakpoint.
    """

    role: str
    text: str | None
    data: bytes
    weight_tokens: int = 0
    cache_ttl_s: int | None = None


@dataclass(frozen=True)
class Request:
    """A valid request to the Messages API.

    Args:
        model_name: the model as the request names it.
        prompt: the blocks before the text so far.
        prefill_blocks: the blocks of the text so far: a trailing assistant message, or the one
            before a user turn that asks to go on; empty where there is none.
        asking_blocks: the blocks of that user turn; empty where there is none.
        anchor: the last words of the text so far that it asks to repeat.
        extra_tokens: input tokens of whatever is not a block, such as tools.
    """

    model: Model
    model_name: str
    max_tokens: int
    stream: bool
    stop_sequences: Sequence[str]
    prompt: Sequence[Block]
    prefill_blocks: Sequence[Block]
    asking_blocks: Sequence[Block] = ()
    anchor: str = ""
    extra_tokens: int = 0

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in order."""
        return (*self.prompt, *self.prefill_blocks, *self.asking_blocks)

    @cached_property
    def prefill(self) -> str:
        """The text so far as the request gives it, its blocks joined with nothing."""
        return "".join(block.text or "" for block in self.prefill_blocks)

    @cached_property
    def digest(self) -> str:
        """What tells this prompt from all others, in hexadecimal."""
        state = blake2b(digest_size=12)
        for block in self.prompt:
            state.update(f"{block.role}:{len(block.data)}:".encode())
            state.update(block.data)
        return state.hexdigest()

    def prompt_text(self) -> str:
        """All text of the prompt."""
        return "\n".join(block.text for block in self.prompt if block.text is not None)
