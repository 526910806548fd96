"""`runner limits`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from runner.cli.common import database_option, json_option, message, print_json, reading, run_async
from runner.cli.harmless import one_line
from runner.cli.meter import duration
from runner.cli.money import dollars
from runner.cli.pauses import pause_line
from runner.cli.table import echo_table
from runner.errors import UsageError
from runner.jobs.limits import MAX_A_MINUTE, MAX_CONCURRENCY
from runner.jobs.price import nano_usd, usd_json
from runner.jobs.values import MAX_USD

if TYPE_CHECKING:
    from runner.store.records import BatchRow, PaceMember, PaceRow

_MAX_TOKENS = 10**15


Check = Callable[[click.Context, click.Parameter, str | None], int | str | None]


def _number_or(word: str, most: int) -> Check:
    """Reads a whole number within bounds, or a word that stands for none."""

    def read(
        _context: click.Context, option: click.Parameter, value: str | None
    ) -> int | str | None:
        if value is None or value == word:
            return value
        if value.isascii() and value.isdecimal() and 1 <= int(value[:20]) <= most:
            return int(value)
        raise click.BadParameter(
            f"{value!r} is neither a whole number from 1 to {most:,} nor `{word}`.", param=option
        )

    return read


def _dollars_or_none(
    _context: click.Context, option: click.Parameter, value: str | None
) -> int | str | None:
    """Reads an amount of dollars as nano-dollars, or `none`."""
    if value is None or value == "none":
        return value
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal("NaN")
    if amount.is_finite() and 0 < amount <= MAX_USD and nano_usd(amount):
        return nano_usd(amount)
    raise click.BadParameter(
        f"{value!r} is neither an amount of dollars such as 12.50 nor `none`.", param=option
    )


def _rate(name: str, words: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}-per-minute",
        callback=_number_or("auto", MAX_A_MINUTE),
        metavar="N|auto",
        help=words,
    )


@click.command()
@click.argument("batch", required=False, metavar="[BATCH]")
@database_option
@click.option(
    "--concurrency",
    type=click.IntRange(1, MAX_CONCURRENCY),
    metavar="N",
    help="Calls open at once, in each process.",
)
@_rate("requests", "The most it may ask; auto: what the API allows.")
@_rate("input-tokens", "The most input it may send, likewise.")
@_rate("output-tokens", "The most output it may have written, likewise.")
@click.option(
    "--max-cost-usd",
    "max_cost_nano_usd",
    callback=_dollars_or_none,
    metavar="X|none",
    help="What all its calls may cost.",
)
@click.option(
    "--max-output-tokens",
    callback=_number_or("none", _MAX_TOKENS),
    metavar="N|none",
    help="Output tokens of all its calls.",
)
@click.option(
    "--breaker",
    type=click.Choice(["on", "off"]),
    help="Whether it pauses when the same error discards one job after another.",
)
@json_option
def limits(batch: str | None, database: str, as_json: bool, **given: Any) -> None:
    """Show what holds batches back, and change it while they run.

    Without options: the limits of each batch, what is spent of its budget, the rate limits that
    processes share as the API tells them, which of them cool down, and how many calls each
    process has open. With options: changes one batch, which is in effect within a second, in
    every process that works on it; a batch that its budget paused goes on where there is room
    again. Calls that are open come to their end. The limits of the job file hold again when it is
    next submitted, by `runner run` or `runner submit`.

    \b
    Example:
      runner limits
      runner limits five-animals --concurrency 5 --max-cost-usd 40
    """
    changes = _changes(given)
    if changes and batch is None:
        raise UsageError("say which batch is to change: `runner limits BATCH --concurrency 5`.")

    async def change_and_read() -> tuple[list[BatchRow], list[PaceRow], int]:
        from runner.output.batches import known_batches

        async with reading(database) as store:
            names = None if batch is None else [batch]
            rows = await known_batches(store, names)
            if changes:
                if changes.get("max_cost_nano_usd") is not None:
                    _refuse_unpriced(rows[0], await store.models(rows[0].key))
                before = rows[0].paused
                await store.set_limits(rows[0].key, changes)
                rows = await known_batches(store, names)
                _say_what_changed(rows[0], resumed=before is not None and rows[0].paused is None)
            return rows, await store.paces(), store.now_ms()

    rows, paces, now_ms = run_async(change_and_read())
    if as_json:
        print_json(
            {
                "batches": [_batch_json(row) for row in rows],
                "rate_limits": [_pace_json(row, now_ms) for row in paces],
            }
        )
    elif rows:
        _print_batches(rows)
        _print_paces(paces, now_ms)
    else:
        click.echo("no batches yet: `runner submit FILE` queues some", err=True)


def _changes(given: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, by the names of `BatchLimits`."""
    changes = {}
    for name, value in given.items():
        if name == "breaker" and value is not None:
            changes[name] = value == "on"
        elif value is not None:
            changes[name] = None if value in ("auto", "none") else value
    return changes


def _refuse_unpriced(row: BatchRow, models: Sequence[str]) -> None:
    """Refuse a budget in money that cannot be kept.

    Raises:
        UsageError: nobody knows the price of one of the models; nothing was changed.
    """
    from runner.jobs.spec import JobSpec
    from runner.messages.prices import is_priced

    for model in models:
        if not is_priced(JobSpec("", model, ()), row.limits.prices):
            raise UsageError(
                f"the price of {model} is not known, so a budget in money cannot be kept. Give it "
                "under `prices` in the job file and submit that again; nothing was changed."
            )


def _say_what_changed(row: BatchRow, *, resumed: bool) -> None:
    message(
        one_line(
            f"{row.name}: changed, until its job file is next submitted: `runner run` and "
            "`runner submit` bring the file's limits back"
        )
    )
    if resumed:
        message(one_line(f"{row.name} goes on: its budget has room again"))


def _print_batches(rows: Sequence[BatchRow]) -> None:
    echo_table(
        (
            "batch", "concurrency", "requests/min", "input tokens/min", "output tokens/min",
            "cost", "output tokens", "breaker",
        ),
        [
            (
                f"{row.name} (simulated)" if row.simulated else row.name,
                _concurrency(row),
                _or(row.limits.requests_per_minute, "auto"),
                _or(row.limits.input_tokens_per_minute, "auto"),
                _or(row.limits.output_tokens_per_minute, "auto"),
                _cost(row),
                _output(row),
                "on" if row.limits.breaker else "off",
            )
            for row in rows
        ],
    )  # fmt: skip
    for row in rows:
        if row.paused:
            click.echo(one_line(pause_line(row)))


def _print_paces(paces: Sequence[PaceRow], now_ms: int) -> None:
    paces = [pace for pace in paces if _tells(pace, now_ms)]
    if not paces:
        click.echo("rate limits: none told by the API yet")
        return
    click.echo()
    echo_table(
        (
            "rate limit", "requests/min", "input tokens/min", "output tokens/min", "cools down",
            "calls open",
        ),
        [
            (
                pace.name,
                pace.requests_per_minute,
                pace.input_tokens_per_minute,
                pace.output_tokens_per_minute,
                _cools(pace, now_ms),
                _members(pace, now_ms),
            )
            for pace in paces
        ],
    )  # fmt: skip


def _tells(pace: PaceRow, now_ms: int) -> bool:
    """Whether there is anything to say of a limit: one that nobody uses or knows has no line."""
    told = (
        pace.requests_per_minute,
        pace.input_tokens_per_minute,
        pace.output_tokens_per_minute,
    )
    known = any(figure is not None for figure in told)
    return known or pace.cooled_until_ms > now_ms or bool(_present(pace, now_ms))


def _concurrency(row: BatchRow) -> str:
    by_model = row.limits.concurrency_by_model.items()
    return ", ".join((f"{row.limits.concurrency:,}", *(f"{name}: {n:,}" for name, n in by_model)))


def _cost(row: BatchRow) -> str:
    most = row.limits.max_cost_nano_usd
    like = max(row.cost_nano_usd, most or 0)
    spent = dollars(row.cost_nano_usd, estimated=row.usage.estimated, like=like)
    aside = row.reserved_nano_usd
    return (
        f"{spent} of {'any' if most is None else dollars(most)}"
        + (f", {dollars(aside, like=like)} set aside" if aside else "")
        + (f", {row.unpriced_calls:,} calls of unknown price" if row.unpriced_calls else "")
    )


def _output(row: BatchRow) -> str:
    most = row.limits.max_output_tokens
    return f"{row.spent_output_tokens:,} of {_or(most, 'any')}"


def _or(number: int | None, word: str) -> str:
    return word if number is None else f"{number:,}"


def _cools(pace: PaceRow, now_ms: int) -> str:
    left_s = (pace.cooled_until_ms - now_ms) / 1000
    if left_s <= 0:
        return "-"
    return duration(left_s) + (f": {pace.cause}" if pace.cause else "")


def _members(pace: PaceRow, now_ms: int) -> str:
    """Calls that are open, of those that each process would have open at once."""
    told = (
        f"{one.in_flight} of {one.concurrency} ({one.worker_id[:8]})"
        for one in _present(pace, now_ms)
    )
    return ", ".join(told) or "-"


def _present(pace: PaceRow, now_ms: int) -> list[PaceMember]:
    """Those that told of themselves a short while ago: one that died says nothing more."""
    from runner.store.pace import SEEN_MS

    return [one for one in pace.members if now_ms - one.seen_ms <= SEEN_MS]


def _batch_json(row: BatchRow) -> dict[str, Any]:
    limits = row.limits
    return {
        "batch": row.name,
        "paused": row.paused,
        "pause_reason": row.pause_reason,
        "concurrency": limits.concurrency,
        "concurrency_by_model": dict(limits.concurrency_by_model),
        "max_attempts": limits.max_attempts,
        "requests_per_minute": limits.requests_per_minute,
        "input_tokens_per_minute": limits.input_tokens_per_minute,
        "output_tokens_per_minute": limits.output_tokens_per_minute,
        "max_cost_usd": usd_json(limits.max_cost_nano_usd),
        "cost_usd": usd_json(row.cost_nano_usd),
        "reserved_usd": usd_json(row.reserved_nano_usd),
        "unpriced_calls": row.unpriced_calls,
        "max_output_tokens": limits.max_output_tokens,
        "output_tokens": row.spent_output_tokens,
        "reserved_output_tokens": row.reserved_output_tokens,
        "breaker": limits.breaker,
    }


def _pace_json(pace: PaceRow, now_ms: int) -> dict[str, Any]:
    return {
        "name": pace.name,
        "cools_down_ms": max(0, pace.cooled_until_ms - now_ms),
        "cause": pace.cause,
        "requests_per_minute": pace.requests_per_minute,
        "input_tokens_per_minute": pace.input_tokens_per_minute,
        "output_tokens_per_minute": pace.output_tokens_per_minute,
        "processes": [
            {
                "worker": member.worker_id,
                "concurrency": member.concurrency,
                "in_flight": member.in_flight,
            }
            for member in _present(pace, now_ms)
        ],
    }
