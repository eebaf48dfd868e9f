"""A step's lease is renewed while its work goes on; how the work ends decides if it is a crash."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from jobs.errors import LeaseLost
from jobs.states import JobState, JobStep
from tests.support.waiting import wait_until
from tests.workers.bulk.conftest import Workshop
from workers.context import Context
from workers.lease_renewer import LeaseRenewer
from workers.step_lease import holding

SHORT = timedelta(seconds=0.15)
STALL = timedelta(seconds=60)


class RustPanic(BaseException):
    """As a panic of a Rust extension: no ``Exception``."""


def keep(renew: Callable[[], str | None]) -> LeaseRenewer:
    return LeaseRenewer(renew, duration=SHORT, stall=STALL)


def lost(renewer: LeaseRenewer) -> bool:
    try:
        renewer.beat()
    except LeaseLost:
        return True
    return False


def test_a_lease_is_renewed_as_long_as_it_is_held() -> None:
    renewed = threading.Semaphore(0)

    def renew() -> None:
        renewed.release()

    with keep(renew) as renewer:
        for _ in range(4):
            assert renewed.acquire(timeout=5)
        renewer.beat()


def test_work_stops_when_its_lease_is_void() -> None:
    with keep(lambda: "it was taken over") as renewer:
        wait_until(lambda: lost(renewer))
        with pytest.raises(LeaseLost, match="it was taken over"):
            renewer.beat()


def test_work_continues_when_one_renewal_fails() -> None:
    faults = iter([ValueError("whatever it is")])
    renewed = threading.Event()

    def renew() -> None:
        for fault in faults:
            raise fault
        renewed.set()

    with keep(renew) as renewer:
        assert renewed.wait(5)
        renewer.beat()


def test_work_stops_when_its_lease_could_not_be_renewed_for_its_whole_length() -> None:
    def renew() -> str | None:
        raise RuntimeError("the database is away")

    begun = time.monotonic()
    with keep(renew) as renewer:
        wait_until(lambda: lost(renewer))
    assert time.monotonic() - begun >= 0.9 * SHORT.total_seconds()


@pytest.fixture
def context(workshop: Workshop) -> Context:
    return Context(workshop.settings, workshop.ledger.sessions, workshop.store)


@pytest.mark.parametrize(
    ("fault", "failures", "crashes"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, 0),
        (LeaseLost("taken over"), 0, 0),
        (TypeError("a bug"), 0, 1),
        (RustPanic("a library gave up"), 0, 1),
    ],
)
def test_only_an_error_that_is_not_transient_counts_as_a_crash(
    workshop: Workshop, context: Context, fault: BaseException, failures: int, crashes: int
) -> None:
    job_id = workshop.ledger.accept()
    _plan_and_raise(fault, job_id, context=context)
    job = workshop.ledger.job(job_id)
    assert (job.state, job.step_owner) == (JobState.PLANNING, None)
    assert (job.step_failures, job.step_crashes) == (failures, crashes)
    assert (job.step_error is None) == isinstance(fault, LeaseLost)


def test_a_job_whose_planning_always_raises_fails_with_the_reason(
    workshop: Workshop, context: Context
) -> None:
    job_id = workshop.ledger.accept()
    for tries in range(1, 6):
        assert workshop.ledger.job(job_id).state is not JobState.FAILED, tries
        _plan_and_raise(TypeError("a bug"), job_id, context=context)
        workshop.ledger.set(job_id, step_not_before=None)
    job = workshop.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "unexpected_error")
    assert "TypeError: a bug (tried 5 times)" in (job.error_message or "")


def test_a_request_to_end_the_process_is_raised_again_and_is_no_fault(
    workshop: Workshop, context: Context
) -> None:
    job_id = workshop.ledger.accept()
    with pytest.raises(SystemExit):
        _plan_and_raise(SystemExit(), job_id, context=context)
    job = workshop.ledger.job(job_id)
    assert (job.step_owner, job.step_error, job.step_crashes) == (None, None, 0)


def _plan_and_raise(fault: BaseException, job_id: str, *, context: Context) -> None:
    with holding(job_id, step=JobStep.PLAN, context=context) as held:
        assert held is not None
        raise fault
