"""The command `runner`: what commands there are, and the one place where errors become words."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from runner.cli.harmless import harmless
from runner.errors import RunnerError

# Where each command lives, and the first line of its help. The line is kept here, beside the one in
# the command itself (a test holds them equal), so that `runner --help` imports none of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("runner.cli.run:run", "Submit job files and work until every job is final."),
    "submit": ("runner.cli.submit:submit", "Queue the jobs of job files, and do no work."),
    "work": ("runner.cli.work:work", "Work on what is queued until every job is final."),
    "estimate": (
        "runner.cli.estimate:estimate",
        "Tell what job files would cost, before anything is spent.",
    ),
    "validate": ("runner.cli.validate:validate", "Check job files; queue and spend nothing."),
    "status": ("runner.cli.status:status", "Show how far each batch is."),
    "list": ("runner.cli.list:list_jobs", "List jobs, filtered."),
    "show": ("runner.cli.show:show", "Show one job: its calls, seams and tokens."),
    "tail": ("runner.cli.tail:tail", "Print the end of a job's text, also as it is written."),
    "cost": ("runner.cli.cost:cost", "Show what was paid for what."),
    "export": ("runner.cli.export:export", "Write documents to files."),
    "cancel": (
        "runner.cli.cancel:cancel",
        "Cancel jobs: what is not final will not be worked on.",
    ),
    "retry": (
        "runner.cli.retry:retry",
        "Put jobs that ended back in the queue, keeping their text.",
    ),
    "pause": (
        "runner.cli.pause:pause",
        "Pause batches: none of their jobs begins a further call.",
    ),
    "limits": (
        "runner.cli.limits:limits",
        "Show what holds batches back, and change it while they run.",
    ),
    "resume": ("runner.cli.pause:resume", "Let paused batches go on."),
    "rescue": ("runner.cli.rescue:rescue", "Free the jobs of workers that are dead, now."),
    "prune": (
        "runner.cli.prune:prune",
        "Delete jobs that ended, with their documents, and make the database smaller.",
    ),
    "simulate": (
        "runner.cli.simulate:simulate",
        "Serve a simulated Messages API on this machine, until Ctrl-C.",
    ),
    "db": ("runner.cli.db:db", "Look after the database."),
    "doctor": (
        "runner.cli.doctor:doctor",
        "Say what is wrong on this machine, and how to mend it.",
    ),
}

INTERRUPTED = 128 + signal.SIGINT

# What writing to stdout can meet. The store and the export tell of their own files' errors
# themselves; an error without a file's name that gets here is that of the output.
_OUTPUT_LOST = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class UnwritableOutput(RunnerError):
    """What a command found could not be written to stdout."""


class Commands(click.Group):
    """A group that imports a command when it is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal that cannot show a letter is no reason to show a traceback.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            return _reader_went_away()
        except OSError as error:
            if error.errno not in _OUTPUT_LOST or error.filename is not None:
                raise
            _let_go_of_stdout()
            raise UnwritableOutput(
                f"the output could not be written: {os.strerror(error.errno)}. "
                "Look at what it goes to, and give the same command again."
            ) from error
        return status

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command and end the process with its exit status.

        A command returns its status, or None for 0. Errors raised on purpose are printed without a
        traceback; anything else is a bug of ours and shows one.
        """
        options["standalone_mode"] = False  # else click would print and exit by its own rules
        options.setdefault("prog_name", "runner")
        try:
            status = super().main(*args, **options) or 0
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            status = INTERRUPTED
        except Exception as error:
            errors = list(_leaves(error))
            if not all(isinstance(leaf, RunnerError) for leaf in errors):
                raise
            for leaf in errors:
                click.echo(f"error: {harmless(str(leaf))}", err=True)
            status = max(getattr(leaf, "exit_status", 1) for leaf in errors)
        _let_go_of_stderr()
        sys.exit(status)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors themselves, out of the groups that task groups make of them."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _let_go_of_stderr() -> None:
    """What could not be said on a terminal that is gone must not change the exit status: the
    interpreter would try once more while it shuts down, and end with a status of its own."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _reader_went_away() -> int:
    """Whoever read our output has seen enough (`runner list | head`): that is no error."""
    _let_go_of_stdout()
    return 0


def _let_go_of_stdout() -> None:
    """What is still buffered must not fail once more while the interpreter shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prefill-runner", message="runner %(version)s")
def main() -> None:
    """Turn a file of prompts into finished documents from Claude, however long.

    \b
    Example:
      runner run jobs.yaml      submit and work; the same command resumes
      runner status             see how far it is
      runner export             write the documents to files

    Results go to stdout, progress and messages to stderr.

    \b
    Exit status:
      0    all documents are complete
      1    some are not: cut, failed or unfinished
      2    wrong usage or input
      3    stopped by a budget or a spend cap
      4    credentials refused
      130  interrupted
    """
