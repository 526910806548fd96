"""What a job is: one prompt with its settings, known by its id and its hash."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any, Final

import orjson

from runner.jobs.call import Strategy
from runner.jobs.price import Rates

Json = Any  # a value that json.loads can return; its shape is the API's business, not ours

# The Message Batches rule for custom_id, so that any job file can become a Message Batch.
ID_PATTERN = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class OnUnverifiedSeam(StrEnum):
    """What to do with a text of which nobody can tell whether it joins the document."""

    FLAG = "flag"
    FAIL = "fail"


class Budget(StrEnum):
    """What is set aside of a batch's budget before a call."""

    WORST = "worst"  # the most it can cost: the batch never passes its budget
    EXPECTED = "expected"  # what such calls have cost so far: more calls at once, and a thin risk


class Caching(StrEnum):
    """Whether prompt caching is used where it pays."""

    AUTO = "auto"  # where it is all but sure to
    EAGER = "eager"  # also where it only may: on a document whose length nobody knows
    OFF = "off"


@dataclass(frozen=True, slots=True)
class ContinuationSpec:
    """Bounds of the continuation loop.

    Args:
        strategy: None lets the model's traits decide ("auto").
        max_calls: calls that may be answered for one document.
        max_output_tokens: output tokens of all its calls together; None is no bound.
        seam_retries: how often a reply that does not go on with the document is asked for again.
        on_unverified_seam: what then: let the text in with the seam flagged, or fail the job.
        max_nudges: how often a model that ended its turn before `until` is met is asked to go on.
        max_cost_nano_usd: what all its calls together may cost, in nano-dollars; None is no bound.
    """

    strategy: Strategy | None = None
    max_calls: int = 50
    max_output_tokens: int | None = None
    seam_retries: int = 2
    on_unverified_seam: OnUnverifiedSeam = OnUnverifiedSeam.FLAG
    max_nudges: int = 2
    max_cost_nano_usd: int | None = None


@dataclass(frozen=True, slots=True)
class Until:
    """The user's own condition for a finished document: one of the forms, or `all` of several.

    Args:
        contains: this text stands in it.
        matches: something in it matches this regular expression, in RE2's syntax.
        min_words: it has this many words, told apart by white space.
        min_chars: it has this many characters.
        closes_tags: True: each tag that is opened is closed again, and there is one; names: each
            of these is opened and closed.
        all: each of these conditions is met.
        stop: the document ends at the very place where the condition is met.
    """

    contains: str | None = None
    matches: str | None = None
    min_words: int | None = None
    min_chars: int | None = None
    closes_tags: bool | tuple[str, ...] = ()
    all: tuple[Until, ...] = ()
    stop: bool = False

    def as_json(self) -> dict[str, Json]:
        """What is set, as JSON: unset forms stay out of a job's hash."""
        tags = self.closes_tags
        values: dict[str, Json] = {
            "contains": self.contains,
            "matches": self.matches,
            "min_words": self.min_words,
            "min_chars": self.min_chars,
            "closes_tags": list(tags) if isinstance(tags, tuple) else tags,
            "all": [part.as_json() for part in self.all],
            "stop": self.stop,
        }
        return {key: value for key, value in values.items() if value not in (None, False, [])}

    @staticmethod
    def from_json(value: Mapping[str, Json]) -> Until:
        """The inverse of `as_json`; a single tag's name is taken too."""
        tags = value.get("closes_tags", ())
        return Until(
            **{key: value.get(key) for key in ("contains", "matches", "min_words", "min_chars")},
            closes_tags=tags if isinstance(tags, bool) else _texts(tags),
            all=tuple(map(Until.from_json, value.get("all", ()))),
            stop=value.get("stop", False),
        )


def _texts(value: Json) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


# Without slots, so that `JobSpec.plain` can leave fields at the defaults of the class.
@dataclass(frozen=True)
class JobSpec:
    """One prompt with its settings; yields one document.

    Args:
        id: the user's name for the job, unique in its batch.
        messages: the conversation that asks for the document, in the API's form.
        max_tokens: output tokens of one call; None takes the model's own limit ("auto").
        params: further request fields, passed on as they are.
        priority: higher goes first.
    """

    id: str
    model: str
    messages: tuple[Mapping[str, Json], ...]
    max_tokens: int | None = None
    system: str | tuple[Mapping[str, Json], ...] | None = None
    stop_sequences: tuple[str, ...] = ()
    thinking: Mapping[str, Json] | None = None
    output_config: Mapping[str, Json] | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    continuation: ContinuationSpec = ContinuationSpec()
    until: Until | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    priority: int = 0
    caching: Caching = Caching.AUTO

    @staticmethod
    def plain(
        id: str,
        model: str,
        messages: tuple[Mapping[str, Json], ...],
        max_tokens: int | None,
        system: str | None,
    ) -> JobSpec:
        """A job that is a prompt and nothing else: what most of a million are.

        The same as `JobSpec(…)`, whose fifteen fields take longer than all the rest of a line.
        """
        spec = object.__new__(JobSpec)
        _set_fields(
            spec,
            {
                "id": id,
                "model": model,
                "messages": messages,
                "max_tokens": max_tokens,
                "system": system,
                "params": _NOTHING,
                "metadata": _NOTHING,
            },
        )
        return spec

    def shape(self) -> dict[str, Json]:
        """All that shapes the answer, as JSON. Bounds, metadata and priority do not: they may be
        changed in the file without asking for the document again."""
        until = None if self.until is None else self.until.as_json()
        return {
            "model": self.model,
            "messages": list(self.messages),
            "max_tokens": self.max_tokens,
            "system": list(self.system) if isinstance(self.system, tuple) else self.system,
            "stop_sequences": list(self.stop_sequences),
            "thinking": self.thinking,
            "output_config": self.output_config,
            "params": dict(self.params),
            "strategy": self.continuation.strategy,
            "until": until,
        }

    def shape_data(self) -> bytes:
        """`canonical_json(self.shape())` in UTF-8, put together by hand where that is easy.

        Half a character, which has no UTF-8, stands there as CPython's `surrogatepass` writes it.
        """
        try:
            data = self._plain_shape()
        except TypeError:  # orjson's word for what it cannot write: half a character
            data = None
        if data is not None:
            return data
        return canonical_json(self.shape()).encode(errors="surrogatepass")

    def _plain_shape(self) -> bytes | None:
        """The same for a prompt and little else, by orjson: of texts it writes the very same JSON.

        Only of texts: it writes numbers in another way, and takes no large ones.
        """
        if (
            self.params
            or self.stop_sequences
            or self.thinking is not None
            or self.output_config is not None
            or self.until is not None
            or self.continuation.strategy is not None
            or not (self.system is None or type(self.system) is str)
        ):
            return None
        for message in self.messages:
            if (
                type(message) is not dict
                or len(message) != 2
                or type(message.get("content")) is not str
                or type(message.get("role")) is not str
            ):
                return None
        before, after = _around(self.max_tokens, self.model)
        messages = orjson.dumps(self.messages, option=orjson.OPT_SORT_KEYS)
        return b"".join((before, messages, after, orjson.dumps(self.system), _SHAPE_END))

    def settings_json(self) -> str:
        """`canonical_json(self.settings())`."""
        if self.metadata:
            return canonical_json(self.settings())
        if (
            self.continuation is _USUAL  # to look at its fields would take three times as long
            and self.priority == 0
            and self.caching is Caching.AUTO
        ):
            return _usual_settings()
        return _plain_settings(self.continuation, self.priority, self.caching)

    def settings(self) -> dict[str, Json]:
        """All that does not shape the answer, as JSON."""
        return {
            "max_calls": self.continuation.max_calls,
            "max_output_tokens": self.continuation.max_output_tokens,
            "seam_retries": self.continuation.seam_retries,
            "on_unverified_seam": self.continuation.on_unverified_seam,
            "max_nudges": self.continuation.max_nudges,
            "max_cost_nano_usd": self.continuation.max_cost_nano_usd,
            "metadata": dict(self.metadata),
            "priority": self.priority,
            "caching": self.caching,
        }

    @staticmethod
    def from_json(id: str, shape: Mapping[str, Json], settings: Mapping[str, Json]) -> JobSpec:
        """The inverse of `shape` and `settings`, for a job read back from the store."""
        strategy, until, system = shape["strategy"], shape["until"], shape["system"]
        return JobSpec(
            id=id,
            model=shape["model"],
            messages=tuple(shape["messages"]),
            max_tokens=shape["max_tokens"],
            system=tuple(system) if isinstance(system, list) else system,
            stop_sequences=tuple(shape["stop_sequences"]),
            thinking=shape["thinking"],
            output_config=shape["output_config"],
            params=shape["params"],
            continuation=ContinuationSpec(
                strategy=None if strategy is None else Strategy(strategy),
                max_calls=settings["max_calls"],
                max_output_tokens=settings["max_output_tokens"],
                seam_retries=settings["seam_retries"],
                on_unverified_seam=OnUnverifiedSeam(settings["on_unverified_seam"]),
                max_nudges=settings.get("max_nudges", ContinuationSpec().max_nudges),
                max_cost_nano_usd=settings.get("max_cost_nano_usd"),
            ),
            until=None if until is None else Until.from_json(until),
            metadata=settings["metadata"],
            priority=settings["priority"],
            caching=Caching(settings.get("caching", Caching.AUTO)),
        )


_set_fields: Final = vars(JobSpec)["__dict__"].__set__  # a frozen class lets nobody set them
_NOTHING: Final[Mapping[str, Json]] = {}
_USUAL: Final = JobSpec.continuation  # the default of the class
_SHAPE_END: Final = b',"thinking":null,"until":null}'


@lru_cache(maxsize=64, typed=True)  # 1 and 1.0 are equal, and not written alike
def _around(max_tokens: int | None, model: str) -> tuple[bytes, bytes]:
    """What stands before and behind the messages: the same in most jobs of a file."""
    before = f'{{"max_tokens":{"null" if max_tokens is None else max_tokens},"messages":'.encode()
    after = b',"model":%b,"output_config":null,"params":{},"stop_sequences":[],"strategy":null,"system":'
    return before, after % orjson.dumps(model)


@cache
def _usual_settings() -> str:
    return _plain_settings(_USUAL, 0, Caching.AUTO)


@lru_cache(maxsize=256, typed=True)
def _plain_settings(continuation: ContinuationSpec, priority: int, caching: Caching) -> str:
    spec = JobSpec("", "", (), continuation=continuation, priority=priority, caching=caching)
    return canonical_json(spec.settings())


def canonical_json(value: Json) -> str:
    """JSON with sorted keys and no spare white space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def shape_hash(shape_data: bytes) -> bytes:
    """The hash by which a job's prompt is recognised: 16 bytes of BLAKE2b over `shape_data`."""
    return blake2b(shape_data, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits a job file sets for its batch.

    Args:
        concurrency: calls open at once, over all models.
        concurrency_by_model: the same for single models, by name.
        max_attempts: errors worth another try that a job may meet in a row, without one saved
            character between them, before it is discarded.
        max_cost_nano_usd: what all its calls may cost, in nano-dollars; None is no bound.
        max_output_tokens: output tokens of all its calls; None is no bound.
        budget: what is set aside for a call before it is made.
        confirm_above_nano_usd: a person at a terminal is asked before a run that may cost more.
        requests_per_minute, input_tokens_per_minute, output_tokens_per_minute: the most it may use
            of the API's rate limits; None leaves it to what the API tells.
        breaker: pause when the same error discards one job after another.
        prices: of models whose price is not known, or not the usual one, by name.
    """

    concurrency: int = 20
    concurrency_by_model: Mapping[str, int] = field(default_factory=dict)
    max_attempts: int = 10
    max_cost_nano_usd: int | None = None
    max_output_tokens: int | None = None
    budget: Budget = Budget.WORST
    confirm_above_nano_usd: int | None = None
    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    breaker: bool = True
    prices: Mapping[str, Rates] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """The head of a job file: the name and limits under which its jobs stand."""

    name: str
    limits: BatchLimits = BatchLimits()
