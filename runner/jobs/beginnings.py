"""The beginnings of a job's prompt that other jobs may share, each known by a hash.

What the prompt cache keeps is a beginning that ends with a block: tools, then `system`, then the
messages, of one model (Source: Messages API documentation, prompt caching). So a job has one
beginning for each block of its prompt, and two jobs share one where their hashes are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from runner.jobs.spec import JobSpec, canonical_json

# No model caches fewer than 512 tokens, and hardly a text has more than one in three characters.
LEAST_CHARACTERS: Final = 1_500
MOST: Final = 16  # of one job; a prompt of hundreds of blocks would have hundreds
# A picture's or a paper's tokens are not to be told from its data; that it is long enough is.
BLOB_CHARACTERS: Final = 6_000
# Fields that say how to answer or whom to bill, and stand nowhere in the prompt.
_NO_PART: Final = frozenset({"metadata", "service_tier", "temperature", "top_p", "top_k"})


@dataclass(frozen=True, slots=True)
class Beginning:
    """All of a prompt up to the end of one of its blocks.

    Args:
        hash: the same for two jobs of one batch whose prompts begin so, and for no others.
        message: index of the message in which it ends; None: at the end of `system`.
        block: index of the block in it.
        characters: how long it is, roughly.
    """

    hash: bytes
    message: int | None
    block: int
    characters: int


def beginnings(spec: JobSpec) -> tuple[Beginning, ...]:
    """A job's beginnings that are long enough to be cached by some model, shortest first.

    At most `MOST`: the first ones, and the whole prompt.
    """
    if _rough_length(spec) < LEAST_CHARACTERS:
        return ()
    found = [one for one in _all(spec) if one.characters >= LEAST_CHARACTERS]
    return tuple(found if len(found) <= MOST else [*found[: MOST - 1], found[-1]])


def _rough_length(spec: JobSpec) -> int:
    length = LEAST_CHARACTERS if "tools" in spec.params else 0
    if spec.system:
        length += _characters(spec.system)
    for message in spec.messages:
        length += _characters(message.get("content", ""))
    return length


def _characters(content: str | Sequence[Mapping[str, Any]]) -> int:
    return len(content) if isinstance(content, str) else sum(map(block_characters, content))


def _all(spec: JobSpec) -> Iterator[Beginning]:
    head = {key: value for key, value in spec.params.items() if key not in _NO_PART}
    head |= {"model": spec.model, "thinking": spec.thinking, "output_config": spec.output_config}
    text = canonical_json(head)
    state = blake2b(text.encode(errors="surrogatepass"), digest_size=16)
    characters = len(text) if "tools" in head else 0
    if isinstance(spec.system, str):
        characters += len(spec.system)
        state = _after_text(text, spec.system).copy()
        yield Beginning(state.digest(), None, 0, characters)
    else:
        for index, block in enumerate(spec.system or ()):
            _take(state, "system", block)
            characters += block_characters(block)
            yield Beginning(state.digest(), None, index, characters)
    for number, message in enumerate(spec.messages):
        content = message.get("content", "")
        blocks: Sequence[Any] = (
            [{"type": "text", "text": content}] if isinstance(content, str) else content
        )
        for index, block in enumerate(blocks):
            _take(state, str(message.get("role")), block)
            characters += block_characters(block)
            yield Beginning(state.digest(), number, index, characters)


@lru_cache(maxsize=64)
def _after_text(head: str, system: str) -> blake2b:
    """The state behind a `system` that is a text: the jobs of a file often have the very same."""
    state = blake2b(head.encode(errors="surrogatepass"), digest_size=16)
    _take(state, "system", {"type": "text", "text": system})
    return state


def _take(state: blake2b, role: str, block: Mapping[str, Any]) -> None:
    # A breakpoint is no part of what it ends.
    data = canonical_json({k: v for k, v in block.items() if k != "cache_control"})
    state.update(f"{role}:{len(data)}:{data}".encode(errors="surrogatepass"))


def block_characters(block: Mapping[str, Any]) -> int:
    """Characters of a block's text; of a picture or a paper, those that make it long enough."""
    text = block.get("text")
    return len(text) if isinstance(text, str) else BLOB_CHARACTERS
