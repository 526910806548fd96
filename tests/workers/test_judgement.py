"""What becomes of a job, for every kind of error and every end."""

from __future__ import annotations

import pytest

from runner.continuation.steps import CannotContinue, Finished
from runner.jobs.states import Finish, State
from runner.messages.errors import CallError, ErrorKind
from runner.workers import judgement
from tests.house import Impatient


def judged(kind, *, attempt=0, progress=False, retry_after_s=None):
    error = CallError(kind, "words", type="t", retry_after_s=retry_after_s)
    return judgement.of_error(
        error, attempt=attempt, max_attempts=3, progress=progress, random=Impatient()
    )


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (ErrorKind.RETRY, State.RETRYABLE),
        (ErrorKind.RATE_LIMIT, State.SCHEDULED),
        (ErrorKind.CREDENTIALS, State.AVAILABLE),
        (ErrorKind.SPEND_CAP, State.AVAILABLE),
        (ErrorKind.PREFILL_REFUSED, State.DISCARDED),
        (ErrorKind.JOB, State.DISCARDED),
    ],
)
def test_each_kind_of_error_has_its_state(kind, state):
    assert judged(kind).state is state


def test_every_kind_is_in_that_table():
    assert len(ErrorKind) == 6


@pytest.mark.parametrize(
    ("attempt", "progress", "state"),
    [(1, False, State.RETRYABLE), (2, False, State.DISCARDED), (2, True, State.RETRYABLE)],
)
def test_attempts_run_out_unless_there_was_progress(attempt, progress, state):
    settlement = judged(ErrorKind.RETRY, attempt=attempt, progress=progress)
    assert settlement.state is state
    assert settlement.reset_attempt is (progress and state is State.RETRYABLE)


def test_an_error_is_known_by_its_status_and_type_not_by_its_words():
    def name(words, **facts):
        error = CallError(ErrorKind.JOB, words, **facts)
        return judgement.of_error(
            error, attempt=0, max_attempts=1, progress=False, random=Impatient()
        ).error_name

    assert name("job a", type="bad", status=400) == name("job b", type="bad", status=400)
    assert name("w", type="bad", status=400) == "400 bad"
    assert name("w", type="unsendable") == "unsendable"
    assert name("w", type="x\x1b[2Jy\nz" + "n" * 999, status=400).isprintable()
    given_up = judged(ErrorKind.RETRY, attempt=2)
    assert (given_up.state, given_up.error_name) == (State.DISCARDED, "t")
    assert judgement.of_end(Finished(Finish.REFUSAL)).error_name is None
    assert judgement.of_end(CannotContinue("why")).error_name


def test_retry_after_is_honoured():
    for kind in (ErrorKind.RETRY, ErrorKind.RATE_LIMIT):
        assert judged(kind, retry_after_s=30).delay_ms == 30_000


@pytest.mark.parametrize("finish", Finish)
def test_each_finish_has_its_state(finish):
    settlement = judgement.of_end(Finished(finish, "why"))
    refused = finish is Finish.REFUSAL
    assert settlement.state is (State.DISCARDED if refused else State.COMPLETED)
    assert settlement.finish is finish


def test_a_job_that_cannot_go_on_is_discarded_with_the_reason():
    settlement = judgement.of_end(CannotContinue("because"))
    assert (settlement.state, settlement.error) == (State.DISCARDED, "because")
