"""What was paid for what: the calls that ended, summed by batch, model, day or job.

The sums of tokens are SQL's, one row for each group and each set of rates in it, so that a million
calls are read once and nothing is counted in Python. Money is shared out by purpose afterwards.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Row, TextClause, bindparam, text

from runner.jobs.call import Usage
from runner.jobs.price import Rates
from runner.store.database import thorough
from runner.store.purposes import READS_FIRST, SPLIT_SQL, Purpose, Split

DAY_MS: Final = 86_400_000
JOBS_A_PAGE: Final = 5_000

Rows = Callable[[TextClause, Mapping[str, object]], Awaitable[Sequence[Row[Any]]]]


class By(StrEnum):
    """What calls are summed by."""

    BATCH = "batch"
    MODEL = "model"
    DAY = "day"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Account:
    """What the calls of one group came to. Money is in nano-dollars.

    Args:
        simulated: their documents come from the simulator, so that nothing was paid.
        batch, model, day, job: what the group is, where it is one of that; a day is that on which
            the calls were begun, in UTC.
        cost: of the calls whose price is known.
        estimated_cost: of those among them whose stream broke, so that their tokens are estimated.
        unpriced_calls: of whose price nobody knows; they are part of no sum of money.
        tokens, costs: by what they were for; `tokens` of all calls, `costs` sums to `cost`.
        prompt_once_tokens: input tokens of the prompts, each counted once.
        without_caching: what the same would have cost without prompt caching.
        in_one_call: what it would have cost had each document come in one call: its prompt read
            once, and the output that was kept.
    """

    simulated: bool
    batch: str | None = None
    model: str | None = None
    day: str | None = None
    job: str | None = None
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: int = 0
    estimated_cost: int = 0
    unpriced_calls: int = 0
    tokens: Mapping[Purpose, int] = field(default_factory=lambda: Split().tokens)
    costs: Mapping[Purpose, int] = field(default_factory=lambda: Split().tokens)
    prompt_once_tokens: int = 0
    without_caching: int = 0
    in_one_call: int = 0

    @property
    def read_again_tokens(self) -> int:
        """Input tokens beyond each prompt once: what continuations read anew."""
        return self.usage.total_input_tokens - self.prompt_once_tokens

    def plus(self, other: Account) -> Account:
        """Both together, named as the first."""
        a, b = self.usage, other.usage
        return replace(
            self,
            calls=self.calls + other.calls,
            usage=Usage(
                input_tokens=a.input_tokens + b.input_tokens,
                cache_creation_input_tokens=a.cache_creation_input_tokens
                + b.cache_creation_input_tokens,
                cache_creation_1h_input_tokens=a.cache_creation_1h_input_tokens
                + b.cache_creation_1h_input_tokens,
                cache_read_input_tokens=a.cache_read_input_tokens + b.cache_read_input_tokens,
                output_tokens=a.output_tokens + b.output_tokens,
                estimated=a.estimated or b.estimated,
            ),
            cost=self.cost + other.cost,
            estimated_cost=self.estimated_cost + other.estimated_cost,
            unpriced_calls=self.unpriced_calls + other.unpriced_calls,
            tokens={one: self.tokens[one] + other.tokens[one] for one in Purpose},
            costs={one: self.costs[one] + other.costs[one] for one in Purpose},
            prompt_once_tokens=self.prompt_once_tokens + other.prompt_once_tokens,
            without_caching=self.without_caching + other.without_caching,
            in_one_call=self.in_one_call + other.in_one_call,
        )


@dataclass(frozen=True, slots=True)
class Pruned:
    """What the jobs of a batch cost that were pruned since, in nano-dollars."""

    batch: str
    simulated: bool
    cost: int


# What a kept token would have cost in its document's first call: a model may be dearer the longer
# the request, and a document in one call has no long request.
_FIRST_OUTPUT_PRICE: Final = """\
CASE call.number WHEN 1 THEN call.output_price ELSE coalesce(
  (SELECT first.output_price FROM call AS first
   WHERE first.job_key = call.job_key AND first.number = 1 AND first.superseded = 0),
  call.output_price) END"""
_RATES: Final = (
    "input_price", "output_price", "cache_write_5m_price", "cache_write_1h_price",
    "cache_read_price",
)  # fmt: skip
_USAGE: Final = (
    "input_tokens", "cache_creation_input_tokens", "cache_creation_1h_input_tokens",
    "cache_read_input_tokens", "output_tokens",
)  # fmt: skip
_WHOLE_INPUT: Final = (
    "call.input_tokens + call.cache_creation_input_tokens + call.cache_read_input_tokens"
)
_SUMS: Final = {
    "calls": "count(*)",
    **{name: f"sum(call.{name})" for name in _USAGE},
    "usage_estimated": "max(call.usage_estimated)",
    "cost": "coalesce(sum(call.cost_nano_usd), 0)",
    "estimated_cost": "coalesce(sum(call.cost_nano_usd * call.usage_estimated), 0)",
    "unpriced_calls": "count(*) FILTER (WHERE call.cost_nano_usd IS NULL)",
    **{name: f"sum({sql})" for name, sql in SPLIT_SQL.items()},
    "prompt_once": f"sum(({READS_FIRST}) * coalesce(call.prompt_tokens, {_WHOLE_INPUT}))",
    # In whole nano-dollars a call, for the sum to fit into 64 bits.
    "kept_in_one_call": f"sum(({SPLIT_SQL['output_kept']}) * ({_FIRST_OUTPUT_PRICE}) / 1000000)",
}
_GROUPS: Final = {
    By.BATCH: {"batch_key": "batch.key", "batch": "batch.name"},
    By.MODEL: {"model": "call.model"},
    By.DAY: {"day": f"call.started_ms / {DAY_MS}"},
    By.JOB: {"job_key": "job.key", "batch": "batch.name", "job": "job.id"},
}
_NAMES: Final = ("simulated", "job_key", "batch", "model", "day", "job")
_ORDER: Final = {
    By.BATCH: "batch.key",
    By.MODEL: "call.model",
    By.DAY: f"call.started_ms / {DAY_MS}",
    By.JOB: "job.key",
}


def _statement(by: By, condition: str) -> str:
    groups = {"simulated": "batch.simulated", **_GROUPS[by]}
    groups |= {name: f"call.{name}" for name in _RATES}
    # Every row has all names, those that it is not grouped by empty: a name that is missing is dear
    # to ask for, a million times.
    columns = dict.fromkeys(_NAMES, "NULL") | groups | _SUMS
    shown = ",\n  ".join(f"{sql} AS {name}" for name, sql in columns.items())
    return (
        f"SELECT {shown}\n"
        "FROM call JOIN job ON job.key = call.job_key JOIN batch ON batch.key = job.batch_key\n"
        f"WHERE call.ended_ms IS NOT NULL AND {condition}\n"
        f"GROUP BY {', '.join(groups.values())}\n"
        f"ORDER BY {_ORDER[by]}, batch.simulated"
    )


_ALL: Final = "1 = 1"
_IN_BATCHES: Final = "job.batch_key IN :batch_keys"
_PAGE: Final = "call.job_key > :after AND call.job_key <= :upto"
# The last job of the next page.
_UPTO: Final = text(
    "SELECT max(key) AS upto FROM (SELECT key FROM job WHERE key > :after ORDER BY key LIMIT :size) AS page"
)
# One statement, so that both sums are of the same moment.
_PRUNED: Final = thorough(
    text(
        "SELECT batch.key, batch.name, batch.simulated,"
        " batch.cost_nano_usd - coalesce(there.cost, 0) AS cost "
        "FROM batch LEFT JOIN ("
        "SELECT job.batch_key, sum(call.cost_nano_usd) AS cost"
        " FROM call JOIN job ON job.key = call.job_key"
        " WHERE call.ended_ms IS NOT NULL GROUP BY job.batch_key"
        ") AS there ON there.batch_key = batch.key "
        "ORDER BY batch.key"
    )
)


async def accounts(rows: Rows, by: By, batch_keys: Collection[int] | None) -> list[Account]:
    """The ended calls, summed by batch, model or day, in that order.

    Args:
        rows: reads a statement's rows.
        batch_keys: only these batches; None takes all.
    """
    if batch_keys is None:
        return _accounts(await rows(thorough(text(_statement(by, _ALL))), {}))
    statement = text(_statement(by, _IN_BATCHES)).bindparams(
        bindparam("batch_keys", expanding=True)
    )
    return _accounts(await rows(thorough(statement), {"batch_keys": sorted(batch_keys)}))


async def accounts_by_job(rows: Rows, batch_keys: Collection[int] | None) -> AsyncIterator[Account]:
    """The same by job, in the order of submission, page by page: memory stays flat."""
    condition = _PAGE if batch_keys is None else f"{_PAGE} AND {_IN_BATCHES}"
    statement = text(_statement(By.JOB, condition))
    values: dict[str, object] = {}
    if batch_keys is not None:
        statement = statement.bindparams(bindparam("batch_keys", expanding=True))
        values["batch_keys"] = sorted(batch_keys)
    after = 0
    while True:
        ((upto,),) = await rows(_UPTO, {"after": after, "size": JOBS_A_PAGE})
        if upto is None:
            return
        for account in _accounts(await rows(statement, {**values, "after": after, "upto": upto})):
            yield account
        after = upto


async def pruned(rows: Rows, batch_keys: Collection[int] | None) -> list[Pruned]:
    """What batches paid for jobs that are no longer in the database."""
    return [
        Pruned(row.name, bool(row.simulated), row.cost)
        for row in await rows(_PRUNED, {})
        if row.cost > 0 and (batch_keys is None or row.key in batch_keys)
    ]


def _accounts(rows: Iterable[Row[Any]]) -> list[Account]:
    """Rows of one group at several rates, put together."""
    found = []
    for _, group in groupby(rows, key=_group):
        first, *others = map(_account, group)
        for other in others:
            first = first.plus(other)
        found.append(first)
    return found


def _group(row: Row[Any]) -> Sequence[object]:
    return row[: len(_NAMES)]


def _account(row: Row[Any]) -> Account:
    split = Split(*(getattr(row, name) for name in SPLIT_SQL))
    usage = Usage(
        **{name: getattr(row, name) for name in _USAGE}, estimated=bool(row.usage_estimated)
    )
    rates = None
    if row.input_price is not None:
        rates = Rates(*(getattr(row, name) for name in _RATES))
    account = Account(
        simulated=bool(row.simulated),
        batch=row.batch,
        model=row.model,
        day=None if row.day is None else _day(row.day),
        job=row.job,
        calls=row.calls,
        usage=usage,
        cost=row.cost,
        estimated_cost=row.estimated_cost,
        unpriced_calls=row.unpriced_calls,
        tokens=split.tokens,
        prompt_once_tokens=row.prompt_once,
    )
    if rates is None:
        return account
    cached = usage.cache_creation_input_tokens or usage.cache_read_input_tokens
    uncached = Rates(rates.input, rates.output, rates.input, rates.input, rates.input)
    return replace(
        account,
        costs=split.shares(row.cost, rates),
        without_caching=uncached.cost(usage) if cached else row.cost,
        in_one_call=rates.cost(Usage(input_tokens=row.prompt_once)) + row.kept_in_one_call,
    )


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_MS / 1000, UTC).date().isoformat()
