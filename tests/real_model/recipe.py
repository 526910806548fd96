"""The files and commands of docs/real-model.md, as a reader would copy them."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "real-model.md"


def block(kind: str, name: str) -> str:
    """The fenced block that follows the comment `<!-- kind: name -->`."""
    marker = re.escape(f"<!-- {kind}: {name} -->")
    found = re.search(rf"{marker}\n```\w+\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{PAGE.name} has no block {kind}: {name}"
    return found[1]
