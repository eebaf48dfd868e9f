"""The states of a fire, and how the state of its job decides them."""

from __future__ import annotations

from enum import StrEnum

from jobs.states import JobState


class FireState(StrEnum):
    """Where a fire is; all but the first two are final."""

    BUFFERED = "buffered"  # it waits until earlier ones have ended
    SUBMITTED = "submitted"  # its job is under way
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # its job failed or expired, or could not be submitted
    SKIPPED = "skipped"  # the policy on overlaps left it out, or its job found no new rows
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

_OF_JOB = {
    JobState.SUCCEEDED: FireState.SUCCEEDED,
    JobState.FAILED: FireState.FAILED,
    JobState.EXPIRED: FireState.FAILED,
    JobState.CANCELLED: FireState.CANCELLED,
}


def of_job(state: JobState) -> FireState:
    """The state of a fire whose job is in this state."""
    return _OF_JOB.get(state, FireState.SUBMITTED)
