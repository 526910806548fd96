"""What a batch would cost, put together: survey, sample, evidence, forecast, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import anyio.to_thread

from runner.estimating import sampling
from runner.estimating.amounts import Amounts
from runner.estimating.clock import Limits, Speed
from runner.estimating.duration import times
from runner.estimating.evidence import Ground, length_of, prompt_characters
from runner.estimating.forecast import Seen, Span, as_warm, forecast, written_once
from runner.estimating.result import BatchEstimate, ModelEstimate, together
from runner.estimating.sampling import Counts
from runner.estimating.survey import Group, Kind, Known, Shared, Survey, chosen
from runner.estimating.tokenizer import Tokenizer, tokenizer
from runner.jobs.price import Price
from runner.jobs.spec import BatchSpec, JobSpec, shape_hash
from runner.jobs.traits import ModelTraits, PrefillAnswer
from runner.messages import models
from runner.messages.client import MessagesClient
from runner.messages.pace import limit_key, rate_class
from runner.store.reading import ReadingStore
from runner.store.records import BatchRow, FinishedJob, LearnedCalls

COUNTED_JOBS: Final = 20
REHEARSED_JOBS: Final = 60
_PORTION: Final = 2_000  # jobs that are looked up in the database at once
_PORTION_CHARACTERS: Final = 4_000_000
_FINISHED_JOBS: Final = 200  # documents that are looked at
_ASKED_MODELS: Final = 20  # models whose limits the API is asked for
_MOST_OF_A_KIND: Final = 0.8
_REMEMBERED_MODELS: Final = 1_000
_ENOUGH_WRITTEN_TOKENS: Final = 2_000  # fewer say little of how dense a model's text is

Jobs = Callable[[], Iterable[JobSpec]]
Rehearse = Callable[[BatchSpec, Sequence[JobSpec]], Awaitable[Sequence[FinishedJob]]]
PriceOf = Callable[[str, BatchSpec], Price | None]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where an estimate may look.

    Args:
        price_of: a model's price, in a batch.
        client: the way to the API, for counting tokens; None where there is no key.
        base_url: the endpoint that the jobs will go to.
        store: a database to learn from.
        simulated: the documents will be simulated ones.
        rehearse: writes some documents for trial, where that costs nothing.
        speed: of streams, where it is known beforehand.
    """

    price_of: PriceOf
    base_url: str
    client: MessagesClient | None = None
    store: ReadingStore | None = None
    simulated: bool = False
    rehearse: Rehearse | None = None
    speed: Speed | None = None


async def estimate(
    batch: BatchSpec, jobs: Jobs, model_names: Collection[str], sources: Sources
) -> BatchEstimate:
    """What the jobs of a batch would cost, as far as they are not done already.

    Args:
        jobs: gives a new iterator over the jobs each time; it is read in a thread, twice at most,
            and no job is kept but a sample.
        model_names: the models of these jobs.

    Raises:
        JobFileError: the file has changed since it was checked, and is wrong now.
    """
    traits = await _Traits.of(model_names, sources)
    row, other_kind = await _known_batch(batch.name, sources)
    survey, changed = await _survey(jobs, traits, row, sources.store)
    size = COUNTED_JOBS if sources.rehearse is None else REHEARSED_JOBS
    sample = await _sample(jobs, chosen(survey.groups.values(), size))
    counts = sampling.NOTHING_COUNTED
    if sources.client is not None and sample:
        counted = sample if sources.rehearse is None else sample[:COUNTED_JOBS]
        counts = await sampling.count(sources.client, counted, traits)
    trial: Sequence[FinishedJob] = ()
    if sources.rehearse is not None and sample:
        trial = await sources.rehearse(batch, [spec for _, spec in sample])
    here, elsewhere = await _finished(row, model_names, sources)
    rehearsed = _representative(_seen(trial, survey), [kind for kind, _ in sample])
    finished = _seen(here, survey)
    similar = _seen(elsewhere, survey)
    names = sorted({kind.model for kind in survey.groups})
    shared = survey.shared()
    estimates = [
        await _of_model(
            model,
            [group for kind, group in survey.groups.items() if kind.model == model],
            shared,
            batch=batch,
            traits=traits(model),
            counts=counts,
            sights={
                Ground.REHEARSED: rehearsed,
                Ground.FINISHED: finished,
                Ground.SIMILAR: similar,
            },
            sources=sources,
        )
        for model in names
    ]
    seconds, binding = times(estimates, batch, await _told_limits(model_names, sources))
    return BatchEstimate(
        batch=batch,
        simulated=sources.simulated,
        jobs=survey.seen,
        final=survey.done.total(),
        changed=changed,
        models=estimates,
        total=together([one.span for one in estimates]),
        seconds=seconds,
        binding=binding,
        counts=counts,
        rehearsed=len(rehearsed),
        finished=len(finished) + len(elsewhere),
        known=row,
        other_kind=other_kind,
    )


class _Traits:
    """What models take, by all that is known: the table, the API, the database."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._known: dict[str, ModelTraits] = {}

    @staticmethod
    async def of(model_names: Collection[str], sources: Sources) -> _Traits:
        traits = _Traits(sources)
        for model in sorted(model_names)[:_ASKED_MODELS]:
            if sources.client is not None:
                await sources.client.model_info(model)
            found = traits._look_up(model)
            if sources.store is not None:
                answer = await sources.store.remembered(sources.base_url, model)
                if answer is not None:
                    found = replace(found, prefill=answer is PrefillAnswer.TAKEN)
            traits._known[model] = found
        return traits

    def __call__(self, model: str) -> ModelTraits:
        found = self._known.get(model)
        if found is None:
            found = self._look_up(model)
            if len(self._known) < _REMEMBERED_MODELS:
                self._known[model] = found
        return found

    def _look_up(self, model: str) -> ModelTraits:
        if self._sources.client is not None:
            return self._sources.client.traits(model)
        return models.traits(model, self._sources.base_url)


async def _known_batch(name: str, sources: Sources) -> tuple[BatchRow | None, bool]:
    """The batch as the database has it, if it holds documents of the same kind; and whether it
    holds such of the other."""
    rows = [] if sources.store is None else await sources.store.batches([name])
    same = next((row for row in rows if row.simulated is sources.simulated), None)
    return same, same is None and bool(rows)


async def _survey(
    jobs: Jobs, traits: _Traits, row: BatchRow | None, store: ReadingStore | None
) -> tuple[Survey, int]:
    """The survey of the jobs, and how many are known with another prompt."""
    survey, changed = Survey(traits), 0
    stream = iter(await anyio.to_thread.run_sync(jobs))

    def next_portion() -> list[JobSpec]:
        portion, characters = [], 0
        for spec in islice(stream, _PORTION):
            portion.append(spec)
            characters += prompt_characters(spec)
            if characters > _PORTION_CHARACTERS:
                break
        return portion

    def take(portion: list[JobSpec], known: Mapping[str, Known]) -> None:
        for spec in portion:
            survey.take(spec, known.get(spec.id))

    while portion := await anyio.to_thread.run_sync(next_portion):
        known: dict[str, Known] = {}
        if row is not None and store is not None:
            there = await store.known(row.key, [spec.id for spec in portion])
            for spec in portion:
                if (job := there.get(spec.id)) is None:
                    continue
                if job.hash != shape_hash(spec.shape_data()):
                    changed += 1  # it is written anew, if it may
                else:
                    known[spec.id] = Known(job.state.final, job.output_tokens)
        await anyio.to_thread.run_sync(take, portion, known)
    return survey, changed


async def _sample(jobs: Jobs, places: Mapping[int, Kind]) -> list[tuple[Kind, JobSpec]]:
    """The jobs at these places; each kind's first one before all kinds' second ones, so that the
    beginning of the sample has something of each."""
    if not places:
        return []

    def pick() -> list[tuple[Kind, JobSpec]]:
        last = max(places)
        return [
            (places[place], spec)
            for place, spec in enumerate(islice(jobs(), last + 1))
            if place in places
        ]

    picked = await anyio.to_thread.run_sync(pick)
    count: Counter[Kind] = Counter()
    rounds = []
    for kind, spec in picked:
        rounds.append((count[kind], kind, spec))
        count[kind] += 1
    return [(kind, spec) for _, kind, spec in sorted(rounds, key=lambda one: one[0])]


async def _finished(
    row: BatchRow | None, model_names: Collection[str], sources: Sources
) -> tuple[list[FinishedJob], list[FinishedJob]]:
    """Finished documents of this batch, and of the same models elsewhere."""
    store = sources.store
    if store is None:
        return [], []
    names = sorted(model_names)[:_ASKED_MODELS]
    here, simulated = [], sources.simulated
    if row is not None:
        here = await store.finished(
            models=names, simulated=simulated, limit=_FINISHED_JOBS, batch_key=row.key
        )
    anywhere = await store.finished(models=names, simulated=simulated, limit=_FINISHED_JOBS)
    return here, [job for job in anywhere if row is None or job.batch_key != row.key]


def _seen(jobs: Iterable[FinishedJob], survey: Survey) -> list[Seen]:
    return [Seen(survey.kind_of(job.spec), length_of(job.spec).expected, job.calls) for job in jobs]


def _representative(seen: Sequence[Seen], tried: Sequence[Kind]) -> list[Seen]:
    """Those of kinds of which most were finished: of others only the short ones were."""
    wanted, done = Counter(tried), Counter(one.kind for one in seen)
    return [one for one in seen if done[one.kind] >= _MOST_OF_A_KIND * wanted[one.kind]]


async def _of_model(
    model: str,
    groups: Sequence[Group],
    shared: Mapping[Kind, Shared],
    *,
    batch: BatchSpec,
    traits: ModelTraits,
    counts: Counts,
    sights: Mapping[Ground, Sequence[Seen]],
    sources: Sources,
) -> ModelEstimate:
    rows: Sequence[LearnedCalls] = ()
    if sources.store is not None:
        rows = await sources.store.learned_by_model(model, simulated=sources.simulated)
    price = sources.price_of(model, batch)
    speed = sources.speed or _speed(rows)
    of_model = {
        ground: as_warm([one for one in seen if one.kind.model == model])
        for ground, seen in sights.items()
    }
    # What finished documents wrote to the prompt cache is paid.
    written = of_model[Ground.REHEARSED][1]
    forecasts = [
        forecast(
            group,
            traits=traits,
            tokenizer=_tokenizer(model, group.kind, counts, rows),
            price=price,
            sights={ground: warm for ground, (warm, _) in of_model.items()},
            shared=shared.get(group.kind),
            speed=speed,
        )
        for group in groups
    ]
    # A beginning is written by one job for all groups.
    beginnings = {
        shared[one.kind].hash: one.shared_tokens for one in forecasts if one.kind in shared
    }
    once = sum(
        (written_once(tokens, price) for tokens in (*written, *beginnings.values()) if tokens),
        Amounts(),
    )
    span = together([one.span for one in forecasts])
    grounds: Counter[Ground] = Counter()
    for one in forecasts:
        grounds[one.ground] += one.jobs
    return ModelEstimate(
        model=model,
        documents=sum(group.jobs for group in groups),
        span=Span(span.low + once, span.expected + once, span.high + once),
        grounds=grounds,
        longest=max((one.longest for one in forecasts), key=lambda one: one.output_tokens),
        speed=speed,
    )


def _tokenizer(model: str, kind: Kind, counts: Counts, rows: Sequence[LearnedCalls]) -> Tokenizer:
    """By the prompts of this kind that were counted, else by those of the model."""
    first = [row for row in rows if row.number == 1]
    characters = sum(row.output_characters for row in rows)
    tokens = sum(row.output_tokens for row in rows)
    return tokenizer(
        model,
        counted=counts.prompts.get(kind) or counts.of_model(model),
        page_tokens=counts.pages.get(model),
        sent=(
            sum(row.input_characters for row in first),
            sum(row.input_tokens for row in first),
        ),
        written=(characters, tokens) if tokens >= _ENOUGH_WRITTEN_TOKENS else (0, 0),
    )


def _speed(rows: Sequence[LearnedCalls]) -> Speed:
    seconds = sum(row.stream_ms for row in rows) / 1000
    tokens = sum(row.output_tokens for row in rows)
    if not seconds or tokens < _ENOUGH_WRITTEN_TOKENS:
        return Speed()
    return Speed(tokens / seconds, 0.0, measured=True)


async def _told_limits(model_names: Collection[str], sources: Sources) -> dict[str, Limits]:
    """The rate limits that the API told earlier runs of, by class of models."""
    store, client = sources.store, sources.client
    if store is None or client is None:
        return {}
    by_key = {row.limit_key: row for row in await store.paces()}
    told = {}
    for name in {rate_class(model) for model in model_names}:
        row = by_key.get(limit_key(client.credential, client.base_url, name))
        if row is not None:
            told[name] = Limits(
                row.requests_per_minute,
                row.input_tokens_per_minute,
                row.output_tokens_per_minute,
            )
    return told
