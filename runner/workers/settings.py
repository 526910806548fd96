"""The numbers a working process lives by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Times and sizes of one working process.

    Args:
        concurrency: calls open at once, over all batches; None leaves it to the batches' limits.
        checkpoint_s: longest time a piece of text waits in memory before it is saved.
        checkpoint_characters: text that is saved without waiting for the time to pass.
        unsaved_characters: text handed to the store but not yet committed at which a stream is
            no longer read, so that a slow disk slows the stream rather than fill the memory.
        lease_s: a process that gave no sign of life for so long may lose its jobs.
        trust_s: a process that could not renew its lease for so long stops its own streams;
            shorter than `lease_s`, so that it stops before another may take its jobs over.
        heartbeat_s: time between two renewals of the lease.
        poll_s: longest time until new work in the database is noticed.
        watch_s: time between two looks whether others took jobs of ours away or paused a batch.
        rescue_s: time between two looks for dead processes.
        ask_again_s: where a run waits, time until a batch at a spending limit is tried again.
        max_rescues: times in a row a job may take its process down with it, before any of its text
            is saved, without being discarded.
    """

    concurrency: int | None = None
    checkpoint_s: float = 0.25
    checkpoint_characters: int = 2048
    unsaved_characters: int = 65_536
    lease_s: float = 60.0
    trust_s: float = 50.0
    heartbeat_s: float = 10.0
    poll_s: float = 0.25
    watch_s: float = 0.25
    rescue_s: float = 5.0
    ask_again_s: float = 600.0
    max_rescues: int = 3
