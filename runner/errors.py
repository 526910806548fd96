"""Every error the program raises on purpose. Each says what happened, where, and what to do.

RunnerError                    exit status
├── UsageError                      2      the command line was used wrongly
├── JobFileError                    2      a job file was refused; carries its problems
├── SubmitConflict                  2      an id is known already with another prompt
├── NotFound                        2      no such job or batch
├── ExportError                     1      the documents could not be written
├── StoreError                      1
│   ├── StoreUnavailable            1      cannot be opened or written
│   │   └── StoreBlocked            1      for now: its disk is full, or another program locks it
│   ├── SchemaTooNew                2      written by a newer version of this program
│   └── NotADatabase                2      the file is something else, or damaged
├── CredentialsError                4      no usable key; see runner.messages.errors
├── ClaimLost                       -      another worker holds the job now (never reaches a user)
├── BudgetReached                   -      a batch's budget has no room for a call (never reaches a user)
└── CallError                       -      a call to the Messages API failed; see runner.messages.errors

The command line prints `str(error)` and ends with `exit_status`; a traceback means a bug of ours.
"""

from __future__ import annotations


class RunnerError(Exception):
    """The base of all errors raised on purpose.

    `str(error)` is written for the user: what happened, where, and what to do next.
    """

    exit_status: int = 1


class UsageError(RunnerError):
    """A command or a function was called with arguments that cannot work."""

    exit_status = 2


class SubmitConflict(RunnerError):
    """A submitted job has the id of a known one but another hash."""

    exit_status = 2


class NotFound(RunnerError):
    """No job or batch of that name is in the database."""

    exit_status = 2


class ExportError(RunnerError):
    """Documents could not be written to the output folder."""


class StoreError(RunnerError):
    """The database could not do what was asked."""


class StoreUnavailable(StoreError):
    """The database cannot be opened or written: missing, locked, full, or not permitted."""


class StoreBlocked(StoreUnavailable):
    """The database cannot be used now, and can again by itself once its disk or lock is free.

    Args:
        what: what stands in the way.
        remedy: what to do about it, as the beginning of a sentence.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(
            f"{what}. What was saved is safe. {remedy}, and run the same command again."
        )
        self.what = what
        self.remedy = remedy


class SchemaTooNew(StoreError):
    """The database was written by a newer version of this program."""

    exit_status = 2


class NotADatabase(StoreError):
    """The file is not one of our databases, or is damaged."""

    exit_status = 2


class ClaimLost(RunnerError):
    """A write came from a worker whose claim on the job is over: its text was not taken."""


class CoolingDown(RunnerError):
    """No call may start on this limit yet: the API asked for a rest, of this process or another.

    Args:
        seconds: how long it still lasts.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class BudgetReached(RunnerError):
    """A call may not be made: its batch's budget has no room for it now.

    Args:
        reason: in words.
        paused: the batch is paused; else calls of it still run, and may leave room when they end.
    """

    def __init__(self, reason: str, *, paused: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.paused = paused
