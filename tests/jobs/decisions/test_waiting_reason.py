"""Promise P11: a job that does not move says why."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import waiting_reason
from jobs.decisions.waiting_reason import GangFacts, JobFacts
from jobs.states import ACTIVE, FINAL, JobState, RunState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WELL = JobFacts(
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

few = st.integers(0, 2)
facts = st.builds(
    JobFacts,
    now=st.just(NOW),
    state=st.sampled_from(sorted(ACTIVE)),
    pool=st.just("cpu"),
    control_turned_at=st.sampled_from([None, NOW, NOW - timedelta(hours=1)]),
    broker_error=st.sampled_from([None, "no route to host"]),
    planners=few,
    slots=few,
    pending=few,
    leased=few,
    silent=few,
    failing=few,
    last_error=st.sampled_from([None, "no space left"]),
    busy_slots=few,
    step_held=st.booleans(),
    step_error=st.sampled_from([None, "no space left"]),
)


@given(facts)
def test_an_active_job_moves_or_says_why_it_does_not(facts: JobFacts) -> None:
    planned_or_written = facts.step_held and facts.state in (
        JobState.PLANNING,
        JobState.FINALIZING,
        JobState.CANCELLING,
    )
    worked_on = facts.leased > 0 and facts.state in (JobState.PLANNING, JobState.RUNNING)
    assert planned_or_written or worked_on or waiting_reason.reason(facts)


@given(facts, st.sampled_from(sorted(FINAL)))
def test_a_job_that_has_ended_waits_for_nothing(facts: JobFacts, state: JobState) -> None:
    assert waiting_reason.reason(dataclasses.replace(facts, state=state)) is None


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
def test_the_reason_names_the_obstacle(change: dict[str, object], words: str) -> None:
    reason = waiting_reason.reason(dataclasses.replace(WELL, **change))  # type: ignore[arg-type]
    assert reason is not None
    assert re.search(words, reason), reason


GANG = GangFacts(
    min_hosts=2,
    not_before=None,
    run_error=None,
    run=None,
    unclaimed=0,
    stop_reason=None,
    hosts=3,
    refusing=0,
    giving_way=0,
    idle=2,
    ahead=0,
)
"""A job that could have its hosts at once."""

SOON = NOW + timedelta(seconds=9)

gang_facts = st.builds(
    GangFacts,
    min_hosts=st.integers(1, 3),
    not_before=st.sampled_from([None, LONG_AGO, SOON]),
    run_error=st.sampled_from([None, "rank 1 went silent"]),
    run=st.sampled_from([None, RunState.FORMING, RunState.RUNNING]),
    unclaimed=few,
    stop_reason=st.sampled_from([None, "its host goes away"]),
    hosts=few,
    refusing=few,
    giving_way=few,
    idle=few,
    ahead=few,
)
training_states = st.sampled_from(sorted(ACTIVE - {JobState.FINALIZING}))


@given(facts, training_states, gang_facts)
def test_a_training_job_moves_or_says_why_it_does_not(
    facts: JobFacts, state: JobState, gang: GangFacts
) -> None:
    facts = dataclasses.replace(facts, state=state)
    planned = facts.step_held and state is JobState.PLANNING
    trains = gang.run is RunState.RUNNING and state is JobState.RUNNING
    assert planned or trains or waiting_reason.training_reason(facts, gang)


@given(facts, st.sampled_from(sorted(FINAL)), gang_facts)
def test_a_training_job_that_has_ended_waits_for_nothing(
    facts: JobFacts, state: JobState, gang: GangFacts
) -> None:
    assert waiting_reason.training_reason(dataclasses.replace(facts, state=state), gang) is None


@pytest.mark.parametrize(
    ("change", "gang", "words"),
    [
        ({"state": JobState.PAUSED}, {}, "nightshift jobs resume"),
        (
            {"state": JobState.PAUSED},
            {"run": RunState.RUNNING, "stop_reason": "the job was paused"},
            "its run makes a checkpoint and ends: the job was paused",
        ),
        ({"state": JobState.PAUSED}, {"run": RunState.RUNNING}, "makes a checkpoint and ends"),
        ({"state": JobState.QUEUED, "planners": 0}, {}, "no planner is alive"),
        ({"state": JobState.PLANNING}, {}, "waiting for a free planner"),
        ({"state": JobState.CANCELLING}, {}, "waiting for its ranks to end"),
        ({"state": JobState.CANCELLING, "control_turned_at": None}, {}, "no control process has"),
        ({"control_turned_at": LONG_AGO}, {}, "no control process has run since"),
        ({}, {"hosts": 0, "idle": 0}, "no training host of pool 'cpu' is alive; start one"),
        ({}, {"min_hosts": 5}, "it needs 5 hosts of pool 'cpu', which has 3: start more"),
        ({}, {"refusing": 2, "idle": 1}, "which has 3, 2 of which refuse to train: start more"),
        ({}, {"giving_way": 2, "idle": 1}, "2 hosts of pool 'cpu' yield to bulk work"),
        ({}, {"ahead": 4, "idle": 0}, "4 jobs of pool 'cpu' go first; 0 of 3 hosts are idle"),
        ({}, {"idle": 1}, "it needs 2 idle hosts of pool 'cpu'; 1 of 3 are"),
        ({}, {}, "its hosts are being reserved"),
        (
            {},
            {"not_before": SOON, "run_error": "rank 1 on host b went silent"},
            "the last run was lost and is taken up again in 9 s: rank 1 on host b went silent",
        ),
        ({}, {"not_before": LONG_AGO, "idle": 1}, "it needs 2 idle hosts"),
        ({}, {"run": RunState.FORMING, "unclaimed": 1}, "waiting for 1 of its hosts to begin"),
        ({"broker_error": "refused"}, {"run": RunState.FORMING}, "the broker does not answer"),
        (
            {},
            {"run": RunState.RUNNING, "stop_reason": "host a is going away"},
            "its run ends and will be taken up again: host a is going away",
        ),
    ],
)
def test_the_reason_of_a_training_job_names_the_obstacle(
    change: dict[str, object], gang: dict[str, object], words: str
) -> None:
    reason = waiting_reason.training_reason(
        dataclasses.replace(WELL, **change),  # type: ignore[arg-type]
        dataclasses.replace(GANG, **gang),  # type: ignore[arg-type]
    )
    assert reason is not None
    assert re.search(words, reason), reason


def test_a_job_whose_run_goes_on_has_no_reason() -> None:
    gang = dataclasses.replace(GANG, run=RunState.RUNNING)
    assert waiting_reason.training_reason(WELL, gang) is None
