"""One walk through a batch's jobs that keeps no job: groups of jobs that are alike, with counts,
sums, and the places of a few of them to look at closely."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from runner.continuation.loop import choose, is_structured
from runner.estimating.evidence import Ground, Length, length_of, prompt_characters
from runner.estimating.lengths import Unit
from runner.jobs.beginnings import beginnings
from runner.jobs.call import Strategy
from runner.jobs.spec import Caching, JobSpec
from runner.jobs.traits import ModelTraits

# A file may make every job unlike every other: beyond so many groups, jobs are put together by
# model alone, and beyond so many models into one group of others.
MAX_GROUPS: Final = 200
_REMEMBERED_KINDS: Final = 10_000
MAX_MODELS: Final = 50
OTHER_MODELS: Final = "other models"
KEPT_BEGINNINGS: Final = 64  # of prompts, for each group
KEPT_PLACES: Final = 64  # places of jobs kept for each group
# Half an octave: prompts of a group differ by no more than that.
_STEPS_AN_OCTAVE: Final = 2
_THINKING_ADAPTIVE_TOKENS: Final = 500  # a call, where a job asks for thinking and tells no budget


class Kind(NamedTuple):
    """What jobs of one group have in common."""

    model: str
    max_tokens: int
    strategy: Strategy
    max_calls: int
    max_output_tokens: int | None
    max_cost_nano_usd: int | None
    thinking_tokens: int
    structured: bool
    cached: bool
    ground: Ground
    unit: Unit
    length: int  # steps
    prompt: int  # steps


@dataclass(slots=True)
class Group:
    """Jobs that are alike, those that are final left out.

    Args:
        characters: of their prompts.
        least, expected, most: sums of their documents' lengths, in the kind's unit.
        places: where some of them, drawn evenly, stand in the file, from 0.
        begun: of the jobs, those that have called already; `paid_output_tokens` is what they paid.
        beginnings: by its hash, how many of them have a beginning of the prompt, and how long it
            is in characters.
    """

    kind: Kind
    jobs: int = 0
    characters: int = 0
    least: float = 0.0
    expected: float = 0.0
    most: float = 0.0
    begun: int = 0
    paid_output_tokens: int = 0
    places: list[int] = field(default_factory=list)
    beginnings: dict[bytes, tuple[int, int]] = field(default_factory=dict)


class Shared(NamedTuple):
    """A beginning of the prompt that jobs share."""

    hash: bytes
    jobs: int  # of the group
    characters: int


class Known(NamedTuple):
    """What the database holds of a job that is in the file, too.

    Args:
        final: it will not be worked on again.
        output_tokens: paid for so far.
    """

    final: bool
    output_tokens: int


class Survey:
    """Takes jobs one by one.

    Args:
        traits: what a model takes.
    """

    def __init__(self, traits: Callable[[str], ModelTraits]) -> None:
        self._traits = traits
        self._random = Random(0)  # noqa: S311  the same file gives the same estimate
        self._models: set[str] = set()
        self._nearest: dict[tuple[object, ...], Group] = {}
        self._alike: dict[tuple[str, Unit], list[Group]] = {}
        self.groups: dict[Kind, Group] = {}
        self.seen = 0
        self.done: Counter[str] = Counter()  # final jobs by model

    def take(self, spec: JobSpec, known: Known | None = None) -> None:
        """Count a job in.

        Args:
            known: what the database holds of it; None where it holds nothing.
        """
        place, self.seen = self.seen, self.seen + 1
        if known is not None and known.final:
            self.done[self._model(spec.model)] += 1
            return
        length, characters = length_of(spec), prompt_characters(spec)
        group = self._group(spec, length, characters)
        group.jobs += 1
        group.characters += characters
        group.least += length.least
        group.expected += length.expected
        group.most += length.most
        if known is not None and known.output_tokens:
            group.begun += 1
            group.paid_output_tokens += known.output_tokens
        if group.kind.cached:
            self._take_beginnings(spec, group)
        if len(group.places) < KEPT_PLACES:
            group.places.append(place)
        elif (at := self._random.randrange(group.jobs)) < KEPT_PLACES:
            group.places[at] = place

    def _take_beginnings(self, spec: JobSpec, group: Group) -> None:
        for one in beginnings(spec):
            jobs, characters = group.beginnings.get(one.hash, (0, one.characters))
            if jobs or len(group.beginnings) < KEPT_BEGINNINGS:
                group.beginnings[one.hash] = (jobs + 1, characters)

    def shared(self) -> dict[Kind, Shared]:
        """For each group whose jobs share a beginning with one another or with others, the one that
        saves most of what they read."""
        among: Counter[bytes] = Counter()
        for group in self.groups.values():
            for digest, (jobs, _) in group.beginnings.items():
                among[digest] += jobs
        best: dict[Kind, Shared] = {}
        for kind, group in self.groups.items():
            for digest, (jobs, characters) in group.beginnings.items():
                known = best.get(kind)
                if among[digest] > 1 and (
                    known is None or jobs * characters > known.jobs * known.characters
                ):
                    best[kind] = Shared(digest, jobs, characters)
        return best

    def kind_of(self, spec: JobSpec) -> Kind:
        """The kind that a job would be counted under."""
        return self._kind(spec, length_of(spec), prompt_characters(spec))

    def _group(self, spec: JobSpec, length: Length, characters: int) -> Group:
        kind = self._kind(spec, length, characters)
        if (known := self.groups.get(kind)) is not None:
            return known
        if len(self.groups) < MAX_GROUPS:
            return self._new_group(kind)
        # What makes no difference to speak of makes no other group now.
        rough = (
            kind.model,
            kind.unit,
            kind.strategy,
            kind.length,
            kind.prompt,
            _steps(kind.max_tokens),
        )
        if rough not in self._nearest:
            if len(self._nearest) >= _REMEMBERED_KINDS:
                self._nearest.clear()
            alike = self._alike.get((kind.model, kind.unit), ())
            nearest = min(alike, key=lambda group: _distance(group.kind, kind), default=None)
            # A model and unit that none of the groups has: there are few of those.
            self._nearest[rough] = nearest or self._new_group(kind)
        return self._nearest[rough]

    def _new_group(self, kind: Kind) -> Group:
        group = self.groups[kind] = Group(kind)
        self._alike.setdefault((kind.model, kind.unit), []).append(group)
        return group

    def _kind(self, spec: JobSpec, length: Length, characters: int) -> Kind:
        traits = self._traits(spec.model)
        bounds = spec.continuation
        return Kind(
            model=self._model(spec.model),
            max_tokens=spec.max_tokens or traits.max_output_tokens,
            strategy=choose(spec, traits),
            max_calls=bounds.max_calls,
            max_output_tokens=bounds.max_output_tokens,
            max_cost_nano_usd=bounds.max_cost_nano_usd,
            thinking_tokens=_thinking_tokens(spec),
            structured=is_structured(spec),
            cached=spec.caching is not Caching.OFF and traits.cache_minimum_tokens is not None,
            ground=length.ground,
            unit=length.unit,
            length=_steps(length.expected),
            prompt=_steps(characters),
        )

    def _model(self, model: str) -> str:
        if model in self._models:
            return model
        if len(self._models) >= MAX_MODELS:
            return OTHER_MODELS
        self._models.add(model)
        return model


def _distance(one: Kind, other: Kind) -> float:
    return (
        abs(one.length - other.length)
        + abs(one.prompt - other.prompt)
        + abs(_steps(one.max_tokens) - _steps(other.max_tokens))
        + 100 * (one.strategy is not other.strategy)
    )


def _steps(amount: float) -> int:
    return round(_STEPS_AN_OCTAVE * math.log2(max(1.0, amount)))


def _thinking_tokens(spec: JobSpec) -> int:
    """Tokens thought in each call, where the job asks for thinking."""
    if spec.thinking is None or spec.thinking.get("type") in (None, "disabled"):
        return 0
    budget = spec.thinking.get("budget_tokens")
    return budget // 2 if isinstance(budget, int) else _THINKING_ADAPTIVE_TOKENS


def chosen(groups: Iterable[Group], size: int) -> dict[int, Kind]:
    """Places of the jobs to look at closely, and the kind of each: one of every group as far as
    they go, the biggest groups first, and the rest by the groups' weight.

    Args:
        size: how many, at most.
    """
    ordered = sorted(groups, key=lambda group: -group.jobs)
    total = sum(group.jobs for group in ordered)
    taken = {group.kind: 1 for group in ordered[:size]}
    spare = size - len(taken)
    for group in ordered[: len(taken)]:
        share = min(len(group.places) - 1, spare * group.jobs // max(1, total))
        taken[group.kind] += share
    # What rounding and small groups left over goes to whoever has more.
    spare = size - sum(taken.values())
    for group in ordered[: len(taken)]:
        more = max(0, min(spare, len(group.places) - taken[group.kind]))
        taken[group.kind] += more
        spare -= more
    return {
        place: group.kind
        for group in ordered[: len(taken)]
        for place in group.places[: taken[group.kind]]
    }
