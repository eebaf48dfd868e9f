"""Each moment of a job counts as one thing, so that the parts add up to the whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import time_spent
from jobs.decisions.time_spent import Span, StateChange, TimePart
from jobs.states import JobState

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(second: float) -> datetime:
    return BEGAN + timedelta(seconds=second)


def change(second: float, state: JobState, *, held: bool = False) -> StateChange:
    return StateChange(at(second), state, held=held)


def span(part: TimePart, begin: float, end: float) -> Span:
    return Span(part, at(begin), at(end))


PLAIN = [
    change(0, JobState.QUEUED),
    change(1, JobState.PLANNING),
    change(3, JobState.RUNNING),
    change(10, JobState.FINALIZING),
    change(12, JobState.SUCCEEDED),
]

seconds = st.integers(-5, 30)
spans = st.builds(
    span,
    st.sampled_from([TimePart.LOADING, TimePart.COMPUTING, TimePart.WRITING]),
    seconds,
    seconds,
)
histories = st.lists(
    st.builds(change, st.integers(0, 30), st.sampled_from(list(JobState)), held=st.booleans()),
    min_size=1,
    max_size=8,
)


@given(histories, st.lists(spans, max_size=10), st.integers(0, 40))
def test_the_parts_add_up_to_the_whole(
    changes: list[StateChange], work: list[Span], length: int
) -> None:
    began = min(change.at for change in changes)
    end = max(began, at(length))
    found = time_spent.seconds(changes, work, end=end)
    assert sum(found.values()) == pytest.approx((end - began).total_seconds())
    assert all(value > 0 for value in found.values())


@given(histories, st.integers(0, 40))
def test_the_states_alone_are_the_same_spans_as_the_seconds(
    changes: list[StateChange], length: int
) -> None:
    end = max(min(change.at for change in changes), at(length))
    found: dict[TimePart, float] = {}
    for each in time_spent.of_states(changes, end=end):
        found[each.part] = found.get(each.part, 0.0) + (each.end - each.begin).total_seconds()
    assert found == pytest.approx(time_spent.seconds(changes, [], end=end))


def test_without_work_the_states_alone_count() -> None:
    assert time_spent.seconds(PLAIN, [], end=at(12)) == {
        TimePart.PLANNER: 1,
        TimePart.PLANNING: 2,
        TimePart.WORKER: 7,
        TimePart.WRITING: 2,
    }


def test_computing_counts_before_loading_and_that_before_planning_and_waiting() -> None:
    work = [
        span(TimePart.LOADING, 2, 6),
        span(TimePart.COMPUTING, 4, 5),
        span(TimePart.COMPUTING, 4.5, 9),
        span(TimePart.WRITING, 8, 10),
    ]
    assert time_spent.seconds(PLAIN, work, end=at(12)) == {
        TimePart.PLANNER: 1,
        TimePart.PLANNING: 1,
        TimePart.LOADING: 2,
        TimePart.COMPUTING: 5,
        TimePart.WRITING: 3,
    }


def test_a_job_that_waits_for_others_is_apart_from_one_that_waits_for_a_planner() -> None:
    changes = [
        change(0, JobState.QUEUED, held=True),
        change(4, JobState.QUEUED),
        change(5, JobState.PAUSED),
    ]
    assert time_spent.seconds(changes, [], end=at(7)) == {
        TimePart.OTHER_JOBS: 4,
        TimePart.PLANNER: 1,
        TimePart.PAUSED: 2,
    }


def test_the_time_between_an_end_and_a_retry_is_apart() -> None:
    changes = [*PLAIN, change(20, JobState.RUNNING)]
    found = time_spent.seconds(changes, [], end=at(21))
    assert (found[TimePart.ENDED], found[TimePart.WORKER]) == (8, 8)
