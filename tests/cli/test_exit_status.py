"""The exit status of a run, from what stands in the database when it is over."""

from __future__ import annotations

import pytest

from runner.cli.working import exit_status
from runner.jobs.call import Usage
from runner.jobs.spec import BatchLimits
from runner.jobs.states import Finish, State
from runner.store.records import BatchRow, PauseCause

WHOLE = (State.COMPLETED, Finish.STOP_SEQUENCE)


def batch(*jobs: tuple[State, Finish | None], paused: PauseCause | None = None) -> BatchRow:
    counts = {kind: jobs.count(kind) for kind in jobs}
    return BatchRow(1, "b", BatchLimits(), paused, None, 0, counts, 0, Usage())


def test_all_complete() -> None:
    assert exit_status([batch(WHOLE, (State.COMPLETED, Finish.UNTIL_MET))], stopped=False) == 0
    assert exit_status([batch(WHOLE)], stopped=True) == 0
    assert exit_status([batch()], stopped=False) == 0


@pytest.mark.parametrize("finish", [finish for finish in Finish if not finish.complete])
def test_a_cut_document_is_never_called_complete(finish: Finish) -> None:
    assert exit_status([batch(WHOLE), batch((State.COMPLETED, finish))], stopped=False) == 1
    assert exit_status([batch((State.DISCARDED, finish))], stopped=False) == 1


@pytest.mark.parametrize("state", [state for state in State if state is not State.COMPLETED])
def test_any_other_state_is_not_complete(state: State) -> None:
    assert exit_status([batch(WHOLE, (state, None))], stopped=False) == 1


def test_a_completed_job_without_a_finish_is_not_complete() -> None:
    assert exit_status([batch((State.COMPLETED, None))], stopped=False) == 1


def test_interrupted() -> None:
    assert exit_status([batch(WHOLE, (State.AVAILABLE, None))], stopped=True) == 130
    assert exit_status([batch((State.COMPLETED, Finish.STALLED))], stopped=True) == 1


def test_pauses_say_why() -> None:
    left = (State.AVAILABLE, None)
    assert exit_status([batch(left, paused=PauseCause.SPEND_CAP)], stopped=False) == 3
    assert exit_status([batch(left, paused=PauseCause.CREDENTIALS)], stopped=False) == 4
    assert exit_status([batch(left, paused=PauseCause.USER)], stopped=False) == 1
    assert exit_status([batch(left, paused=PauseCause.BREAKER)], stopped=False) == 1
    both = [batch(left, paused=PauseCause.SPEND_CAP), batch(left, paused=PauseCause.CREDENTIALS)]
    assert exit_status(both, stopped=False) == 4
