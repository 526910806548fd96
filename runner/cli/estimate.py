"""`runner estimate`, and how an estimate is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.common import (
    database_option,
    files_argument,
    json_option,
    print_json,
    run_async,
)
from runner.cli.harmless import one_line
from runner.cli.meter import duration
from runner.cli.validate import batch_option, read_job_files

if TYPE_CHECKING:
    from runner.estimating.amounts import Amounts
    from runner.estimating.forecast import Span
    from runner.estimating.result import BatchEstimate, ModelEstimate
    from runner.jobs.jobfile import JobFile

_NANO = 1_000_000_000

# What a document's expected length rests on, to follow a number of documents.
_GROUNDS = {
    "rehearsed": "a rehearsal by the simulator",
    "finished": "finished documents of the batch",
    "similar": "finished documents of the model",
    "until": "`until`",
    "prompt": "the length the prompt asks for",
    "source": "the length of the text to be worked over",
    "max_tokens": "`max_tokens`",
    "assumed": "no word on length: 1,500 tokens assumed",
}

_BINDINGS = {
    "concurrency": "the calls open at once",
    "longest document": "the longest document",
    "requests_per_minute": "`requests_per_minute`",
    "input_tokens_per_minute": "`input_tokens_per_minute`",
    "output_tokens_per_minute": "`output_tokens_per_minute`",
}


@click.command()
@files_argument
@database_option
@batch_option
@click.option(
    "--simulate",
    is_flag=True,
    help="Estimate a run with --simulate, by a rehearsal of some of its documents.",
)
@json_option
def estimate(
    files: tuple[Path, ...], database: str, batch: str | None, simulate: bool, as_json: bool
) -> None:
    """Tell what job files would cost, before anything is spent.

    Documents, calls, tokens, money and time, as low, expected and high, for each model and in sum.
    With a key, the API counts the prompts of some jobs, which is free; without one, tokens are
    estimated from characters. Finished documents in the database are learned from, and jobs of the
    batch that are final there are not paid for again. Nothing is queued, and no database is made.

    \b
    Example:
      runner estimate jobs.yaml
      runner estimate jobs.yaml --simulate --json

    Exit status: 0 if the files are well, 2 if not.
    """
    job_files = read_job_files(files, batch)
    tell(estimated(job_files, database, simulate=simulate), as_json=as_json)


def estimated(
    job_files: Sequence[JobFile],
    database: str,
    *,
    simulate: bool,
    limit: int | None = None,
    needs_key: bool = False,
) -> list[BatchEstimate]:
    """The estimates of job files; see `runner.cli.estimating.estimates_of`."""
    # Imported when the files are known to be good: the SDK takes its time.
    from runner.cli.estimating import estimates_of

    return run_async(
        estimates_of(job_files, database, simulate=simulate, limit=limit, needs_key=needs_key)
    )


def tell(estimates: Sequence[BatchEstimate], *, as_json: bool = False) -> None:
    """Print estimates: a table and what it rests on, or JSON."""
    from runner.cli.table import echo_table  # `run` needs none of it as a rule

    if as_json:
        print_json({"batches": [_batch_json(one) for one in estimates]})
        return
    rows = [
        (one.batch.name, model.model, model.documents, *_cells(model.span))
        for one in estimates
        for model in one.models
    ]
    if len(rows) > 1:
        documents = sum(one.documents for one in estimates)
        rows.append(("together", "", documents, *_cells(_sum(estimates))))
    if rows:
        echo_table(
            (
                "batch", "model", "documents", "calls", "input tokens", "output tokens",
                "cost, low", "expected", "high",
            ),
            rows,
        )  # fmt: skip
        click.echo()
    for one in estimates:
        for sentence in _sentences(one):
            click.echo(one_line(sentence))


def summary(estimate: BatchEstimate) -> str:
    """An estimate in one line."""
    simulated = " (simulated)" if estimate.simulated else ""
    return (
        f"{estimate.batch.name}{simulated}: {_count(estimate.documents, 'document')} to write, "
        f"{_cost_words(estimate)}, {_time_words(estimate)}"
    )


def expected_nano_usd(estimate: BatchEstimate) -> int | None:
    """What a batch is expected to cost from here; None where a price is unknown."""
    cost = estimate.total.expected.cost_nano_usd
    return None if cost is None else round(cost)


def _sentences(one: BatchEstimate) -> list[str]:
    if not one.documents:
        return [f"{one.batch.name}: all {_count(one.jobs, 'job')} are final already", *_there(one)]
    said = [summary(one), *_there(one)]
    if unknown := _unpriced(one):
        said.append(
            f"the price of {', '.join(unknown)} is not known: the job file can name it under `prices`"
        )
    expected, budget = expected_nano_usd(one), one.batch.limits.max_cost_nano_usd
    if expected is not None and budget is not None and _spent(one) + expected > budget:
        said.append(f"its budget of {about_dollars(budget)} would end it before")
    tokens, limit = one.total.expected.output_tokens, one.batch.limits.max_output_tokens
    if limit is not None and _written(one) + tokens > limit:
        said.append(f"its budget of {limit:,} output tokens would end it before")
    said += [f"rests on: {basis(one)}"]
    return said


def _there(one: BatchEstimate) -> list[str]:
    """What the database holds of the batch."""
    if one.other_kind:
        kind = "real" if one.simulated else "simulated"
        return [
            f"the database holds {kind} documents under this name: give another --db or --batch"
        ]
    if one.known is None:
        return []
    said = []
    if one.known.calls:
        spent = about_dollars(_spent(one))
        if one.known.unpriced_calls:
            spent += f" and {_count(one.known.unpriced_calls, 'call')} of unknown price"
        said.append(
            f"there already: {one.final:,} of {_count(one.jobs, 'job')} final; spent so far "
            f"{spent}, {one.known.usage.output_tokens:,} output tokens"
        )
    if one.changed:
        said.append(
            f"{_count(one.changed, 'job')} known with another prompt: counted as with --replace"
        )
    return said


def basis(one: BatchEstimate) -> str:
    """What the range rests on, in one sentence."""
    from runner.estimating.evidence import Ground

    grounds = one.grounds
    lengths = "; ".join(
        f"{grounds[ground]:,} on {_GROUNDS[ground]}" for ground in Ground if grounds[ground]
    )
    counted = one.counts.counted
    if counted:
        inputs = f"input counted for {counted:,} of {one.documents:,} prompts"
        if refused := one.counts.asked - counted:
            inputs += f" ({refused:,} more were not counted when asked for)"
    elif one.counts.asked:
        inputs = "input by its characters, since the endpoint does not count tokens"
    else:
        inputs = "input by its characters, since there is no key to have it counted"
    measured = all(model.speed.measured for model in one.models)
    speeds = sorted({round(model.speed.tokens_per_second) for model in one.models})
    speed = f"{' to '.join(f'{speed:,}' for speed in dict.fromkeys((speeds[0], speeds[-1])))} tokens a second"
    return (
        f"lengths: {lengths}; {inputs}; time by {_BINDINGS[one.binding]}, "
        f"{'measured' if measured else 'assumed'} {speed} a stream"
    )


def _cost_words(one: BatchEstimate) -> str:
    total = one.total
    costs = (total.low.cost_nano_usd, total.expected.cost_nano_usd, total.high.cost_nano_usd)
    low, expected, high = (None if cost is None else about_dollars(cost) for cost in costs)
    if expected is None:
        priced = [
            model.span for model in one.models if model.span.expected.cost_nano_usd is not None
        ]
        known = sum(span.expected.cost_nano_usd or 0 for span in priced)
        return f"{about_dollars(known)} and what has no known price" if known else "price unknown"
    return f"about {expected} ({low} to {high})"


def _time_words(one: BatchEstimate) -> str:
    low, expected, high = map(duration, one.seconds)
    return f"about {expected}" if low == high else f"about {expected} ({low} to {high})"


def _unpriced(one: BatchEstimate) -> list[str]:
    return [model.model for model in one.models if model.span.expected.cost_nano_usd is None]


def _spent(one: BatchEstimate) -> int:
    return 0 if one.known is None else one.known.cost_nano_usd


def _written(one: BatchEstimate) -> int:
    return 0 if one.known is None else one.known.spent_output_tokens


def _sum(estimates: Sequence[BatchEstimate]) -> Span:
    from runner.estimating.result import together

    return together([one.total for one in estimates])


def _cells(span: Span) -> tuple[object, ...]:
    expected = span.expected
    return (
        round(expected.calls),
        round(expected.input_tokens),
        round(expected.output_tokens),
        *(_cell(one.cost_nano_usd) for one in (span.low, expected, span.high)),
    )


def _cell(nano_usd: float | None) -> str:
    return "unknown" if nano_usd is None else about_dollars(nano_usd)


def about_dollars(nano_usd: float) -> str:
    """An estimated amount, to the cent or to two figures: $1,234.56, $12.30, $0.046."""
    usd = nano_usd / _NANO
    if usd >= 1 or usd == round(usd, 2):
        return f"${usd:,.2f}"
    places = max(2, 1 - math.floor(math.log10(abs(usd))))
    return f"${usd:.{places}f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _batch_json(one: BatchEstimate) -> dict[str, Any]:
    low, expected, high = one.seconds
    return {
        "batch": one.batch.name,
        "simulated": one.simulated,
        "jobs": one.jobs,
        "final": one.final,
        "changed": one.changed,
        "documents": one.documents,
        "models": [_model_json(model) for model in one.models],
        "total": _span_json(one.total),
        "seconds": {"low": round(low, 1), "expected": round(expected, 1), "high": round(high, 1)},
        "time_goes_by": one.binding,
        "spent_usd": _spent(one) / _NANO,
        "other_kind": one.other_kind,
        "rests_on": {
            "lengths": {str(ground): count for ground, count in one.grounds.items()},
            "prompts_counted": one.counts.counted,
            "documents_rehearsed": one.rehearsed,
            "documents_finished": one.finished,
        },
    }


def _model_json(model: ModelEstimate) -> dict[str, Any]:
    return {
        "model": model.model,
        "documents": model.documents,
        "price_known": model.span.expected.cost_nano_usd is not None,
        "lengths": {str(ground): count for ground, count in model.grounds.items()},
        "tokens_per_second": round(model.speed.tokens_per_second, 1),
        **_span_json(model.span),
    }


def _span_json(span: Span) -> dict[str, Any]:
    def three(get: Callable[[Amounts], float | None], digits: int = 0) -> dict[str, Any] | None:
        values = {
            "low": get(span.low),
            "expected": get(span.expected),
            "high": get(span.high),
        }
        if None in values.values():
            return None
        return {
            key: round(value, digits) if digits else round(value)
            for key, value in values.items()
            if value is not None
        }

    return {
        "calls": three(lambda one: one.calls),
        "input_tokens": three(lambda one: one.input_tokens),
        "cache_write_tokens": three(lambda one: one.cache_write_tokens),
        "cache_read_tokens": three(lambda one: one.cache_read_tokens),
        "output_tokens": three(lambda one: one.output_tokens),
        "cost_usd": three(
            lambda one: None if one.cost_nano_usd is None else one.cost_nano_usd / _NANO, 9
        ),
    }
