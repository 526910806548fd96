"""What goes into and comes out of the store: plain frozen records, no SQL."""

from runner.store.records.batches import BatchRow, PauseCause
from runner.store.records.calls import (
    CallStart,
    Counted,
    LearnedCalls,
    Refusal,
    Reservation,
    SavedCall,
    TextPiece,
)
from runner.store.records.jobs import (
    EventKind,
    FinishedJob,
    JobEvent,
    JobRow,
    PruneReceipt,
    Selection,
)
from runner.store.records.pace import LimitSeen, LimitUse, PaceMember, PaceRow, WorkerRow
from runner.store.records.queue import (
    Claim,
    Held,
    KnownJob,
    Lane,
    LoadedJob,
    OnConflict,
    OpenLane,
    Settlement,
    SubmitReceipt,
)

__all__ = [
    "BatchRow",
    "CallStart",
    "Claim",
    "Counted",
    "EventKind",
    "FinishedJob",
    "Held",
    "JobEvent",
    "JobRow",
    "KnownJob",
    "Lane",
    "LearnedCalls",
    "LimitSeen",
    "LimitUse",
    "LoadedJob",
    "OnConflict",
    "OpenLane",
    "PaceMember",
    "PaceRow",
    "PauseCause",
    "PruneReceipt",
    "Refusal",
    "Reservation",
    "SavedCall",
    "Selection",
    "Settlement",
    "SubmitReceipt",
    "TextPiece",
    "WorkerRow",
]
