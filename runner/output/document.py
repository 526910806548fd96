"""A document with all that a reader needs to check it: calls, seams, usage."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runner.continuation.document import fold
from runner.jobs.call import Strategy, Usage, Verdict
from runner.jobs.price import usd_json
from runner.output.endings import Standing, standing
from runner.store.document_reads import TOGETHER
from runner.store.records import JobRow, SavedCall
from runner.store.store import Store

TOKENS_TOGETHER: Final = 500_000  # some 2 MB of text


@dataclass(frozen=True, slots=True)
class Seam:
    """A place of the document where one call's text joins another's.

    `at` is in characters from the document's beginning; `call` is the number of the call whose
    text begins there.
    """

    at: int
    call: int
    strategy: Strategy | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A job, its calls and its text, all of one moment."""

    job: JobRow
    calls: tuple[SavedCall, ...]
    text: str

    @property
    def complete(self) -> bool:
        return standing(self.job) is Standing.COMPLETE

    @property
    def seams(self) -> tuple[Seam, ...]:
        """The seams that stand in the text. A call that went back behind an earlier seam, and one
        that gave no text, leave none."""
        seams: list[Seam] = []
        for call in self.calls:
            seams = [seam for seam in seams if seam.at < call.resume_at]
            if call.text and call.resume_at:
                seams.append(Seam(call.resume_at, call.number, call.strategy, call.verdict))
        return tuple(seams)

    @property
    def usage(self) -> Usage:
        """Tokens of all calls that ended; estimated if any of them is."""
        return total(self.calls)

    @property
    def cost_nano_usd(self) -> int:
        """What its calls cost, as far as their price is known."""
        return sum(call.cost_nano_usd or 0 for call in self.calls)

    @property
    def unpriced_calls(self) -> int:
        """Calls that ended and whose price nobody knows."""
        return sum(call.outcome is not None and call.cost_nano_usd is None for call in self.calls)

    @property
    def input_tokens_read_again(self) -> int:
        """Input tokens of every call after the first: prompt and document, read once more."""
        return total(self.calls[1:]).total_input_tokens

    @property
    def characters_taken_back(self) -> int:
        """Characters that were saved and that stand no longer in the document."""
        return sum(len(call.text) for call in self.calls) - len(self.text)

    @property
    def characters_rejected(self) -> int:
        """Characters of replies that did not go on with the document, and never entered it."""
        return sum(len(rejected(call) or "") for call in self.calls)

    @property
    def doubtful_seams(self) -> tuple[Seam, ...]:
        """Seams of which nothing is known: a reader should look at the text there."""
        return tuple(seam for seam in self.seams if seam.verdict in (None, Verdict.UNVERIFIED))


def rejected(call: SavedCall) -> str | None:
    """The text of a call's reply that was rejected."""
    return call.outcome.rejected if call.outcome else None


def total(calls: Sequence[SavedCall]) -> Usage:
    """Tokens of several calls together. One that has not ended counts nothing yet."""
    usages = [call.outcome.usage for call in calls if call.outcome is not None]
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in usages),
        cache_creation_input_tokens=sum(usage.cache_creation_input_tokens for usage in usages),
        cache_read_input_tokens=sum(usage.cache_read_input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        estimated=any(usage.estimated for usage in usages),
    )


async def read_document(store: Store, job: JobRow) -> ReadDocument:
    """Read a job's document, also while it is being written or replaced by another process.

    State and text come from several reads. Where the job changed between them they are read again,
    so that a text is never shown under the finish of another.

    Raises:
        NotFound: the job is no longer there.
    """
    while True:
        calls = tuple(await store.calls(job.key))
        after = await store.job(job.key)
        if _moment(after) == _moment(job):
            return ReadDocument(after, calls, fold((call.resume_at, call.text) for call in calls))
        job = after


async def read_documents(
    store: Store, jobs: AsyncIterator[JobRow]
) -> AsyncIterator[list[ReadDocument]]:
    """The same of many jobs, some together: a million small documents are read in a tenth of the
    time, and of large ones few are in memory.

    Raises:
        NotFound: one of the jobs is no longer there.
    """
    group: list[JobRow] = []
    tokens = 0
    async for job in jobs:
        group.append(job)
        tokens += job.usage.output_tokens
        if len(group) == TOGETHER or tokens > TOKENS_TOGETHER:
            yield await _read_group(store, group)
            group, tokens = [], 0
    if group:
        yield await _read_group(store, group)


async def _read_group(store: Store, jobs: Sequence[JobRow]) -> list[ReadDocument]:
    if len(jobs) == 1:
        return [await read_document(store, jobs[0])]
    calls = await store.calls_of([job.key for job in jobs])
    unchanged = await store.unchanged(jobs)
    documents = []
    for job in jobs:
        if job.key in unchanged:
            own = tuple(calls.pop(job.key))
            text = fold((call.resume_at, call.text) for call in own)
            documents.append(ReadDocument(job, own, text))
        else:
            documents.append(await read_document(store, job))
    return documents


def _moment(job: JobRow) -> tuple[object, ...]:
    return job.key, job.state, job.finish, job.claim, job.updated_ms


# Many programs that read lines take these for line ends; JSON may write them as escapes.
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def json_line(value: Any) -> str:
    """A value as JSON on one line, by anyone's idea of a line; without the line end."""
    return json.dumps(value, ensure_ascii=False).translate(_LINE_ENDS)


def usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_creation_1h_input_tokens": usage.cache_creation_1h_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "output_tokens": usage.output_tokens,
        "estimated": usage.estimated,
    }


def job_json(job: JobRow) -> dict[str, Any]:
    """A job as JSON: the words of the tables, no text."""
    return {
        "id": job.id,
        "batch": job.batch,
        "simulated": job.simulated,
        "model": job.model,
        "state": job.state,
        "finish": job.finish,
        "standing": standing(job),
        "complete": standing(job) is Standing.COMPLETE,
        "error": job.error,
        "priority": job.priority,
        "claim": job.claim,
        "attempt": job.attempt,
        "rescues": job.rescues,
        "scheduled_ms": job.scheduled_ms,
        "created_ms": job.created_ms,
        "updated_ms": job.updated_ms,
        "calls": job.calls,
        "usage": usage_json(job.usage),
        "cost_usd": usd_json(job.cost_nano_usd),
        "unpriced_calls": job.unpriced_calls,
        "metadata": dict(job.metadata),
    }


def call_json(call: SavedCall) -> dict[str, Any]:
    """A call as JSON; what its outcome would say is null while it runs."""
    outcome = call.outcome
    return {
        "number": call.number,
        "claim": call.claim,
        "model": call.model,
        "strategy": call.strategy,
        "resume_at": call.resume_at,
        "verdict": call.verdict,
        "characters": len(call.text),
        "max_tokens": call.max_tokens,
        "stop_reason": outcome and outcome.stop_reason,
        "stop_sequence": outcome and outcome.stop_sequence,
        "stop_details": dict(outcome.stop_details) if outcome and outcome.stop_details else None,
        "usage": outcome and usage_json(outcome.usage),
        "prompt_tokens": call.prompt_tokens,
        "lost_output_tokens": call.lost_output_tokens,
        "dropped_output_tokens": call.dropped_output_tokens,
        "cost_usd": usd_json(call.cost_nano_usd),
        "request_id": outcome and outcome.request_id,
        "error": outcome and outcome.error,
        "rejected": rejected(call),
        "started_ms": call.started_ms,
        "ended_ms": call.ended_ms,
    }


def document_json(document: ReadDocument, *, with_text: bool) -> dict[str, Any]:
    """A document as JSON: `job_json` with the calls themselves, the seams, and the text."""
    value = job_json(document.job)
    value["usage"] = usage_json(document.usage)
    value["characters"] = len(document.text)
    value["input_tokens_read_again"] = document.input_tokens_read_again
    value["characters_taken_back"] = document.characters_taken_back
    value["characters_rejected"] = document.characters_rejected
    value["calls"] = [call_json(call) for call in document.calls]
    value["seams"] = [
        {"call": seam.call, "at": seam.at, "strategy": seam.strategy, "verdict": seam.verdict}
        for seam in document.seams
    ]
    if with_text:
        value["text"] = document.text
    return value
