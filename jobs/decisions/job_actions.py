"""Which jobs an action may be done to, and why not to the others: what a dry run says.

The ledger decides again when the action is done, under the lock of the job.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jobs.states import FINAL, JOB_MOVES, JobState


class JobAction(StrEnum):
    """What can be done to a job, or to many."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    DELETE = "delete"


_ENDED = {
    JobState.SUCCEEDED: "it has succeeded",
    JobState.FAILED: "it has failed",
    JobState.CANCELLED: "it was cancelled",
    JobState.EXPIRED: "its deadline has passed",
}


@dataclass(frozen=True)
class JobFacts:
    """What decides about a job."""

    state: JobState
    trains: bool  # or evaluates; else it is bulk work
    kept: bool
    to_retry: bool  # it has failed rows, or damage is known


def refusal(action: JobAction, job: JobFacts) -> str | None:
    """Why the action cannot be done to the job; ``None``: it can."""
    match action:
        case JobAction.CANCEL:
            return _unless(JobState.CANCELLING in JOB_MOVES[job.state], _state(job.state))
        case JobAction.PAUSE:
            return _unless(JobState.PAUSED in JOB_MOVES[job.state], _state(job.state))
        case JobAction.RESUME:
            return _unless(job.state is JobState.PAUSED, _state(job.state))
        case JobAction.DELETE:
            return _delete(job)
        case JobAction.RETRY:
            return _retry(job)


def _state(state: JobState) -> str:
    return _ENDED.get(state, f"it is {state}")


def _delete(job: JobFacts) -> str | None:
    if job.state not in FINAL:
        return f"it is {job.state}: cancel it first"
    return "it is kept" if job.kept else None


def _retry(job: JobFacts) -> str | None:
    if job.state not in FINAL:
        return f"it is {job.state} and has not ended"
    if job.state is JobState.EXPIRED:
        return "its deadline passed: submit it again"
    if job.state is JobState.SUCCEEDED and job.trains:
        return "its training succeeded: submit it again"
    if job.state is JobState.SUCCEEDED and not job.to_retry:
        return "it has no failed rows"
    return None


def _unless(possible: bool, reason: str) -> str | None:  # noqa: FBT001
    return None if possible else reason
