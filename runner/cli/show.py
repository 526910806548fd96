"""`runner show`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from runner.cli.common import database_option, json_option, print_json, reading, run_async
from runner.cli.harmless import for_stdout, one_line
from runner.cli.money import cost_words, dollars
from runner.cli.table import echo_table
from runner.errors import UsageError
from runner.jobs.call import Strategy

if TYPE_CHECKING:
    from runner.jobs.call import Usage
    from runner.output.document import ReadDocument
    from runner.store.records import JobEvent, SavedCall

_HEADER = (
    "call", "strategy", "resume point", "verdict", "characters", "stop reason",
    "input", "cache written", "cache read", "output", "cost", "request id", "error",
)  # fmt: skip


@click.command()
@click.argument("job")
@database_option
@click.option("--text", is_flag=True, help="Print the document's text instead of its calls.")
@click.option("--events", "with_events", is_flag=True, help="Print what happened to the job.")
@json_option
def show(job: str, database: str, text: bool, with_events: bool, as_json: bool) -> None:
    """Show one job: its calls, seams and tokens.

    JOB is a job's id, or BATCH/ID where several batches have it. Each line of the table is a call:
    how it was asked to continue, at which character its text joins the document (the resume
    point), what is known of that seam, the tokens it took and what they cost. A ~ marks our
    estimate: the stream broke before the API counted. With --json, one object with all of this;
    with --json --text, the text too.

    With --events, what happened to the job instead, oldest first: who claimed it, what broke its
    calls, what it waited for, from whom it was rescued, and how it ended. With --json --events, one
    object with the key `events`.

    \b
    Example:
      runner show five-stories
      runner show five-stories --events
      runner show five-animals/five-stories --text > stories.md
    """

    async def read() -> ReadDocument:
        from runner.output.document import read_document

        async with reading(database) as store:
            return await read_document(store, await store.find_job(job))

    async def read_events() -> list[JobEvent]:
        async with reading(database) as store:
            return await store.events((await store.find_job(job)).key)

    if with_events:
        if text:
            raise UsageError("--text and --events show different things: give one of them.")
        _print_events(run_async(read_events()), as_json)
        return
    document = run_async(read())
    if as_json:
        from runner.output.document import document_json

        print_json(document_json(document, with_text=text))
    elif text:
        click.echo(for_stdout(document.text).encode(errors="replace"), nl=False)
    else:
        _print(document)


def _print_events(events: list[JobEvent], as_json: bool) -> None:
    told = [(event, event.kind or "submitted") for event in events]
    if as_json:
        print_json(
            {
                "events": [
                    {
                        "at_ms": event.at_ms,
                        "kind": kind,
                        "claim": event.claim,
                        "worker": event.worker_id,
                        "detail": event.detail,
                    }
                    for event, kind in told
                ]
            }
        )
        return
    echo_table(
        ("time", "event", "claim", "worker", "detail"),
        [
            (
                _time(event.at_ms),
                kind,
                event.claim,
                event.worker_id and event.worker_id[:8],
                event.detail,
            )
            for event, kind in told
        ],
    )


def _print(document: ReadDocument) -> None:
    from runner.output.endings import advice, ending

    job, usage = document.job, document.usage
    lines = {
        "job": f"{job.batch}/{job.id}" + (" (simulated)" if job.simulated else ""),
        "model": job.model,
        "state": job.state,
        "document": f"{len(document.text):,} characters",
        "ending": ending(job),
        "next": advice(job),
        "submitted": _time(job.created_ms),
        "changed": _time(job.updated_ms),
        "claim": f"{job.claim}, attempt {job.attempt}, rescues {job.rescues}",
    }
    for name, value in lines.items():
        if value is not None:
            click.echo(f"{name:<10} {one_line(value)}")
    if not document.calls:
        return
    click.echo()
    echo_table(_HEADER, [_cells(call) for call in document.calls])
    click.echo()
    again = document.input_tokens_read_again
    click.echo(f"input tokens   {usage.total_input_tokens:,}")
    click.echo(
        f"  read again   {again:,}  (prompt and text so far, once more for each continuation)"
    )
    click.echo(f"output tokens  {_output(usage)}")
    click.echo(f"  again        {_written_again(document)}")
    told = cost_words(document.cost_nano_usd, document.unpriced_calls, estimated=usage.estimated)
    click.echo(f"cost           {told}")
    if superseded := job.cost_nano_usd - document.cost_nano_usd:
        click.echo(f"  besides      {dollars(superseded)} for text that left the document for good")
    for seam in document.doubtful_seams:
        click.echo(
            f"seam of call {seam.call} at character {seam.at:,} is not verified: read the text there"
        )


def _written_again(document: ReadDocument) -> str:
    """What of the output is not new text: all that can have been paid for twice."""
    again = []
    if taken_back := document.characters_taken_back:
        again.append(f"{taken_back:,} characters that were taken back at seams")
    if turns := sum(call.strategy is Strategy.TURN for call in document.calls):
        again.append(f"the anchor's words, in {turns:,} calls by turn")
    if rejected := document.characters_rejected:
        again.append(f"{rejected:,} characters of rejected replies")
    return "; ".join(again) or "nothing: every character that was written stands in the document"


def _cells(call: SavedCall) -> tuple[object, ...]:
    outcome = call.outcome
    usage = outcome.usage if outcome else None
    return (
        call.number,
        call.strategy,
        call.resume_at,
        call.verdict,
        len(call.text),
        (outcome.stop_reason if outcome else "running"),
        usage.input_tokens if usage else None,
        usage.cache_creation_input_tokens if usage else None,
        usage.cache_read_input_tokens if usage else None,
        _output(usage) if usage else None,
        _cost(call),
        outcome.request_id if outcome else None,
        _trouble(call),
    )


def _cost(call: SavedCall) -> str | None:
    if call.outcome is None:
        return None
    if call.cost_nano_usd is None:
        return "unknown"
    return dollars(call.cost_nano_usd, estimated=call.outcome.usage.estimated)


def _trouble(call: SavedCall) -> str:
    if call.outcome is None:
        return ""
    rejected = len(call.outcome.rejected or "")
    words = [f"reply of {rejected:,} characters rejected"] if rejected else []
    return "; ".join([*words, call.outcome.error or ""]).removesuffix("; ")


def _output(usage: Usage) -> str:
    return f"{'~' if usage.estimated else ''}{usage.output_tokens:,}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().isoformat(" ", "seconds")
