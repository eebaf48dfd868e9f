"""Which jobs an action may be done to."""

from __future__ import annotations

import itertools

import pytest

from jobs.decisions.job_actions import JobAction, JobFacts, refusal
from jobs.states import JobState

POSSIBLE = {
    JobAction.CANCEL: {"queued", "planning", "running", "finalizing", "paused"},
    JobAction.PAUSE: {"queued", "planning", "running"},
    JobAction.RESUME: {"paused"},
    JobAction.RETRY: {"failed", "cancelled"},
    JobAction.DELETE: {"succeeded", "failed", "cancelled", "expired"},
}
"""States in which it can be done to a job that has no failed rows and is not kept."""


def facts(state: JobState, **others: bool) -> JobFacts:
    return JobFacts(state, **{"trains": False, "kept": False, "to_retry": False, **others})


@pytest.mark.parametrize(("action", "state"), list(itertools.product(JobAction, JobState)))
def test_an_action_is_refused_in_every_other_state(action: JobAction, state: JobState) -> None:
    assert (refusal(action, facts(state)) is None) == (state in POSSIBLE[action])


@pytest.mark.parametrize(
    ("action", "job", "reason"),
    [
        (JobAction.RETRY, facts(JobState.SUCCEEDED, to_retry=True), None),
        (JobAction.RETRY, facts(JobState.SUCCEEDED), "no failed rows"),
        (JobAction.RETRY, facts(JobState.SUCCEEDED, trains=True), "submit it again"),
        (JobAction.RETRY, facts(JobState.EXPIRED, to_retry=True), "deadline passed"),
        (JobAction.RETRY, facts(JobState.RUNNING, to_retry=True), "has not ended"),
        (JobAction.DELETE, facts(JobState.FAILED, kept=True), "it is kept"),
        (JobAction.DELETE, facts(JobState.RUNNING, kept=True), "cancel it first"),
        (JobAction.CANCEL, facts(JobState.CANCELLED), "it was cancelled"),
    ],
)
def test_a_refusal_says_why(action: JobAction, job: JobFacts, reason: str | None) -> None:
    found = refusal(action, job)
    assert found is None if reason is None else reason in (found or "")
