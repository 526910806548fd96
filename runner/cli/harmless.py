"""Text from elsewhere (models, job files, servers) made fit for a terminal.

Such text may hold escape sequences that recolour, retitle or rewrite the screen, and marks that
turn the direction of writing. What is left after this module draws letters and nothing else.
"""

from __future__ import annotations

import re
import sys

# Whole escape sequences go, so that no half of one is left to puzzle a reader. Strings (titles,
# links, clipboards) are taken out only when they end: an unclosed one must not swallow the text.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x06\x0e-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, …
    r"|\x1b[ -/]*[0-~]"  # all others
)

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")

_FORBIDDEN = re.compile(
    "["
    r"\x00-\x08\x0e-\x1f\x7f-\x9f"  # C0 and C1 controls but tab and line ends
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    r"\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # invisible marks
    r"\U000e0000-\U000e0fff"  # tags and other letters that show nothing
    r"\ud800-\udfff"  # lone surrogates cannot be printed at all
    "]"
)


def harmless(text: str) -> str:
    """`text` without anything that steers a terminal; tabs and line ends stay."""
    text = _SEQUENCE.sub("", text)
    text = _LINE_ENDS.sub("\n", text)
    return _FORBIDDEN.sub("", text)


def one_line(text: str) -> str:
    """`text` without anything that steers a terminal, on one line, white space run together."""
    return " ".join(harmless(text).split())


def for_stdout(text: str) -> str:
    """A document as it is when something reads our output, made harmless on a terminal."""
    return harmless(text) if sys.stdout.isatty() else text
