"""Joins the reply to a `turn` to the document: finds the anchor, takes it off, gives a verdict.

The reply was asked to begin with the anchor, the document's last words. Text is held back until it
is known where the reply takes the document up:

- the anchor stands in it, as it is or up to white space, quotation marks and Unicode form, and
  before it stands nothing but an opening ("Sure, here is the rest:"), a code fence, or a literal
  repeat of what stands before the anchor in the document: all that is taken off, `aligned`;
- there is no anchor, but the reply's opening is literally the document's end: `overlap`;
- else nobody can tell. The reply is rejected, or let in as `unverified` where the caller says so.

Nothing else is ever taken off, so choruses, table rows and "0, 0, 0" stay as the model wrote them.
"""

from __future__ import annotations

import re
from enum import Enum

from runner.continuation.anchor import RECENT, Anchor
from runner.continuation.likeness import Plain, plain
from runner.continuation.text import Intake
from runner.jobs.call import Verdict

OPENING = 300  # plain characters allowed before the anchor that are no repeat
MIN_OVERLAP = 24  # characters that a reply and the document's end share by no accident
RESTART = 60  # plain characters that a reply shares with the document's beginning by no accident
_LOOK_EVERY = 16  # characters: looking at each small piece would cost the square of their number
_AFTER = 16  # characters wanted behind the anchor: a closing mark or tag may follow it

_OPENERS = re.compile(
    r"(sure|certainly|of course|absolutely|okay|ok|yes|right|understood|here|continuing|continued"
    r"|resuming|picking up|apologies|sorry|my apologies|i apologi[sz]e|i'll|i will|let me|let's"
    r"|as requested|no problem|\(?\[?continu)\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```[\w+-]*")
_WRAPPERS = {'"': '"', "'": "'", "`": "`", "**": "**", "*": "*", "<last_words>": "</last_words>"}
_LEAD_IN = re.compile(r"(\.\.\.|\[\.\.\.\]|<last_words>|[\"'`*>\s])+\Z")


class _Wait(Enum):
    """The answer to "where does it join?" while more of the reply could change it."""

    WAIT = "wait"


class TurnSplice:
    """The splice of one `turn` call.

    Args:
        before: the document up to the resume point, at least its recent text; ends in the anchor.
        beginning: the document's first characters, by which a restart is known.
        glue: put between the document and a reply that is let in without a seam.
        accept_unverified: let in a reply whose seam nobody can tell, instead of rejecting it.
    """

    def __init__(
        self,
        before: str,
        anchor: Anchor,
        *,
        beginning: str,
        glue: str = " ",
        accept_unverified: bool = False,
    ) -> None:
        self.verdict: Verdict | None = None
        self.rejected: str | None = None
        self._recent = before[-RECENT:]
        self._recent_plain = plain(self._recent).text
        self._anchor = plain(anchor.text).text
        self._unique = anchor.unique
        self._beginning = plain(beginning[: 4 * RESTART]).text
        self._glue = glue
        self._accept_unverified = accept_unverified
        self._intake = Intake()
        self._held = ""
        self._looked_at = 0  # characters held when they were last looked at

    def feed(self, piece: str) -> str:
        """The text to save now."""
        return self._take(self._intake.feed(piece), over=False, cut=False)

    def end(self, *, cut: bool) -> str:
        """The text to save when the stream is over."""
        return self._take(self._intake.end(cut=cut), over=True, cut=cut)

    def _take(self, text: str, *, over: bool, cut: bool) -> str:
        if self.verdict is not None:
            return text
        if self.rejected is not None:
            self.rejected += text
            return ""
        self._held += text
        if not over and len(self._held) - self._looked_at < _LOOK_EVERY:
            return ""
        self._looked_at = len(self._held)
        return self._decide(over=over, cut=cut)

    def _decide(self, *, over: bool, cut: bool) -> str:
        seen = plain(self._held)
        joint = self._behind_anchor(seen, over=over)
        if joint is _Wait.WAIT:
            return ""
        if joint is not None:
            return self._join(Verdict.ALIGNED, self._held[joint:])
        restarted = self._restarted(seen.text)
        if not restarted and (cut or not over) and self._may_still_come(seen.text):
            return ""  # a cut reply that never came to the anchor says nothing about the seam
        overlap = self._overlap()
        if overlap is not None:
            return self._join(Verdict.OVERLAP, self._held[overlap:])
        if self._accept_unverified and not restarted and self._held.strip():
            return self._join(Verdict.UNVERIFIED, self._glued())
        self.rejected, self._held = self._held, ""
        return ""

    def _join(self, verdict: Verdict, text: str) -> str:
        self.verdict, self._held = verdict, ""
        return text

    def _behind_anchor(self, seen: Plain, *, over: bool) -> int | _Wait | None:
        """The offset in the reply at which what is new begins."""
        at = seen.text.find(self._anchor)
        while at >= 0:
            end = at + len(self._anchor)
            before = seen.text[:at]
            if self._may_stand_before(before) and _ends_a_character(seen, end):
                if len(seen.text) - end < _AFTER and not over:
                    return _Wait.WAIT
                return self._without_closing(before, seen.ends[end - 1])
            at = seen.text.find(self._anchor, at + 1)
        return None

    def _may_stand_before(self, before: str) -> bool:
        """Whether what stands before the anchor in a reply can be taken off."""
        rest = _LEAD_IN.sub("", before).strip()
        if not rest:
            return True
        if not self._unique:
            return False  # it might be an earlier place that reads the same
        if self._is_repeat_or_fence(rest) or self._is_repeat_or_fence(before.strip()):
            return True
        if not _OPENERS.match(rest):
            return False
        ends = [m.end() for m in re.finditer(r"[:.!\u2014-](?=\s|$)", rest) if m.end() <= OPENING]
        return any(
            self._is_repeat_or_fence(rest[end:].strip())
            or self._is_repeat_or_fence(before.strip()[end:].strip())
            for end in ends
        )

    def _is_repeat_or_fence(self, rest: str) -> bool:
        if not rest or _FENCE.fullmatch(rest):
            return True
        fence = _FENCE.match(rest)
        repeat = rest[fence.end() :].strip() if fence else rest
        document = self._recent_plain.removesuffix(self._anchor).rstrip()
        return document.endswith(repeat)

    def _without_closing(self, before: str, joint: int) -> int:
        """Past a closing mark, where an opening one stood before the anchor."""
        after = self._held[joint:]
        for opening, closing in _WRAPPERS.items():
            if before.endswith(opening) and after.startswith(closing):
                return joint + len(closing)
        return joint

    def _restarted(self, seen: str) -> bool:
        start = seen.lstrip()[:RESTART]
        return (
            len(start) == RESTART
            and self._beginning.startswith(start)
            and start not in self._recent_plain
        )

    def _may_still_come(self, seen: str) -> bool:
        """Whether the anchor may still appear: the opening is short, or repeats the document."""
        if len(seen) < OPENING + len(self._anchor):
            return True
        at = self._recent_plain.find(seen.lstrip()[:RESTART])
        return at >= 0 and self._recent_plain[at:].startswith(seen.strip())

    def _overlap(self) -> int | None:
        """How much of the reply's opening is literally the document's end."""
        reply = self._held.lstrip()
        skipped = len(self._held) - len(reply)
        longest = min(len(reply), len(self._recent))
        fits = [n for n in range(1, longest + 1) if self._recent.endswith(reply[:n])]
        long_fits = [n for n in fits if n >= MIN_OVERLAP]
        # Where a shorter piece fits as well, the text goes in circles, and how much of it is a
        # repeat cannot be told.
        if len(long_fits) != 1 or any(8 <= n < long_fits[0] for n in fits):
            return None
        return skipped + long_fits[0]

    def _glued(self) -> str:
        """The joining rule where no seam was found: the white space that stood at the cut, else a
        space, unless the reply brings its own or begins with a mark that wants none."""
        if self._held[:1].isspace() or self._held[:1] in ",.;:!?)]}”’":
            return self._held
        return self._glue + self._held


def _ends_a_character(seen: Plain, end: int) -> bool:
    return end == len(seen.text) or seen.ends[end - 1] != seen.ends[end]
