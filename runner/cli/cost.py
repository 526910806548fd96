"""`runner cost`."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from runner.cli.common import colour, database_option, json_option, print_json, reading, run_async
from runner.cli.harmless import harmless, one_line
from runner.cli.money import cost_cell, dollars
from runner.cli.table import LOOK_AHEAD, Table, echo_table, shortened
from runner.errors import UsageError
from runner.jobs.price import usd_json

if TYPE_CHECKING:
    from runner.store.ledger import Account, By, Pruned
    from runner.store.reading import ReadingStore

_BY = ("batch", "model", "day", "job")
_NAME_CELLS = 38  # with it the widest figures still fit into 100 columns


@click.command()
@database_option
@click.option(
    "--batch", "batches", multiple=True, metavar="NAME", help="Only this batch; may be given again."
)
@click.option(
    "--by", type=click.Choice(_BY), default="batch", show_default=True, help="A row for each."
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table.")
def cost(database: str, batches: tuple[str, ...], by: str, as_json: bool, as_csv: bool) -> None:
    """Show what was paid for what.

    Sums the calls that ended: by batch, by model, by day (in UTC, when a call was begun) or by job.
    A second table tells what the money was for: prompts read first and read again, documents read
    again by their continuations, the prompt cache, and output that was kept, or lost and paid for
    twice. Then what the same would have cost without prompt caching, and had each document come in
    one call.

    A ~ marks what is in part our own estimate: the stream of some call broke before the API
    counted. Calls whose price nobody knows are told beside the sums and are part of none; `prices:`
    in the job file names a price. Simulated batches cost nothing: their figures say what the same
    would have cost.

    With --json, one object with the keys `rows`, `totals` and `pruned`; by job, one object a line
    and job. With --csv, a line for each row.

    \b
    Example:
      runner cost
      runner cost --batch five-animals --by day
      runner cost --by job --csv > jobs.csv
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv are two forms of the same: give one of them.")

    async def read() -> None:
        from runner.output.batches import known_batches
        from runner.store.ledger import By

        async with reading(database) as store:
            keys = None
            if batches:
                keys = [row.key for row in await known_batches(store, batches)]
            found = _rows(store, By(by), keys)
            if as_csv:
                await _print_csv(found, By(by))
            elif as_json and by == "job":
                async for account in found:
                    print_json(account_json(account, By.JOB))
            elif as_json:
                await _print_json(found, await store.pruned_costs(keys), By(by))
            else:
                await _print_tables(store, found, keys, By(by))

    run_async(read())


async def _rows(
    store: ReadingStore, by: By, batch_keys: Sequence[int] | None
) -> AsyncIterator[Account]:
    from runner.store.ledger import By

    if by is By.JOB:
        async for account in store.accounts_by_job(batch_keys):
            yield account
        return
    for account in await store.accounts(by, batch_keys):
        yield account


class _Totals:
    """The sums of real and of simulated rows, which never mix."""

    def __init__(self) -> None:
        self.by_kind: dict[bool, Account] = {}
        self.rows = 0

    def add(self, account: Account, *, summed: bool = True, counted: bool = True) -> None:
        from runner.store.ledger import Account

        self.rows += counted
        if not summed:
            return
        before = self.by_kind.get(account.simulated)
        self.by_kind[account.simulated] = (before or Account(account.simulated)).plus(account)

    def in_order(self) -> list[Account]:
        return [self.by_kind[kind] for kind in sorted(self.by_kind)]


async def _print_json(rows: AsyncIterator[Account], pruned: Sequence[Pruned], by: By) -> None:
    totals, told = _Totals(), []
    async for account in rows:
        totals.add(account)
        told.append(account_json(account, by))
    print_json(
        {
            "by": by,
            "rows": told,
            "totals": [account_json(account, None) for account in totals.in_order()],
            "pruned": [
                {"batch": one.batch, "simulated": one.simulated, "cost_usd": usd_json(one.cost)}
                for one in pruned
            ],
        }
    )


def account_json(account: Account, by: By | None) -> dict[str, Any]:
    """A group's account as JSON; money in dollars."""
    from runner.output.document import usage_json

    return {
        **_name(account, by),
        "simulated": account.simulated,
        "calls": account.calls,
        "usage": usage_json(account.usage),
        "cost_usd": usd_json(account.cost),
        "estimated_cost_usd": usd_json(account.estimated_cost),
        "unpriced_calls": account.unpriced_calls,
        "purposes": {
            purpose: {"tokens": tokens, "cost_usd": usd_json(account.costs[purpose])}
            for purpose, tokens in account.tokens.items()
        },
        "without_caching_usd": usd_json(account.without_caching),
        "in_one_call_usd": usd_json(account.in_one_call),
    }


def _name(account: Account, by: By | None) -> dict[str, str | None]:
    if by is None:
        return {}
    if by == "job":
        return {"batch": account.batch, "job": account.job}
    return {by.value: getattr(account, by)}


async def _print_csv(rows: AsyncIterator[Account], by: By) -> None:
    header: list[str] = []
    async for account in rows:
        told = account_json(account, by)
        flat = {key: value for key, value in told.items() if key not in ("usage", "purposes")}
        flat |= told["usage"]
        for purpose, part in told["purposes"].items():
            flat |= {f"{purpose}_{key}": value for key, value in part.items()}
        if not header:
            header = list(flat)
            click.echo(_csv_line(header), nl=False)
        click.echo(_csv_line(flat.values()), nl=False)


def _csv_line(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(map(_csv_cell, cells))
    return line.getvalue()


def _csv_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.9f}"
    if not isinstance(value, str):
        return value
    text = harmless(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


async def _print_tables(
    store: ReadingStore, rows: AsyncIterator[Account], batch_keys: Sequence[int] | None, by: By
) -> None:
    from runner.store.ledger import By

    totals, first = _Totals(), []
    table: Table | None = None
    pruned = await store.pruned_costs(batch_keys)
    async for account in rows:
        totals.add(account, summed=by != "job")
        if table is not None:
            click.echo(table.line(_cells(account, by)))
            continue
        first.append(account)
        if len(first) == LOOK_AHEAD:
            table = _begin(first, by, [])
    if by == "job":  # a million of them are summed faster where they are
        async for account in _rows(store, By.BATCH, batch_keys):
            totals.add(account, counted=False)
    sums = totals.in_order()
    if not sums and not pruned:
        click.echo("no calls yet: `runner run FILE` makes some", err=True)
        return
    last = _last_lines(sums, totals.rows, pruned)
    if table is None:
        table = _begin(first, by, last)
    for cells in last:
        click.echo(table.line(cells))
    for account in sums[:1]:
        _print_purposes(account, kinds=len(sums))
    for account in sums:
        _print_unpriced(account)


def _begin(first: Sequence[Account], by: By, last: Sequence[Sequence[object]]) -> Table:
    cells = [_cells(account, by) for account in first]
    table = Table((by.value, "calls", "input tokens", "output tokens", "cost"), [*cells, *last])
    click.echo(table.head(bold=colour()))
    for row in cells:
        click.echo(table.line(row))
    return table


def _cells(account: Account, by: By) -> tuple[object, ...]:
    name = " / ".join(str(part) for part in _name(account, by).values())
    return _line(_marked(name, account.simulated), account)


def _line(name: str, account: Account) -> tuple[object, ...]:
    estimated = "~" if account.usage.estimated else ""
    return (
        shortened(name, _NAME_CELLS),
        account.calls,
        account.usage.total_input_tokens,
        f"{estimated}{account.usage.output_tokens:,}",
        cost_cell(account.cost, account.unpriced_calls, estimated=account.estimated_cost > 0),
    )


def _marked(name: str, simulated: bool) -> str:
    return f"{name} (simulated)" if simulated else name


def _last_lines(
    sums: Sequence[Account], rows: int, pruned: Sequence[Pruned]
) -> list[tuple[object, ...]]:
    lines: list[tuple[object, ...]] = []
    if rows > len(sums):
        lines += [_line(_marked("in all", account.simulated), account) for account in sums]
    for one in pruned:
        name = _marked(f"{one.batch}: pruned jobs", one.simulated)
        lines.append((shortened(name, _NAME_CELLS), None, None, None, dollars(one.cost)))
    return lines


def _print_purposes(account: Account, *, kinds: int) -> None:
    """What the money was for, and what it would have been otherwise."""
    click.echo()
    mark = "~" if account.estimated_cost else ""
    of = "" if kinds == 1 else " (simulated batches left out)"
    echo_table(
        (f"what for{of}", "tokens", "cost", "share"),
        [
            (
                purpose.words,
                tokens,
                mark + dollars(account.costs[purpose], like=account.cost),
                _share(account.costs[purpose], account.cost),
            )
            for purpose, tokens in account.tokens.items()
        ],
    )
    if account.cost:
        click.echo()
        _print_comparisons(account, mark)


def _print_comparisons(account: Account, mark: str) -> None:
    from runner.store.purposes import Purpose

    usage, cost = account.usage, account.cost
    if usage.cache_creation_input_tokens or usage.cache_read_input_tokens:
        saved = account.without_caching - cost
        verb = "caching saved" if saved >= 0 else "caching cost"
        _print_comparison("without prompt caching", account.without_caching, verb, saved, account)
    more = cost - account.in_one_call
    verb = "continuations cost" if more >= 0 else "the cache saved"
    _print_comparison("each document in one call", account.in_one_call, verb, more, account)
    lost = account.tokens[Purpose.OUTPUT_LOST]
    again = account.read_again_tokens
    click.echo(
        f"input read again: {again:,} tokens, where the prompts are {account.prompt_once_tokens:,}; "
        f"output paid twice: {mark}{_share(lost, usage.output_tokens)} of its tokens"
    )
    if account.simulated:
        click.echo("simulated: nothing was paid; this is what it would have cost")


def _print_comparison(words: str, other: int, verb: str, nano: int, account: Account) -> None:
    mark = "~" if account.estimated_cost else ""
    share = f"{100 * abs(nano) / account.cost:.0f}% of the cost"
    told = dollars(abs(nano), like=account.cost)
    click.echo(f"{words:<26} {mark}{dollars(other, like=account.cost):>9}   {verb} {told}, {share}")


def _share(part: int, whole: int) -> str:
    return "-" if not whole else f"{100 * part / whole:.1f}%"


def _print_unpriced(account: Account) -> None:
    if not account.unpriced_calls:
        return
    calls = "1 call" if account.unpriced_calls == 1 else f"{account.unpriced_calls:,} calls"
    click.echo(
        one_line(
            f"price unknown: {calls}{' (simulated)' if account.simulated else ''}, in no sum of "
            "money; `prices:` in the job file names a price"
        )
    )
