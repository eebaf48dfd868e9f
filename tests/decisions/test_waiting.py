"""Promise P11: whatever does not move says why."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import waiting
from jobs.decisions.waiting import Facts
from jobs.states import ACTIVE, FINAL, JobState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WELL = Facts(
    now=NOW,
    state=JobState.RUNNING,
    pool="cpu",
    control_turned_at=NOW,
    broker_error=None,
    planners=1,
    slots=2,
    pending=3,
    leased=0,
    silent=0,
    failing=0,
    last_error=None,
    busy_slots=0,
    step_held=False,
    step_error=None,
)

some = st.integers(0, 2)
facts = st.builds(
    Facts,
    now=st.just(NOW),
    state=st.sampled_from(sorted(ACTIVE)),
    pool=st.just("cpu"),
    control_turned_at=st.sampled_from([None, NOW, NOW - timedelta(hours=1)]),
    broker_error=st.sampled_from([None, "no route to host"]),
    planners=some,
    slots=some,
    pending=some,
    leased=some,
    silent=some,
    failing=some,
    last_error=st.sampled_from([None, "no space left"]),
    busy_slots=some,
    step_held=st.booleans(),
    step_error=st.sampled_from([None, "no space left"]),
)


@given(facts)
def test_an_active_job_moves_or_says_why_it_does_not(facts: Facts) -> None:
    planned_or_written = facts.step_held and facts.state in (
        JobState.PLANNING,
        JobState.FINALIZING,
        JobState.CANCELLING,
    )
    worked_on = facts.leased > 0 and facts.state in (JobState.PLANNING, JobState.RUNNING)
    assert planned_or_written or worked_on or waiting.reason(facts)


@given(facts, st.sampled_from(sorted(FINAL)))
def test_a_job_that_has_ended_waits_for_nothing(facts: Facts, state: JobState) -> None:
    assert waiting.reason(dataclasses.replace(facts, state=state)) is None


LONG_AGO = NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": JobState.PAUSED}, "nightshift jobs resume"),
        ({"slots": 0}, "no worker of pool 'cpu' is alive"),
        ({"control_turned_at": None}, "no control process has ever run"),
        ({"control_turned_at": LONG_AGO}, "no control process has run since 2025-12-31 23:00:00"),
        ({"broker_error": "refused"}, "the broker does not answer: refused"),
        ({"failing": 2, "last_error": "disk full"}, "2 chunks failed .* disk full"),
        ({"busy_slots": 2}, "all 2 slots of pool 'cpu' are busy"),
        ({}, "on their way to a worker"),
        ({"pending": 0, "control_turned_at": LONG_AGO}, "no control process has run since"),
        ({"pending": 0, "silent": 1}, "the workers of 1 chunks went silent"),
        ({"pending": 0, "silent": 1, "control_turned_at": None}, "no control process has ever"),
        ({"state": JobState.QUEUED, "planners": 0}, "no planner is alive"),
        ({"state": JobState.QUEUED}, "waiting for a free planner"),
        ({"state": JobState.QUEUED, "step_error": "refused"}, "the last try failed .* refused"),
        ({"state": JobState.FINALIZING, "planners": 0}, "no planner is alive"),
        ({"state": JobState.CANCELLING, "leased": 2}, "waiting for 2 chunks that are under way"),
        ({"state": JobState.PLANNING, "pending": 0, "planners": 0}, "no planner is alive"),
        ({"state": JobState.PLANNING, "slots": 0, "step_held": True}, "no worker of pool"),
    ],
)
def test_the_reason_says_in_words_what_stands_in_the_way(
    change: dict[str, object], words: str
) -> None:
    reason = waiting.reason(dataclasses.replace(WELL, **change))  # type: ignore[arg-type]
    assert reason is not None
    assert re.search(words, reason), reason
