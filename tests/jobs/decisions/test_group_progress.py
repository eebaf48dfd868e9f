"""One state and one progress for a group of jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import group_progress
from jobs.decisions.group_progress import Amount, MemberProgress
from jobs.states import FINAL, JobState

Q, R, S, F = JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED
amounts = st.none() | st.builds(Amount, st.integers(0, 5), st.none() | st.integers(5, 9))
members = st.lists(
    st.builds(
        MemberProgress,
        state=st.sampled_from(JobState),
        rows=amounts,
        steps=amounts,
        eta_seconds=st.none() | st.floats(0, 100),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([Q, Q], Q),
        ([Q, S], R),
        ([Q, R], R),
        ([JobState.PAUSED, S], JobState.PAUSED),
        ([JobState.CANCELLING, F], JobState.CANCELLING),
        ([JobState.CANCELLING, Q, S], R),
        ([S, S], S),
        ([S, F, JobState.CANCELLED], F),
        ([S, JobState.CANCELLED], JobState.CANCELLED),
        ([JobState.EXPIRED, JobState.CANCELLED], JobState.EXPIRED),
    ],
)
def test_the_state_of_a_group(states: list[JobState], expected: JobState) -> None:
    assert group_progress.state_of(states) is expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(S, False), (JobState.CANCELLED, True)], S),
        ([(F, False), (JobState.CANCELLED, True)], F),
        ([(S, False), (JobState.CANCELLED, False), (JobState.CANCELLED, True)], JobState.CANCELLED),
        ([(JobState.CANCELLED, True)], JobState.CANCELLED),
        ([(Q, False), (JobState.CANCELLED, True)], Q),
    ],
)
def test_members_that_were_skipped_do_not_decide(
    found: list[tuple[JobState, bool]], expected: JobState
) -> None:
    assert group_progress.state_of(group_progress.deciding(found)) is expected


@given(members)
def test_a_group_has_ended_if_and_only_if_all_of_it_is_done(found: list[MemberProgress]) -> None:
    total = group_progress.sum_up(found)
    assert 0 <= total.share <= 1
    assert (total.state in FINAL) == (total.ended == total.jobs)
    if total.ended == total.jobs:
        assert total.share == pytest.approx(1)
        assert total.eta_seconds is None


def test_the_eta_is_known_once_no_member_waits() -> None:
    running = MemberProgress(R, rows=Amount(1, 4), eta_seconds=9)
    slower = MemberProgress(R, steps=Amount(5, 10), eta_seconds=20)
    both = group_progress.sum_up([running, slower, MemberProgress(S)])
    assert both.eta_seconds == 20
    assert both.share == pytest.approx((0.25 + 0.5 + 1) / 3)
    assert (both.rows, both.steps) == (Amount(1, 4), Amount(5, 10))
    assert group_progress.sum_up([running, MemberProgress(Q)]).eta_seconds is None
    unknown = MemberProgress(Q, rows=Amount(0, None))
    assert group_progress.sum_up([running, unknown]).rows == Amount(1, None)
