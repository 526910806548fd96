"""Turns a file of prompts into finished documents written by Claude, however long they are.

The names below are the public interface; `runner.library` documents the functions. They are
loaded when first used, so that `import runner` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.errors import RunnerError
    from runner.jobs.jobfile import JobFile, read_job_file
    from runner.jobs.spec import BatchLimits, BatchSpec, ContinuationSpec, JobSpec, Until
    from runner.jobs.states import Finish, State
    from runner.library import (
        Document,
        copy_batch,
        documents,
        follow,
        open_store,
        read,
        run,
        submit,
    )
    from runner.messages.client import MessagesClient
    from runner.store.copying import CopyReceipt
    from runner.store.records import OnConflict, SubmitReceipt
    from runner.store.store import Store
    from runner.workers.progress import Progress
    from runner.workers.settings import WorkerSettings

_HOME = {
    "runner.errors": ["RunnerError"],
    "runner.jobs.jobfile": ["JobFile", "read_job_file"],
    "runner.jobs.spec": ["BatchLimits", "BatchSpec", "ContinuationSpec", "JobSpec", "Until"],
    "runner.jobs.states": ["Finish", "State"],
    "runner.library": [
        "Document",
        "copy_batch",
        "documents",
        "follow",
        "open_store",
        "read",
        "run",
        "submit",
    ],
    "runner.messages.client": ["MessagesClient"],
    "runner.store.copying": ["CopyReceipt"],
    "runner.store.records": ["OnConflict", "SubmitReceipt"],
    "runner.store.store": ["Store"],
    "runner.workers.progress": ["Progress"],
    "runner.workers.settings": ["WorkerSettings"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BatchLimits",
    "BatchSpec",
    "ContinuationSpec",
    "CopyReceipt",
    "Document",
    "Finish",
    "JobFile",
    "JobSpec",
    "MessagesClient",
    "OnConflict",
    "Progress",
    "RunnerError",
    "State",
    "Store",
    "SubmitReceipt",
    "Until",
    "WorkerSettings",
    "copy_batch",
    "documents",
    "follow",
    "open_store",
    "read",
    "read_job_file",
    "run",
    "submit",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
