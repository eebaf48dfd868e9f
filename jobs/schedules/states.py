"""The states of a fire, and how those of its jobs decide them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from jobs.decisions import group_progress
from jobs.states import FINAL, JobState


class FireState(StrEnum):
    """Where a fire is; all but the first two are final."""

    BUFFERED = "buffered"  # it waits until earlier ones have ended
    SUBMITTED = "submitted"  # its jobs are under way, or some of them
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # a job of it failed or expired, or they could not be submitted
    SKIPPED = "skipped"  # the policy on overlaps left it out, or its jobs had no rows
    MISSED = "missed"  # no control process ran in time
    CANCELLED = "cancelled"


class FireOrigin(StrEnum):
    """What asked for a fire."""

    CALENDAR = "calendar"
    TRIGGER = "trigger"
    BACKFILL = "backfill"


OPEN = frozenset({FireState.BUFFERED, FireState.SUBMITTED})
REPEATABLE = frozenset({FireState.SKIPPED, FireState.MISSED})
"""Final states of a fire that a backfill does, if it never had a job."""

_OF_JOBS = {
    JobState.SUCCEEDED: FireState.SUCCEEDED,
    JobState.FAILED: FireState.FAILED,
    JobState.EXPIRED: FireState.FAILED,
    JobState.CANCELLED: FireState.CANCELLED,
}


def of_jobs(jobs: Collection[tuple[JobState, bool]]) -> FireState:
    """The state of a fire, of the state of each job, and whether that was skipped: a group's.

    There is at least one job.
    """
    if any(state not in FINAL for state, _ in jobs):
        return FireState.SUBMITTED
    if all(skipped for _, skipped in jobs):
        return FireState.SKIPPED
    return _OF_JOBS[group_progress.state_of(group_progress.deciding(jobs))]
