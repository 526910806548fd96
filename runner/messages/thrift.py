"""Whether a mark is worth what it may cost: what caching has brought so far pays for its bets.

Some marks are sure to pay: what is warm is read; a beginning that other jobs wait for is read by
them; a document that still lacks half of the words its job asks for goes on. All others are bets
that the document goes on after this call. A bet is placed where the rule of `caching` says that it
pays by the chances learned, and where what caching has saved so far covers the stake, which is the
surcharge on what is newly written; or where eight calls and more of the batch have shown that such
calls go on. Who is eager allows one bet that nothing covers; see docs/caching.md.

Pure: no clock, no network, no database. Amounts are in input tokens' worth: what so many input
tokens of the model cost when they are simply sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from runner.jobs.call import Usage
from runner.messages.caching import Multiples, Ttl

# Chances are learned for each number of a call up to this; calls of higher numbers count as it.
NUMBERS: Final = 20
# What is assumed weighs like so many calls that were seen.
_ASSUMED_WEIGHT: Final = 2.0
# Without anything learned no document is believed to have a third call; one that has is believed
# to go on, the more the longer it is.
FIRST_BET: Final = 3
# A lost bet may say that the batch's documents are short, and says nothing of one that is so many
# times as long as the one that lost it.
_LONGER: Final = 2
_FIRST_STAKE: Final = 1 / 11  # of what that document's input came to, at most
# Where so many calls of a number were seen and nearly all of them went on, the next is believed to,
# for so much of what the batch's input came to.
_ENOUGH_SEEN: Final = 8
_MOSTLY: Final = 0.9
_LATER_STAKE: Final = 1 / 20
_LIKELY: Final = 0.5
# Where this part of the unfinished jobs has a beginning, the next ones to begin have it.
_NEARLY_ALL: Final = 0.9
# Where they are fewer, they come now close together, now far apart: the time between two of them is
# taken this many times as long, and so many must be left that a bet on them costs 5 % at most.
_SCATTERED: Final = 8.0
_FOLLOWERS: Final = 4
# Calls take now more, now less; an entry that is gone a moment before its reader comes is lost.
_MARGIN: Final = 0.55
_SLOW_TOKENS_PER_SECOND: Final = 20


@dataclass(slots=True)
class Chances:
    """How often a call was followed by another of its document, by the call's number."""

    calls: list[float] = field(default_factory=lambda: [0.0] * (NUMBERS + 1))
    cut: list[float] = field(default_factory=lambda: [0.0] * (NUMBERS + 1))

    def ended(self, number: int, *, cut: bool, times: int = 1) -> None:
        self.calls[min(number, NUMBERS)] += times
        self.cut[min(number, NUMBERS)] += times * cut

    def seen(self, number: int) -> float:
        return self.calls[min(number, NUMBERS)]

    def shown(self, number: int) -> float:
        """The part of the calls of this number that were followed by another; 0 while too few
        were seen."""
        at = min(number, NUMBERS)
        return self.cut[at] / self.calls[at] if self.calls[at] >= _ENOUGH_SEEN else 0.0

    def further(self, number: int) -> float:
        """The chance that a call of this number is followed by another."""
        at = min(number, NUMBERS)
        assumed = 0.0
        if number >= FIRST_BET:
            # Where nothing was seen of this number, calls of all numbers tell something.
            all_seen = sum(self.calls)
            assumed = min((number - 1) / number, sum(self.cut) / all_seen if all_seen else 1.0)
        seen, cut = self.calls[at], self.cut[at]
        return (cut + _ASSUMED_WEIGHT * assumed) / (seen + _ASSUMED_WEIGHT)

    def expected(self, number: int, most: int) -> float:
        """How many calls are expected to follow one of this number, of at most so many."""
        reads, chance = 0.0, 1.0
        for later in range(number, number + most):
            chance *= self.further(later)
            reads += chance
            if chance < 0.01:
                break
        return reads


@dataclass(slots=True)
class Purse:
    """What caching has saved so far, what its bets may still lose, and what all the input would
    have cost without it; in input tokens' worth."""

    saved: float = 0.0
    staked: float = 0.0
    spent: float = 0.0

    def billed(self, usage: Usage, multiples: Multiples) -> None:
        """A call's input was counted."""
        hour = usage.cache_creation_1h_input_tokens
        minutes = usage.cache_creation_input_tokens - hour
        self.saved += usage.cache_read_input_tokens * multiples.saving()
        self.saved -= minutes * multiples.surcharge(Ttl.MINUTES)
        self.saved -= hour * multiples.surcharge(Ttl.HOUR)
        self.spent += usage.total_input_tokens


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of a job before one of its calls.

    Args:
        number: the call's, where only calls count that were cut at `max_tokens`.
        at_least: calls that are sure to follow it, as far as anything is sure.
        most: calls that may follow it by the job's bounds.
        spent_tokens: input of the document's calls so far and of this one.
        eager: its owner would have a first bet placed on it that nothing covers.
    """

    number: int
    at_least: int
    most: int
    spent_tokens: float
    eager: bool = False


@dataclass(frozen=True, slots=True)
class Bet:
    """A mark to be made.

    Args:
        at: index in the boundaries that were asked about.
        stake: what is lost if nothing reads it; 0 where it is sure to pay.
    """

    at: int
    ttl: Ttl
    stake: float


class Thrift:
    """Decides for the jobs of one batch that have one model.

    Args:
        minimum_tokens: a shorter beginning is not cached.
    """

    def __init__(self, multiples: Multiples, minimum_tokens: int) -> None:
        self.multiples = multiples
        self.minimum_tokens = minimum_tokens
        self.chances = Chances()
        self.purse = Purse()
        self._stream_s = 0.0
        self._streams = 0
        self._gap_s = 0.0
        self._gaps = 0
        self._bold = FIRST_BET  # the number of the last call that a bet without cover was placed on

    def ended(self, number: int, *, cut: bool, stream_s: float, times: int = 1) -> None:
        """Calls ended: whether cut at `max_tokens`, and how long all of them took together."""
        self.chances.ended(number, cut=cut, times=times)
        self._stream_s += stream_s
        self._streams += times

    def went_on(self, gap_s: float) -> None:
        """A document's next call begins, so long after its last one began."""
        self._gap_s += gap_s
        self._gaps += 1

    @property
    def gap_s(self) -> float | None:
        """Seconds between the beginnings of two calls of a document; None: nobody knows yet."""
        return self._gap_s / self._gaps if self._gaps else None

    def call_s(self, max_tokens: int) -> float:
        """How long a call is expected to take."""
        if self._streams:
            return self._stream_s / self._streams
        return max_tokens / _SLOW_TOKENS_PER_SECOND

    @staticmethod
    def ttl(gap_s: float) -> Ttl | None:
        """The shortest time to live that outlasts a gap; None: no entry does."""
        return next((t for t in Ttl if gap_s <= _MARGIN * t.seconds), None)

    def go_on(
        self, look: Outlook, gap_s: float | None, boundaries: Sequence[float], warm_tokens: float
    ) -> Bet | None:
        """The mark for the job's own next call; None: none pays.

        Args:
            gap_s: seconds between the beginnings of the document's last two calls; None: it is
                its first.
            boundaries: input tokens up to each place where a mark may stand, the best place first.
            warm_tokens: those of the beginning that is in the cache now, and will be read.
        """
        gap_s = self.gap_s if gap_s is None else gap_s
        ttl = None if gap_s is None else self.ttl(gap_s)
        if ttl is None:
            return None
        reads = max(float(look.at_least), self.chances.expected(look.number, look.most))
        sure = self.multiples.pays(ttl, look.at_least)
        for at, tokens in enumerate(boundaries):
            fresh = tokens - warm_tokens
            if tokens < self.minimum_tokens or fresh <= 0:
                continue
            if sure:
                return Bet(at, ttl, 0.0)
            stake = fresh * self.multiples.surcharge(ttl)
            gain = warm_tokens * self.multiples.saving()
            if self.multiples.pays(ttl, reads) and self._may_stake(stake, gain, look, ttl):
                return Bet(at, ttl, stake)
        return None

    def share(
        self, *, tokens: float, jobs: int, others: int, company: int, slots: int, call_s: float
    ) -> Bet | None:
        """The mark for a beginning that other jobs have and the cache does not hold; None: none
        pays.

        Args:
            tokens: how long it is.
            jobs: other jobs that have it and whose first call is not made yet.
            others: unfinished jobs of the batch, with that beginning or not.
            company: jobs that wait for it to be written.
            slots: how many calls may be open at once.
            call_s: how long a call is expected to take.
        """
        if tokens < self.minimum_tokens or jobs <= 0:
            return None
        part = min(1.0, jobs / max(1, others))
        # Between two jobs of this beginning, as calls end and others begin.
        between_s = max(call_s, self.gap_s or 0.0) / max(1.0, slots * part)
        ttl = self.ttl(between_s)
        if ttl is not None and part >= _NEARLY_ALL and self.multiples.pays(ttl, jobs):
            return Bet(0, ttl, 0.0)
        scattered_s = _SCATTERED * max(call_s, self.gap_s or 0.0) / max(slots * part, 1e-9)
        lasting = self.ttl(scattered_s)
        ttl = lasting or Ttl.MINUTES
        if self.multiples.pays(ttl, company):
            return Bet(0, ttl, 0.0)
        stake = tokens * self.multiples.surcharge(ttl)
        means = self.purse.saved - self.purse.staked
        first = lasting is not None and jobs >= _FOLLOWERS and means >= 0
        likely = (first or stake <= means) and self.multiples.pays(ttl, jobs)
        return Bet(0, ttl, stake) if likely else None

    def _may_stake(self, stake: float, gain: float, look: Outlook, ttl: Ttl) -> bool:
        purse = self.purse
        means = purse.saved - purse.staked + gain
        if stake <= means:
            return True
        if look.eager and self._is_first(stake, means, look):
            self._bold = look.number
            return True
        chance = self.chances.shown(look.number)
        # What is not covered is to come back with the very next call.
        soon = chance >= _MOSTLY and self.multiples.pays(ttl, chance)
        return soon and stake <= means + purse.spent * _LATER_STAKE

    def _is_first(self, stake: float, means: float, look: Outlook) -> bool:
        """Whether this is the one bet that may be placed with nothing won."""
        longer = look.number >= _LONGER * self._bold
        likely = self.chances.further(look.number) >= _LIKELY
        affordable = stake <= look.spent_tokens * _FIRST_STAKE
        return look.number >= FIRST_BET and likely and affordable and (means >= 0 or longer)
