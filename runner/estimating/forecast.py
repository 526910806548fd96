"""What a group of like jobs will come to: from documents that were seen, else from what the job
file says, as least, expected and most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Final

from runner.estimating.amounts import Amounts, amounts_of
from runner.estimating.arithmetic import PlannedCall, Shape, planned_calls
from runner.estimating.cached import usages
from runner.estimating.clock import Speed
from runner.estimating.evidence import Ground
from runner.estimating.survey import Group, Kind, Shared
from runner.estimating.tokenizer import Tokenizer
from runner.jobs.call import Usage
from runner.jobs.price import Price
from runner.jobs.traits import ModelTraits

ENOUGH_SIMILAR: Final = 3  # documents; fewer say nothing of others
_LEAST_DOUBT: Final = 0.02  # not even a rehearsal of all jobs is met to the token
# Which marks for the prompt cache are placed and pay in documents of so many calls depends on the
# order in which others end; it was seen to move a batch's cost by so much.
_CALLS_WITH_BETS: Final = 3
_BETS: Final = 0.1
# Of a begun document at least so much is taken to be missing.
_LEAST_LEFT: Final = 0.1
# Two standard errors, and more where they are themselves known from few documents: Student's t
# at 95 %.
_STUDENT: Final = {2: 12.7, 3: 4.3, 4: 3.2, 5: 2.8, 6: 2.6, 7: 2.4, 8: 2.4, 9: 2.3}
_DOUBT_OF_ONE: Final = 0.5
_AROUND: Final = (0.9, 1.0, 1.1)  # authors keep to a length about so well


@dataclass(frozen=True, slots=True)
class Seen:
    """A document that was finished, by a rehearsal or an earlier run.

    Args:
        length: what was expected of it, in the kind's unit.
        calls: what each of its calls used.
    """

    kind: Kind
    length: float
    calls: tuple[Usage, ...]

    @property
    def output_tokens(self) -> int:
        return sum(usage.output_tokens for usage in self.calls)


@dataclass(frozen=True, slots=True)
class Span:
    """Something between two bounds; `by_chance` where the bounds are those of a sample."""

    low: Amounts
    expected: Amounts
    high: Amounts
    by_chance: bool = False


@dataclass(frozen=True, slots=True)
class GroupForecast:
    """What the jobs of a group that are left will come to.

    Args:
        longest: the longest of their documents, as expected.
        shared_tokens: of a beginning that somebody has to write to the prompt cache first.
    """

    kind: Kind
    jobs: int
    ground: Ground
    span: Span
    longest: Amounts
    shared_tokens: int = 0


def forecast(
    group: Group,
    *,
    traits: ModelTraits,
    tokenizer: Tokenizer,
    price: Price | None,
    sights: Mapping[Ground, Sequence[Seen]],
    shared: Shared | None,
    speed: Speed,
) -> GroupForecast:
    """What a group's jobs come to.

    Args:
        shared: the beginning of the prompt that they share.
        traits, tokenizer, price: of its model.
        sights: documents of its model that were seen, by how they were, the best way first.
    """
    for ground, seen in sights.items():
        same = [one for one in seen if one.kind == group.kind]
        if same and ground is not Ground.SIMILAR:
            return _by_sight(group, same, price, ground)
    ratios, ground = (1.0, 1.0, 1.0), group.kind.ground
    for similar_ground, seen in sights.items():
        # Of documents from elsewhere, those that were foreseen in the same way.
        alike = [
            one
            for one in seen
            if similar_ground is not Ground.SIMILAR or one.kind.ground is group.kind.ground
        ]
        if len(alike) >= ENOUGH_SIMILAR:
            ratios, ground = _ratios(alike, tokenizer), similar_ground
            break
    plan = _Plan(group, traits, tokenizer, price, shared, speed)
    return plan.forecast(ratios, ground)


def _by_sight(
    group: Group, seen: Sequence[Seen], price: Price | None, ground: Ground
) -> GroupForecast:
    """By documents of the same kind: their mean, and how sure it can be."""
    each = [sum((amounts_of(usage, price) for usage in one.calls), Amounts()) for one in seen]
    mean = sum(each, Amounts()) * (1 / len(each))
    left = _left(group, mean.output_tokens)
    sizes = [amounts.output_tokens + amounts.input_tokens / 10 for amounts in each]
    unseen = max(0.0, 1 - len(each) / group.jobs)
    doubt = _LEAST_DOUBT + _standard_errors(sizes) * math.sqrt(unseen)
    expected = mean * left
    low, high = expected * max(0.0, 1 - doubt), expected * (1 + doubt)
    if group.kind.cached and any(len(one.calls) >= _CALLS_WITH_BETS for one in seen):
        low, high = _cost_times(low, 1 - _BETS), _cost_times(high, 1 + _BETS)
    span = Span(low, expected, high, by_chance=True)
    longest = max(each, key=lambda amounts: amounts.output_tokens)
    return GroupForecast(group.kind, group.jobs, ground, span, longest)


def _cost_times(amounts: Amounts, factor: float) -> Amounts:
    cost = amounts.cost_nano_usd
    return replace(amounts, cost_nano_usd=None if cost is None else cost * factor)


def as_warm(seen: Sequence[Seen]) -> tuple[list[Seen], list[int]]:
    """Documents of one model as if the prompt cache had been warm for each, and the tokens of each
    beginning that is written to it to make it so.

    The first of many jobs with a common beginning writes it to the cache for all the others: once
    for the batch, and not once for each document that happened to be seen.
    """
    reads = sorted({one.calls[0].cache_read_input_tokens for one in seen if one.calls} - {0})
    warm: list[Seen] = []
    written: set[int] = set()
    for one in seen:
        first = one.calls[0]
        fitting = [read for read in reads if read <= first.cache_creation_input_tokens]
        if first.cache_read_input_tokens or not fitting:
            warm.append(one)
            continue
        shared = fitting[-1]
        rest = first.cache_creation_input_tokens - shared
        as_read = replace(first, cache_creation_input_tokens=rest, cache_read_input_tokens=shared)
        warm.append(replace(one, calls=(as_read, *one.calls[1:])))
        written.add(shared)
    return warm, sorted(written)


def written_once(tokens: int, price: Price | None) -> Amounts:
    """What it costs more to write so many tokens to the prompt cache than to read them there."""
    write = amounts_of(Usage(cache_creation_input_tokens=tokens), price)
    return replace(write + amounts_of(Usage(cache_read_input_tokens=tokens), price) * -1, calls=0)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A group by the arithmetic of the continuation loop."""

    group: Group
    traits: ModelTraits
    tokenizer: Tokenizer
    price: Price | None
    shared: Shared | None
    speed: Speed

    def forecast(self, ratios: tuple[float, float, float], ground: Ground) -> GroupForecast:
        """What the group comes to.

        Args:
            ratios: least, expected and most that documents came to, by what was expected of them.
        """
        group = self.group
        known = ratios != (1.0, 1.0, 1.0)
        sums = (group.least, group.expected, group.most)
        if known:
            sums = (group.expected, group.expected, group.expected)
        lengths = [
            self.tokenizer.tokens(total / group.jobs, group.kind.unit) * ratio
            for total, ratio in zip(sums, ratios, strict=True)
        ]
        sure = group.kind.ground is Ground.UNTIL
        low = self._document(lengths[0], chained=True)
        expected = self._about(lengths[1], chained=sure)
        high = self._document(lengths[2], chained=sure)
        left = _left(group, expected.output_tokens)
        span = Span(low * left, expected * left, high * left, by_chance=known)
        return GroupForecast(group.kind, group.jobs, ground, span, expected, self._shared_tokens)

    def _about(self, tokens: float, *, chained: bool) -> Amounts:
        """A document of about so many tokens: some take a call more than the mean, some one less."""
        each = [self._document(tokens * factor, chained=chained) for factor in _AROUND]
        return sum(each, Amounts()) * (1 / len(each))

    def _document(self, tokens: float, *, chained: bool) -> Amounts:
        """One document of so many tokens; the beginning it shares is in the cache already."""
        calls = list(planned_calls(self._shape(), tokens))
        part = 0.0 if self.shared is None else self.shared.jobs / self.group.jobs
        shares = self._billed(calls, min(self._shared_tokens, calls[0].prompt_tokens), chained)
        return shares * part + self._billed(calls, 0, chained) * (1 - part)

    def _billed(self, calls: Sequence[PlannedCall], shared_tokens: int, chained: bool) -> Amounts:
        total, bound = Amounts(), self.group.kind.max_cost_nano_usd
        for usage in usages(
            calls,
            shared_tokens=shared_tokens,
            minimum_tokens=self.traits.cache_minimum_tokens if self.group.kind.cached else None,
            chained=chained,
            call_s=calls[0].output_tokens / self.speed.tokens_per_second,
        ):
            more = total + amounts_of(usage, self.price)
            if bound is not None and (more.cost_nano_usd or 0) > bound:
                break  # the job's own budget has no room for it
            total = more
        return total

    @property
    def _shared_tokens(self) -> int:
        """Of the beginning that jobs share, if it is long enough to be cached."""
        minimum = self.traits.cache_minimum_tokens
        if self.shared is None or minimum is None:
            return 0
        tokens = round(self.shared.characters * self.tokenizer.prompt_per_character)
        return tokens if tokens >= minimum else 0

    def _shape(self) -> Shape:
        group, kind = self.group, self.group.kind
        prompt = group.characters / group.jobs * self.tokenizer.prompt_per_character
        return Shape(
            prompt_tokens=max(1, round(prompt)),
            max_tokens=kind.max_tokens,
            strategy=kind.strategy,
            max_calls=kind.max_calls,
            max_output_tokens=kind.max_output_tokens,
            context_window=self.traits.context_window,
            tokens_per_character=self.tokenizer.per_character,
            thinking_tokens=kind.thinking_tokens,
            whole=kind.structured,
        )


def _left(group: Group, document_tokens: float) -> float:
    """How many whole documents the group's jobs still come to: those begun count for their rest."""
    if not group.begun:
        return float(group.jobs)
    paid = group.paid_output_tokens / group.begun
    rest = max(_LEAST_LEFT, 1 - paid / max(1.0, document_tokens))
    return group.jobs - group.begun + group.begun * rest


def _ratios(seen: Sequence[Seen], tokenizer: Tokenizer) -> tuple[float, float, float]:
    """Least, expected and most of what documents came to, by what was expected of each."""
    ratios = [
        one.output_tokens / max(1.0, tokenizer.tokens(one.length, one.kind.unit)) for one in seen
    ]
    mean = fmean(ratios)
    # What holds for others may not hold for these: never less than a tenth of doubt.
    doubt = max(0.1, _standard_errors(ratios))
    return mean * max(0.1, 1 - doubt), mean, mean * (1 + doubt)


def _standard_errors(values: Sequence[float]) -> float:
    """How far the mean of a sample may be off, as a part of it."""
    if len(values) < 2:
        return _DOUBT_OF_ONE
    mean = fmean(values)
    if not mean:
        return 0.0
    return min(1.0, _STUDENT.get(len(values), 2.0) * stdev(values) / math.sqrt(len(values)) / mean)
