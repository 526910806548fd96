"""`runner tail`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from runner.cli.common import database_option, message, reading, run_async
from runner.cli.harmless import for_stdout, one_line

if TYPE_CHECKING:
    from runner.cli.followed import News

_POLL_SECONDS = 0.1
_QUOTED = 60  # characters of what was taken back that are shown


@click.command()
@click.argument("job")
@database_option
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the job is final.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Begin N lines before the end of what is there.",
)
def tail(job: str, database: str, follow: bool, lines: int) -> None:
    """Print the end of a job's text, also as it is written.

    JOB is a job's id, or BATCH/ID where several batches have it. With --follow the text comes as it
    is saved; where a continuation goes back behind text that was printed already, a line on stderr
    says so, and the text goes on from there. White space at the end waits for the next word.
    Control characters are taken out on a terminal, and only there.

    \b
    Example:
      runner tail five-stories -f
    """
    run_async(_tail(job, database, follow, lines))


async def _tail(reference: str, database: str, follow: bool, lines: int) -> None:
    from runner.cli.followed import Followed
    from runner.output.endings import ending

    async with reading(database) as store:
        job = await store.find_job(reference)
        version = await store.data_version()
        text = Followed()
        text.take(await store.pieces(job.key))
        _print(text.begin(lines))
        while follow and not job.state.final:
            # Another process's commits send no word: they are looked for.
            while version == (now := await store.data_version()):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
            version = now
            # The state is read before the text: a final job's text is then all there.
            claim, job = job.claim, await store.job(job.key)
            if job.claim != claim:
                text.begin_again()  # the job may have been replaced, and its old calls be gone
            text.take(await store.pieces(job.key, after_seq=text.last_seq))
            _show(text.news())
        _show(text.rest())
        message(one_line(f"{job.batch}/{job.id}: {ending(job)}"))


def _show(news: News) -> None:
    if news.taken_back:
        quoted = one_line(news.taken_back[:_QUOTED])
        message(f"\n[{len(news.taken_back):,} characters taken back: {quoted!r} …]")
    _print(news.text)


def _print(text: str) -> None:
    if text:
        click.echo(for_stdout(text).encode(errors="replace"), nl=False)
