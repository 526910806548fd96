"""The most tokens that a request's input can come to, before the API has counted it.

A budget is kept by what a call may cost at most, so this is a bound and no estimate.

Sources: Messages API documentation, token counting and vision (a picture is scaled down to at most
3.75 megapixels, at 750 pixels a token). A token stands for one byte of text at least: what a
tokenizer has no word for, it writes byte by byte.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

# What stands around texts and says who speaks: a handful of tokens, taken generously.
REQUEST_TOKENS: Final = 100
BLOCK_TOKENS: Final = 10
PICTURE_TOKENS: Final = 6_000
# The API explains a required form to the model in words of its own.
FORM_TOKENS: Final = 2_000

# Fields that are no part of the prompt.
_APART: Final = frozenset({"model", "max_tokens", "stream", "metadata", "stop_sequences"})


_TEXT_BLOCK_TOKENS: Final = BLOCK_TOKENS + sum(map(len, ("type", "text", "text")))
# With the usual kind first: asking for the abstract one takes several times as long.
_MAPPING: Final = (dict, Mapping)
_SEQUENCE: Final = (list, tuple)


def most_input_tokens(body: Mapping[str, Any]) -> int | None:
    """The most tokens that the input of a request can come to.

    None where its length does not tell: a paper, or a file that is named and not held. Then the
    model's context window is the bound, for the API answers nothing longer.

    Args:
        body: the request, in the API's form.
    """
    total = REQUEST_TOKENS
    for key, value in body.items():
        if key in _APART:
            continue
        tokens = _most(value)
        if tokens is None:
            return None
        total += tokens
    output_config = body.get("output_config")
    if isinstance(output_config, Mapping) and "format" in output_config:
        total += FORM_TOKENS
    return total


def most_text_tokens(text: str) -> int:
    """The most tokens that a text can come to."""
    if text.isascii():
        return len(text)
    most = len(text.encode(errors="surrogatepass"))
    if not unicodedata.is_normalized("NFKC", text):
        # A tokenizer may do so first, and one character can then become eighteen.
        most = max(most, len(unicodedata.normalize("NFKC", text).encode(errors="surrogatepass")))
    return most


def _most(value: Any) -> int | None:
    if isinstance(value, str):
        return most_text_tokens(value)
    if isinstance(value, _MAPPING):
        if len(value) == 2 and value.get("type") == "text" and isinstance(value.get("text"), str):
            # The same as below, at once: a request has a block for each call of its document.
            return _TEXT_BLOCK_TOKENS + most_text_tokens(value["text"])
        kind, source = value.get("type"), value.get("source")
        if kind == "image":
            return PICTURE_TOKENS
        if isinstance(source, Mapping) and source.get("type") not in ("text", "content"):
            return None
        return _sum([BLOCK_TOKENS, *map(_most, value.keys()), *map(_most, value.values())])
    if isinstance(value, _SEQUENCE):
        return _sum(map(_most, value))
    return len(json.dumps(value))  # a number, or one of JSON's three words


def _sum(parts: Any) -> int | None:
    total = 0
    for part in parts:
        if part is None:
            return None
        total += part
    return total
