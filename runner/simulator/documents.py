"""The one true document of each prompt, drawn from the prompt's digest and the seed."""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from runner.simulator.markers import Markers
from runner.simulator.prose import Writer
from runner.simulator.request import Request
from runner.simulator.tokens import count_tokens, token_ends, tokens_between

# So long that at 4,096 tokens a call an answer of five stories is cut in the fifth.
STORY_TOKENS = 930
# What the cache of documents may hold: 64 million characters, at most 256 MB.
_CACHE_CHARACTERS = 64_000_000
# Words or tokens before the end from which on sentences come one by one, to meet the length.
_LAST_STRETCH = 200

_NUMBER_WORDS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_STORIES = re.compile(
    rf"\b(\d{{1,3}}|{'|'.join(_NUMBER_WORDS)})\b(?:[\s-]+[\w-]+){{0,4}}?[\s-]+stories\b",
    re.IGNORECASE,
)
_STORY_TAG = re.compile(r"<story_(\d{1,3})>")
_WORDS_WISH = re.compile(
    r"\b(\d[\d,]*)[\s-]*words?\b(\s+(?:each|per story|apiece))?", re.IGNORECASE
)
_EACH_BEFORE = re.compile(r"\beach\b[^.\n]{0,60}$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Document:
    """What one endless answer to a prompt would be.

    Args:
        digest: the prompt's digest, in hexadecimal.
        text: the whole text.
        ends: where each of its tokens ends, as offsets in characters.
        markers: what the prompt tells the simulator to do.
        prompt_tokens: tokens of each of the prompt's blocks.
    """

    digest: str
    text: str
    ends: array[int]
    markers: Markers
    prompt_tokens: tuple[int, ...]

    def input_tokens(self, request: Request) -> list[int]:
        """Tokens of each block of the request."""
        asking = [count_tokens(block.text or "") for block in request.asking_blocks]
        return [*self.prompt_tokens, *self.prefill_tokens(request), *asking]

    def prefill_tokens(self, request: Request) -> list[int]:
        """Tokens of each block of the request's prefill."""
        if not self.text.startswith(request.prefill):
            return [count_tokens(block.text or "") for block in request.prefill_blocks]
        # Where it agrees with the document, its tokens are known already: no need to look again.
        counts, offset = [], 0
        for block in request.prefill_blocks:
            end = offset + len(block.text or "")
            counts.append(tokens_between(self.ends, offset, end))
            offset = end
        return counts


@dataclass(frozen=True, slots=True)
class _Length:
    """A length to write towards: `amount` as `measure` counts it."""

    amount: int
    measure: Callable[[str], int]


class Library:
    """Draws documents, and keeps those asked for last.

    Args:
        seed: another seed gives every prompt another document.
        document_tokens: least and most tokens of a document whose prompt wishes for no length.
    """

    def __init__(self, seed: int, document_tokens: tuple[int, int]) -> None:
        self._seed = seed
        self._range = document_tokens
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._kept_characters = 0

    def document(self, request: Request) -> Document:
        """The true document of a request's prompt."""
        known = self._kept.get(request.digest)
        if known is not None:
            self._kept.move_to_end(request.digest)
            return known
        prompt = request.prompt_text()
        markers = Markers.read(prompt)
        random = Random(f"{self._seed}:{request.digest}")  # noqa: S311 (no secret)
        text = self._write(random, prompt, markers)
        prompt_tokens = tuple(
            block.weight_tokens if block.text is None else count_tokens(block.text)
            for block in request.prompt
        )
        document = Document(request.digest, text, token_ends(text), markers, prompt_tokens)
        self._kept[request.digest] = document
        self._kept_characters += len(text)
        while self._kept_characters > _CACHE_CHARACTERS and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._kept_characters -= len(gone.text)
        return document

    def _write(self, random: Random, prompt: str, markers: Markers) -> str:
        writer = Writer(random)
        stories = _stories_wished(prompt)
        if stories:
            length = _length_wished(prompt, markers, stories) or _Length(STORY_TOKENS, count_tokens)
            return "\n\n".join(_story(writer, n, length) for n in range(1, stories + 1))
        length = _length_wished(prompt, markers, 0) or _Length(
            random.randint(*self._range), count_tokens
        )
        return _essay(writer, random, length)


def _stories_wished(prompt: str) -> int:
    """How many stories in `<story_1>` tags the prompt asks for; 0 where it asks for none."""
    tags = [int(number) for number in _STORY_TAG.findall(prompt)]
    if not tags:
        return 0
    wish = _STORIES.search(prompt)
    if wish is None:
        return max(tags)
    word = wish.group(1).lower()
    return int(word) if word.isdigit() else _NUMBER_WORDS.index(word) + 1


def _length_wished(prompt: str, markers: Markers, stories: int) -> _Length | None:
    """The length the prompt asks for, of each story where there are stories."""
    if markers.tokens is not None:
        return _Length(max(1, markers.tokens // max(1, stories)), count_tokens)
    wish = _WORDS_WISH.search(prompt)
    if wish is None:
        return None
    words = int(wish.group(1).replace(",", ""))
    if stories and not wish.group(2) and not _EACH_BEFORE.search(prompt[: wish.start()]):
        words //= stories
    return _Length(max(1, words), _count_words)


def _count_words(text: str) -> int:
    return len(text.split())


def _story(writer: Writer, number: int, length: _Length) -> str:
    body = "\n\n".join(_blocks(writer, length))
    return f"<story_{number}>\n# {writer.title()}\n\n{body}\n</story_{number}>"


def _essay(writer: Writer, random: Random, length: _Length) -> str:
    parts = [f"# {writer.title()}"]
    for index, block in enumerate(_blocks(writer, length)):
        if index and index % 6 == 0:
            parts.append(f"## {index // 6}. {writer.title()}")
        parts.append(block)
    # Some models end on a line break; whoever strips it must still get it back.
    return "\n\n".join(parts) + random.choice(("", "", "", "\n"))


def _blocks(writer: Writer, length: _Length) -> Iterator[str]:
    """Blocks up to the wished length; the last ones are single sentences, so as to come close."""
    left = length.amount
    while left > 0:
        block = writer.block() if left > _LAST_STRETCH else writer.sentence()
        left -= length.measure(block)
        yield block
