"""What a working process knows of itself from moment to moment, for whoever draws it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LAST_WORDS = 200  # characters kept of each document being written


@dataclass(slots=True)
class LiveJob:
    """A document that is being written in this process.

    `characters` counts the whole document so far; `last_words` is its end, raw model output:
    whoever shows it must take out control sequences.
    """

    job_id: str
    batch: str
    call_number: int
    characters: int
    last_words: str = ""

    def add(self, text: str) -> None:
        self.characters += len(text)
        self.last_words = (self.last_words + text)[-LAST_WORDS:]


@dataclass(slots=True)
class Progress:
    """Grows while the process works. Read it at any time from the same event loop.

    Args:
        live: documents being written, by job key.
        output_characters: characters streamed in since the start, all jobs together.
        calls: calls sent since the start.
        notices: what the user should know (rate limits, pauses, retries), newest last; drawers
            print each once. `notice_count` only grows, so a reader can tell how many are new.
        stopping: a stop was asked for.
    """

    live: dict[int, LiveJob] = field(default_factory=dict)
    output_characters: int = 0
    calls: int = 0
    notices: deque[str] = field(default_factory=lambda: deque(maxlen=100))
    notice_count: int = 0
    stopping: bool = False

    def notice(self, text: str) -> None:
        self.notices.append(text)
        self.notice_count += 1
