"""A request's body as it goes over the wire: encoded once, in one piece."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson


def encoded(fields: Mapping[str, Any]) -> bytes:
    """A request's fields as JSON.

    A long document goes out again with each of its calls, so this is work for a fast encoder.

    Raises:
        UnicodeEncodeError: a lone half of a surrogate pair stands in it.
    """
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:
        # A number that is too long for it, or text that is no Unicode: the slow one takes the
        # first, and says of the second what is wrong.
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
