"""The state of a fire follows from those of its jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.schedules import states
from jobs.schedules.states import FireState
from jobs.states import FINAL, JobState

SUCCEEDED, FAILED = (JobState.SUCCEEDED, False), (JobState.FAILED, False)
CANCELLED, SKIPPED = (JobState.CANCELLED, False), (JobState.CANCELLED, True)
JOBS = st.lists(
    st.sampled_from([(state, False) for state in JobState] + [SKIPPED]), min_size=1, max_size=5
)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([SUCCEEDED], FireState.SUCCEEDED),
        ([FAILED], FireState.FAILED),
        ([(JobState.EXPIRED, False)], FireState.FAILED),
        ([CANCELLED], FireState.CANCELLED),
        ([SKIPPED], FireState.SKIPPED),
        ([SKIPPED, SKIPPED], FireState.SKIPPED),
        ([SUCCEEDED, SKIPPED], FireState.SUCCEEDED),
        ([SUCCEEDED, CANCELLED, SKIPPED], FireState.CANCELLED),
        ([SUCCEEDED, CANCELLED, FAILED], FireState.FAILED),
        ([FAILED, (JobState.QUEUED, False)], FireState.SUBMITTED),
        ([SUCCEEDED, (JobState.CANCELLING, False)], FireState.SUBMITTED),
    ],
)
def test_the_worst_of_its_jobs_decides_once_all_have_ended(
    jobs: list[tuple[JobState, bool]], expected: FireState
) -> None:
    assert states.of_jobs(jobs) is expected


@given(JOBS)
def test_a_fire_has_ended_if_and_only_if_all_of_its_jobs_have(
    jobs: list[tuple[JobState, bool]],
) -> None:
    found = states.of_jobs(jobs)
    assert (found is FireState.SUBMITTED) == any(state not in FINAL for state, _ in jobs)
    assert (found is FireState.SKIPPED) == all(skipped for _, skipped in jobs)
    assert found is states.of_jobs(list(reversed(jobs)))
