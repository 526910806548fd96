"""What a model's tokens cost, from data that came with an installed package: nothing is asked
online, and a price that is not known is said to be unknown, never taken as nothing.

Source: Messages API documentation, pricing; as collected by genai-prices.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from runner.jobs.model_names import is_claude, plain_name
from runner.jobs.price import Price, Rates, nano_usd
from runner.jobs.spec import JobSpec

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Tier, TieredPrices

# Of the input price, where the data names none for the cache. Source: Messages API documentation,
# prompt caching.
_WRITE_5M, _WRITE_1H, _READ = Decimal("1.25"), Decimal(2), Decimal("0.1")

ANTHROPIC: Final = "https://api.anthropic.com"
_CLAUDE_IS_SOLD_BY = "anthropic"


def price_of(
    model: str,
    *,
    base_url: str,
    at: datetime,
    own: Mapping[str, Rates],
    speed: str | None = None,
) -> Price | None:
    """What a call costs, as of its day in UTC; None where nobody knows.

    A Claude model is taken to cost what Anthropic asks for it wherever it is asked, the simulator
    included, unless the endpoint is a seller whose own prices are known. Looked up once a model
    and day.

    Args:
        base_url: of the endpoint.
        at: when the call is made.
        own: `prices:` of the job file, by model; they go first.
        speed: the request's own field of that name, which has a price of its own.
    """
    if rates := own.get(model):
        return Price(rates)
    return _known(model, base_url, at.astimezone(UTC).date(), speed)


def price_of_request(
    model: str,
    params: Mapping[str, Any],
    *,
    base_url: str,
    at: datetime,
    own: Mapping[str, Rates],
) -> Price | None:
    """What a request costs, its own fields considered; None where nobody knows.

    A request that may be answered in one part of the world alone costs more on some models, and
    the data does not tell how much. Source: Messages API documentation, data residency.

    Args:
        params: the request's further fields.
        base_url, at, own: as of `price_of`.
    """
    speed, geo = params.get("speed"), params.get("inference_geo")
    if geo not in (None, "global") and model not in own:
        return None
    return price_of(
        model, base_url=base_url, at=at, own=own, speed=None if speed is None else str(speed)
    )


def is_priced(spec: JobSpec, own: Mapping[str, Rates]) -> bool:
    """Whether anybody knows what a job's calls cost today, at the endpoint that the environment
    names."""
    base_url = os.environ.get("ANTHROPIC_BASE_URL") or ANTHROPIC
    now = datetime.now(UTC)
    return price_of_request(spec.model, spec.params, base_url=base_url, at=now, own=own) is not None


@lru_cache(maxsize=1024)
def _known(model: str, base_url: str, day: date, speed: str | None) -> Price | None:
    # Noon, since some sellers are cheaper by night and a day has one price here.
    noon = datetime.combine(day, time(12), UTC)
    info = _info(model, base_url)
    if info is None:
        return None
    standard = info.get_prices(noon)
    context = {} if speed in (None, "standard") else {"speed": str(speed)}
    prices = info.get_prices(noon, context)
    if context and prices == standard:
        return None  # a misspelt or newer speed would pass for the standard price
    return _price(prices)


def _info(model: str, base_url: str) -> ModelInfo | None:
    # Imported here: it takes a fifth of a second, and most commands know no price.
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot

    # A snapshot of our own: one that somebody else set might have come from the net.
    snapshot = DataSnapshot(providers=providers, from_auto_update=False)
    for seller, url in ((None, base_url), (_CLAUDE_IS_SOLD_BY, None)):
        if seller is not None and not is_claude(model):
            break
        for name in dict.fromkeys((model, plain_name(model))):
            try:
                return snapshot.find_provider_model(name, None, seller, url)[1]
            except LookupError:
                continue
    return None


def _price(prices: ModelPrice) -> Price | None:
    if prices.input_mtok is None or prices.output_mtok is None:
        return None
    columns = (
        prices.input_mtok,
        prices.output_mtok,
        prices.cache_write_mtok or _times(prices.input_mtok, _WRITE_5M),
        prices.cache_write_1h_mtok or _times(prices.input_mtok, _WRITE_1H),
        prices.cache_read_mtok or _times(prices.input_mtok, _READ),
    )
    starts = sorted({tier.start for column in columns for tier in _tiers(column)})
    return Price(_rates(columns, 0), tuple((start, _rates(columns, start + 1)) for start in starts))


def _rates(columns: tuple[Decimal | TieredPrices, ...], input_tokens: int) -> Rates:
    return Rates(*(nano_usd(_at(column, input_tokens)) for column in columns))


def _at(price: Decimal | TieredPrices, input_tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
    return reached[-1] if reached else price.base


def _tiers(price: Decimal | TieredPrices) -> list[Tier]:
    return [] if isinstance(price, Decimal) else price.tiers


def _times(price: Decimal | TieredPrices, factor: Decimal) -> Decimal | TieredPrices:
    if isinstance(price, Decimal):
        return price * factor
    return replace(
        price,
        base=price.base * factor,
        tiers=[replace(tier, price=tier.price * factor) for tier in price.tiers],
    )
