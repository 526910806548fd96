"""What a run looks like at one moment: a picture for a terminal, a line for everything else.

Everything here is pure: a snapshot in, something to print out. Model text is made harmless first,
and put in as plain text, never as markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.cli.harmless import one_line
from runner.cli.meter import Meter, duration
from runner.cli.money import spent_by_all
from runner.cli.pauses import pause_line, pause_words
from runner.jobs.states import State
from runner.store.records import BatchRow
from runner.workers.progress import Progress

WAITING = (State.AVAILABLE, State.SCHEDULED, State.RETRYABLE)

# Joiners, variants and skin tones: terminals do not agree on how wide what they make is.
_UNSURE_WIDTH = re.compile("[\u200b-\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]")

_BAR_CELLS = 30
_NAME_CELLS = 28
_LEAST_WORDS_CELLS = 20  # a narrower screen shows no last words


@dataclass(frozen=True, slots=True)
class Writing:
    """A document that is being written."""

    name: str
    call_number: int
    characters: int
    last_words: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shown of a run at one moment, text made harmless.

    Args:
        done: complete documents.
        calls, input_tokens, output_tokens: of the batches so far, also by earlier runs. While calls
            are open, their output is estimated.
        cost: what the calls that ended cost, of the budget where there is one, in words.
        pauses: one line a paused batch.
        paused: the same in few words.
    """

    title: str
    elapsed_s: float
    total: int
    done: int
    cut: int
    failed: int
    cancelled: int
    running: int
    waiting: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost: str
    tokens_per_second: float | None
    seconds_left: float | None
    pauses: tuple[str, ...]
    paused: tuple[str, ...]
    writing: tuple[Writing, ...]
    stopping: bool

    @property
    def final(self) -> int:
        return self.done + self.cut + self.failed + self.cancelled


def snapshot(batches: Sequence[BatchRow], progress: Progress, meter: Meter) -> Snapshot:
    """What the store and the working process say at this moment."""
    names = [one_line(batch.name) for batch in batches]
    total = sum(batch.jobs for batch in batches)
    final = final_jobs(batches)
    return Snapshot(
        title=", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        elapsed_s=meter.elapsed_s(),
        total=total,
        done=sum(batch.complete for batch in batches),
        cut=sum(batch.cut for batch in batches),
        failed=sum(batch.count(State.DISCARDED) for batch in batches),
        cancelled=sum(batch.count(State.CANCELLED) for batch in batches),
        running=sum(batch.count(State.EXECUTING) for batch in batches),
        waiting=sum(batch.count(*WAITING) for batch in batches),
        calls=sum(batch.calls for batch in batches) + len(progress.live),
        input_tokens=sum(batch.usage.total_input_tokens for batch in batches),
        output_tokens=max(
            sum(batch.usage.output_tokens for batch in batches),
            meter.output_tokens(progress.output_characters) if progress.live else 0,
        ),
        cost=spent_by_all(batches),
        tokens_per_second=meter.tokens_per_second(),
        seconds_left=meter.seconds_left(final, total - final),
        pauses=tuple(one_line(pause_line(batch)) for batch in batches if batch.paused),
        paused=tuple(one_line(pause_words(batch)) for batch in batches if batch.paused),
        writing=tuple(
            Writing(
                one_line(job.job_id if len(batches) == 1 else f"{job.batch}/{job.job_id}"),
                job.call_number,
                job.characters,
                one_line(job.last_words),
            )
            for _, job in sorted(progress.live.items())
        ),
        stopping=progress.stopping,
    )


def final_jobs(batches: Sequence[BatchRow]) -> int:
    return sum(batch.count(*(state for state in State if state.final)) for batch in batches)


def draw(shot: Snapshot, width: int, height: int) -> Group:
    """A picture of at most `height` lines, none wider than `width` cells."""
    head: list[Text | Table] = [
        _title(shot, width),
        _bar(shot, width),
        _line(_documents(shot), width),
        _line(_flow(shot), width),
        *(_line(Text(pause, "yellow"), width) for pause in shot.pauses),
    ]
    if shot.stopping:
        head.append(_line(Text("stopping: saving what streams", "yellow"), width))
    # One line stays free: a picture as high as the screen makes a terminal scroll.
    head = head[: max(1, height - 1)]
    room = height - 1 - len(head)
    return Group(*head, *_writing(shot.writing, width, room))


def line(shot: Snapshot) -> str:
    """The same as one line of text, for logs."""
    parts = [_documents(shot).plain, _flow(shot).plain, *shot.paused]
    return f"{_clock(shot.elapsed_s)} {'; '.join(parts)}"


def tail_cells(text: str, cells: int) -> str:
    """The end of a text, as much of it as fits into so many cells, one at least."""
    text = _UNSURE_WIDTH.sub("", text)
    if cell_len(text) <= cells:
        return text
    start = len(text)
    while start and cell_len(text[start - 1 :]) < cells:
        start -= 1
    while start < len(text) and unicodedata.combining(text[start]):
        start += 1  # a mark without its letter would sit on ours
    return "…" + text[start:]


def _title(shot: Snapshot, width: int) -> Text:
    return _line(
        Text.assemble(("runner ", "bold"), shot.title, (f"  {_clock(shot.elapsed_s)}", "dim")),
        width,
    )


def _bar(shot: Snapshot, width: int) -> Table:
    table = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(1, shot.total), completed=shot.final, width=min(_BAR_CELLS, width))
    counts = Text(f"{shot.final:,} of {shot.total:,} documents final", no_wrap=True)
    table.add_row(bar, counts) if width > _BAR_CELLS + counts.cell_len else table.add_row(counts)
    return table


def _documents(shot: Snapshot) -> Text:
    parts = [(f"done {shot.done:,}", "green"), (f"running {shot.running:,}", "cyan")]
    parts += [(f"waiting {shot.waiting:,}", "")]
    parts += [(f"failed {shot.failed:,}", "red" if shot.failed else "")]
    parts += [(f"cut {shot.cut:,}", "yellow")] if shot.cut else []
    parts += [(f"cancelled {shot.cancelled:,}", "")] if shot.cancelled else []
    parts += [(f"cost {shot.cost}", "")]
    return Text("  ").join(Text(*part) for part in parts)


def _flow(shot: Snapshot) -> Text:
    rate = "–" if shot.tokens_per_second is None else f"{shot.tokens_per_second:,.0f}"
    return Text(
        f"calls {shot.calls:,}  tokens in {shot.input_tokens:,}, out {shot.output_tokens:,}  "
        f"{rate} tokens/s  left {duration(shot.seconds_left)}"
    )


def _writing(documents: Sequence[Writing], width: int, room: int) -> list[Text]:
    shown = documents if len(documents) <= room else documents[: max(0, room - 1)]
    if not shown:
        return []
    names = min(_NAME_CELLS, max(cell_len(document.name) for document in shown))
    lines = []
    for document in shown:
        facts = f"call {document.call_number:<3} {document.characters:>9,} characters"
        head = f"{set_cell_size(document.name, names)}  {facts}"
        text = Text.assemble((set_cell_size(document.name, names), "bold"), (f"  {facts}", "dim"))
        left = width - cell_len(head) - 3
        if left >= _LEAST_WORDS_CELLS:
            text.append("  " + tail_cells(document.last_words, left))
        lines.append(_line(text, width))
    if hidden := len(documents) - len(shown):
        lines.append(_line(Text(f"… and {hidden:,} more", "dim"), width))
    return lines


def _line(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
