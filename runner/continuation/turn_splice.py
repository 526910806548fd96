"""Joins the reply to a `turn` to the document: finds the anchor, takes it off, gives a verdict.

The reply was asked to begin with the anchor, the document's last words. Text is held back until it
is known where the reply takes the document up:

- the anchor stands in it, as it is or up to white space, quotation marks and Unicode form, and
  before it stands nothing but an opening ("Sure, here is the rest:"), a code fence, or a literal
  repeat of what stands before the anchor in the document: all that is taken off, `aligned`;
- there is no anchor, but the reply's opening is literally the document's end: `overlap`;
- else nobody can tell. The reply is rejected, or let in as `unverified` where the caller says so.
  So is a reply to an anchor that stands in the document more than once: which of the places the
  reply means cannot be told. It is taken to do as it was asked.

Nothing else is ever taken off, so choruses, table rows and "0, 0, 0" stay as the model wrote them.
"""

from __future__ import annotations

import re
from enum import Enum

from runner.continuation.anchor import RECENT, Anchor
from runner.continuation.likeness import Plain, goes_round, plain
from runner.continuation.text import REPLACEMENT, Intake
from runner.jobs.call import Verdict

OPENING = 300  # plain characters allowed before the anchor that are no repeat
MIN_OVERLAP = 24  # characters that a reply and the document's end share by no accident
_NO_ACCIDENT = 8  # characters that stand at both ends of a repeat by no accident
RESTART = 60  # plain characters that a reply shares with the document's beginning by no accident
_LOOK_EVERY = 16  # characters: looking at each small piece would cost the square of their number
_ENDS = "\n.!?"
_AFTER = 16  # characters wanted behind the anchor: a closing mark or tag may follow it

# An opening is a courtesy, or a sentence that speaks of going on. Other sentences may begin with
# the same words and belong to the document ("Right, he said."), so those stay.
_COURTESY = re.compile(
    r"(sure|certainly|of course|absolutely|okay|ok|yes|right|understood|got it|apologies|sorry"
    r"|my apologies|no problem|happy to)( thing)?\W*",
    re.IGNORECASE,
)
_SPEAKS = re.compile(
    r"\W*((sure|certainly|of course|absolutely|okay|ok|yes|right|understood|sorry|apologies)\b\W*)?"
    r"(continu(ing|ation|ed)|resuming|picking up|carrying on|going on|here('s| is| are| it)"
    r"|i('ll| will| apologi[sz]e)|i am|i'm|let me|let's|as (requested|asked)|below|this is)\b.*",
    re.IGNORECASE,
)
_OF_GOING_ON = re.compile(
    r"\b(continu\w*|resum\w+|rest of|remainder|remaining|left off|leave off|pick(ing)? up|go(ing)? on"
    r"|carry(ing)? on|cut off|interrupt\w*|last words|where (it|i|we|you) (stop|end|broke)\w*)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[\w\s,;'\"()\[\]…-]*[:.!?\u2014]+[)\]]?(?=\s|$)\s*")
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
        gap: what stood behind the resume point: white space, and maybe half a word.
        accept_unverified: let in a reply whose seam nobody can tell, instead of rejecting it.
        accept_ambiguous: let in, as unverified, a reply to an anchor that is not unique: asking
            again would not help.
    """

    def __init__(
        self,
        before: str,
        anchor: Anchor,
        *,
        beginning: str,
        gap: str = "",
        accept_unverified: bool = False,
        accept_ambiguous: bool = True,
    ) -> None:
        self.verdict: Verdict | None = None
        self.rejected: str | None = None
        self._recent = before[-RECENT:]
        self._recent_plain = plain(self._recent).text
        self._anchor = plain(anchor.text).text
        self._unique = anchor.unique
        self._beginning = plain(beginning[: 4 * RESTART]).text
        self._gap = gap[: len(gap) - len(gap.lstrip())]
        self._half_word = gap[len(self._gap) :].strip(REPLACEMENT)
        self._accept_unverified = accept_unverified
        self._accept_ambiguous = accept_ambiguous
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
        if joint is not None and self._unique:
            return self._join(Verdict.ALIGNED, self._with_white_space(self._held[joint:]))
        if joint is not None and self._accept_ambiguous:
            return self._join(Verdict.UNVERIFIED, self._with_white_space(self._held[joint:]))
        restarted = self._restarted(seen.text)
        if not restarted and (cut or not over) and self._may_still_come(seen.text):
            return ""  # a cut reply that never came to the anchor says nothing about the seam
        overlap = None if restarted else self._overlap()
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
                joint = self._without_closing(before, seen.end(end - 1))
                if len(self._held[joint:].strip()) < _AFTER + len(self._half_word) and not over:
                    return _Wait.WAIT
                if self._parts_words(joint):
                    return joint
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
        return any(
            self._is_repeat_or_fence(rest[end:].strip())
            or self._is_repeat_or_fence(before.strip()[end:].strip())
            for end in _opening_ends(rest)
        )

    def _is_repeat_or_fence(self, rest: str) -> bool:
        if not rest or _FENCE.fullmatch(rest):
            return True
        fence = _FENCE.match(rest)
        repeat = rest[fence.end() :].strip() if fence else rest
        document = self._recent_plain.removesuffix(self._anchor).rstrip()
        return document.endswith(repeat) and not goes_round(
            self._recent_plain, f"{repeat} {self._anchor}", no_accident=_NO_ACCIDENT
        )

    def _without_closing(self, before: str, joint: int) -> int:
        """Past a closing mark, where an opening one stood before the anchor."""
        after = self._held[joint:]
        for opening, closing in _WRAPPERS.items():
            if before.endswith(opening) and after.startswith(closing):
                return joint + len(closing)
        return joint

    def _parts_words(self, joint: int) -> bool:
        """Whether a word ends at the joint, as one does in the document: "the cat" is not the end
        of "the cats"."""
        around = self._held[joint - 1 : joint + 1]
        return not (self._gap and len(around) == 2 and around.isalnum())

    def _with_white_space(self, text: str) -> str:
        """The reply's text behind the anchor, with the document's own white space before it, where
        the reply goes on with the half-written word that followed it: models like to put what
        they were asked to repeat on a line of its own."""
        rest = text.lstrip()
        if self._gap and self._half_word and rest.startswith(self._half_word):
            return self._gap + rest
        return text

    def _restarted(self, seen: str) -> bool:
        """Whether the document's beginning stands at the reply's, maybe behind an opening."""
        start = self._beginning.lstrip()[:RESTART]
        at = seen.find(start, 0, OPENING + RESTART)
        if len(start) < RESTART or at < 0 or self._recent_plain.count(start) > 1:
            return False
        before = seen[:at].strip()
        return not before or bool(_FENCE.fullmatch(before)) or len(before) in _opening_ends(before)

    def _may_still_come(self, seen: str) -> bool:
        """Whether the anchor may still appear: the opening is short, or repeats the document."""
        if len(seen) < OPENING + len(self._anchor):
            return True
        at = self._recent_plain.find(seen.lstrip()[:RESTART])
        return at >= 0 and self._recent_plain[at:].startswith(seen.strip())

    def _overlap(self) -> int | None:
        """How much of the reply's opening is literally the document's end, where that is no
        accident."""
        reply = self._held.lstrip()
        skipped = len(self._held) - len(reply)
        longest = min(len(reply), len(self._recent))
        fits = [n for n in range(1, longest + 1) if self._recent.endswith(reply[:n])]
        long_fits = [n for n in fits if n >= MIN_OVERLAP]
        # Where a shorter piece fits as well, the text goes in circles, and how much of it is a
        # repeat cannot be told.
        if len(long_fits) != 1 or any(8 <= n < long_fits[0] for n in fits):
            return None
        length = long_fits[0]
        if self._may_be_said_twice(length) or not self._parts_words(skipped + length):
            return None
        return skipped + length

    def _may_be_said_twice(self, length: int) -> bool:
        """Whether the document's last characters may rightly come again: they did so before, or
        are whole lines or sentences, as a chorus or a table's row is."""
        recent = self._recent
        repeat = plain(recent[-length:]).text
        if goes_round(self._recent_plain, repeat, no_accident=3):  # without the anchor, be strict
            return True
        if recent.find(recent[-length:]) < len(recent) - length:
            return True
        before = recent[:-length].rstrip(" \t")
        return not before or (before[-1] in _ENDS and recent[-1] in _ENDS + "|")

    def _glued(self) -> str:
        """The joining rule where no seam was found: the white space that stood at the cut, else a
        space, unless the reply brings its own or begins with a mark that wants none."""
        if self._held[:1].isspace() or self._held[:1] in ",.;:!?)]}”’":
            return self._held
        return (self._gap or " ") + self._held


def _opening_ends(text: str) -> list[int]:
    """The offsets at which an opening may end: behind each of its sentences, while all that came
    were courtesies or spoke of going on."""
    ends: list[int] = []
    at = 0
    while (match := _SENTENCE.match(text, at)) and match.end() <= OPENING:
        speaks = _SPEAKS.match(match[0]) and _OF_GOING_ON.search(match[0])
        if not (speaks or _COURTESY.fullmatch(match[0])):
            break
        at = match.end()
        ends += [at, len(text[:at].rstrip())]
    return ends


def _ends_a_character(seen: Plain, end: int) -> bool:
    return end == len(seen.text) or seen.end(end - 1) != seen.end(end)
