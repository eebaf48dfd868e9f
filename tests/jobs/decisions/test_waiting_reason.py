"""Promise P11: a job that does not move says why."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import waiting_reason
from jobs.decisions.phrases import OtherJob
from jobs.decisions.waiting_reason import GangFacts, JobFacts, LastHeard, LostLease
from jobs.states import ACTIVE, FINAL, JobState, RunState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = NOW + timedelta(seconds=9)
RECENTLY = NOW - timedelta(seconds=14)
LONG_AGO = NOW - timedelta(hours=1)

NIGHTLY = OtherJob("job_1", "nightly", priority=0, same_project=True)
URGENT = OtherJob("job_2", None, priority=5, same_project=True)
IDLE = OtherJob("job_3", None, priority=-1, same_project=True)
THEIRS = OtherJob("job_4", "secret", priority=7, same_project=False)

DEAD = LostLease("cpu-7@a", heard_at=RECENTLY, chunks=2, ends_at=SOON)
EXPIRED = LostLease("cpu-7@a", heard_at=RECENTLY, chunks=1, ends_at=NOW - timedelta(seconds=1))
HUNG = LostLease("cpu-7@a", heard_at=None, chunks=1, ends_at=NOW - timedelta(seconds=1))

WELL = JobFacts(
    now=NOW,
    state=JobState.RUNNING,
    priority=0,
    pool="cpu",
    control_turned_at=NOW,
    broker_error=None,
    slots=2,
    last_heard=LastHeard("cpu-7@a", NOW),
    busy_slots=0,
    computed=(),
    queued=(),
    pending=3,
    sent=3,
    failing=0,
    retry_at=None,
    last_error=None,
    leased=0,
    lost=(),
    planners=1,
    planning=(),
    step_held=False,
    step_lost=None,
    step_error=None,
)

few = st.integers(0, 2)
others = st.lists(st.sampled_from([NIGHTLY, URGENT, IDLE, THEIRS]), max_size=6)
facts = st.builds(
    JobFacts,
    now=st.just(NOW),
    state=st.sampled_from(sorted(ACTIVE)),
    priority=st.integers(-1, 5),
    pool=st.just("cpu"),
    control_turned_at=st.sampled_from([None, NOW, LONG_AGO]),
    broker_error=st.sampled_from([None, "no route to host"]),
    slots=few,
    last_heard=st.sampled_from([None, LastHeard("cpu-7@a", RECENTLY)]),
    busy_slots=few,
    computed=others,
    queued=others,
    pending=few,
    sent=few,
    failing=few,
    retry_at=st.sampled_from([None, LONG_AGO, SOON]),
    last_error=st.sampled_from([None, "no space left"]),
    leased=few,
    lost=st.lists(st.sampled_from([DEAD, EXPIRED, HUNG]), max_size=5),
    planners=few,
    planning=others,
    step_held=st.booleans(),
    step_lost=st.sampled_from([None, DEAD, EXPIRED]),
    step_error=st.sampled_from([None, "no space left"]),
    step_not_before=st.sampled_from([None, LONG_AGO, SOON]),
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


@given(facts)
def test_of_another_projects_job_nothing_is_said_but_that_it_is_one(facts: JobFacts) -> None:
    reason = waiting_reason.reason(facts) or ""
    assert THEIRS.job_id not in reason
    assert "secret" not in reason
    assert "(7, " not in reason


@given(facts, st.sampled_from(sorted(FINAL)))
def test_a_job_that_has_ended_waits_for_nothing(facts: JobFacts, state: JobState) -> None:
    assert waiting_reason.reason(dataclasses.replace(facts, state=state)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": JobState.PAUSED}, "paused; resume it with `nightshift jobs resume`"),
        (
            {"state": JobState.PAUSED, "leased": 2},
            "paused, with 2 chunks still under way; resume it with",
        ),
        ({"slots": 0, "last_heard": None}, "no worker of pool 'cpu' takes new work; start one"),
        (
            {"slots": 0, "last_heard": LastHeard("cpu-7@a", RECENTLY)},
            (
                "no worker of pool 'cpu' takes new work (cpu-7@a was last heard at 11:59:46 UTC); "
                "start one, or submit to another pool"
            ),
        ),
        ({"control_turned_at": None}, "no control process has ever run"),
        ({"control_turned_at": LONG_AGO}, "no control process has run since 2026-01-01 11:00:00"),
        ({"broker_error": "refused"}, "the broker does not answer: refused"),
        (
            {"failing": 3, "last_error": "disk full", "retry_at": SOON},
            "3 chunks failed and are tried again in 9 s; the last error: disk full",
        ),
        (
            {"failing": 1, "last_error": "disk full", "retry_at": SOON, "busy_slots": 2}
            | {"computed": [NIGHTLY]},
            (
                "all 2 slots of pool 'cpu' are busy with job_1 (nightly); jobs of one project and "
                "priority take turns, chunk by chunk; "
                "1 chunk failed and is tried again in 9 s; the last error: disk full"
            ),
        ),
        (
            {"busy_slots": 2, "computed": [URGENT]},
            "are busy with job_2 of higher priority (5, this job has 0)",
        ),
        (
            {"busy_slots": 1, "slots": 1, "computed": [IDLE]},
            "the only slot of pool 'cpu' is busy with job_3 of lower priority (-1, this job has 0)",
        ),
        ({"busy_slots": 2, "computed": [THEIRS]}, "are busy with a job of another project"),
        (
            {"busy_slots": 4, "slots": 4, "computed": [NIGHTLY, THEIRS, URGENT, THEIRS]},
            (
                "are busy with job_1 (nightly), job_2 of higher priority (5, this job has 0) "
                "and 2 of other projects; jobs of one"
            ),
        ),
        ({"busy_slots": 5, "slots": 5, "computed": [NIGHTLY] * 5}, "(nightly) and 2 more; jobs of"),
        ({}, "its chunks are on their way to a worker"),
        (
            {"sent": 0, "queued": [URGENT]},
            (
                "the queue of pool 'cpu' has chunks of job_2 of higher priority "
                "(5, this job has 0); its own follow in turn"
            ),
        ),
        ({"sent": 0}, "its chunks are sent to the queue of pool 'cpu' next"),
        ({"pending": 0, "control_turned_at": LONG_AGO}, "no control process has run since"),
        ({"pending": 0}, "every chunk is done; its outputs are written next"),
        (
            {"pending": 0, "lost": [DEAD]},
            (
                "2 chunks of worker cpu-7@a, which was last heard at 11:59:46 UTC, are taken back "
                "if the lease runs out at 12:00:09 UTC"
            ),
        ),
        (
            {"pending": 0, "lost": [EXPIRED]},
            (
                "the lease on 1 chunk of worker cpu-7@a, which was last heard at 11:59:46 UTC, "
                "ran out at 11:59:59 UTC: taken back next"
            ),
        ),
        ({"pending": 0, "lost": [HUNG]}, "the lease on 1 chunk of worker cpu-7@a ran out at 11:59"),
        ({"pending": 0, "lost": [DEAD] * 5}, "the same is true of 2 more workers"),
        ({"pending": 0, "lost": [EXPIRED], "control_turned_at": None}, "no control process has"),
        (
            {"slots": 0, "last_heard": None, "lost": [DEAD]},
            (
                "no worker of pool 'cpu' takes new work; start one, or submit to another pool; "
                "2 chunks of worker cpu-7@a"
            ),
        ),
        ({"state": JobState.QUEUED, "planners": 0}, "no planner takes new work"),
        ({"state": JobState.QUEUED}, "its message is on the way to a planner"),
        ({"state": JobState.QUEUED, "broker_error": "refused"}, "the broker does not answer"),
        (
            {"state": JobState.QUEUED, "planning": [NIGHTLY]},
            "no planner is free: the only planner is busy with job_1 (nightly)",
        ),
        (
            {"state": JobState.QUEUED, "step_error": "refused", "step_not_before": SOON},
            "the last try failed and will be repeated in 9 s: refused",
        ),
        (
            {"state": JobState.QUEUED, "step_error": "refused", "planners": 0},
            "`python -m workers.processes planner`; the last try failed: refused",
        ),
        ({"state": JobState.FINALIZING, "planners": 0}, "no planner takes new work"),
        (
            {"state": JobState.FINALIZING, "step_lost": DEAD},
            (
                "it is with planner cpu-7@a, which was last heard at 11:59:46 UTC; "
                "another takes over if the lease runs out at 12:00:09 UTC"
            ),
        ),
        ({"state": JobState.FINALIZING, "step_lost": EXPIRED}, "its message is on the way"),
        ({"state": JobState.CANCELLING, "leased": 2}, "2 chunks under way must end first"),
        ({"state": JobState.CANCELLING, "lost": [DEAD]}, "2 chunks of worker cpu-7@a, which"),
        ({"state": JobState.PLANNING, "pending": 0, "planners": 0}, "no planner takes new work"),
        ({"state": JobState.PLANNING, "slots": 0, "step_held": True}, "no worker of pool"),
    ],
)
def test_the_reason_names_the_obstacle(change: dict[str, object], words: str) -> None:
    reason = waiting_reason.reason(dataclasses.replace(WELL, **change))  # type: ignore[arg-type]
    assert words in (reason or "")


GANG = GangFacts(
    min_hosts=2,
    not_before=None,
    run_error=None,
    run=None,
    unclaimed=0,
    stop_reason=None,
    hosts=3,
    draining=0,
    refusing=0,
    giving_way=0,
    idle=2,
    missing=(),
    ahead=(),
)
"""A job that could have its hosts at once."""

gang_facts = st.builds(
    GangFacts,
    min_hosts=st.integers(1, 3),
    not_before=st.sampled_from([None, LONG_AGO, SOON]),
    run_error=st.sampled_from([None, "rank 1 went silent"]),
    run=st.sampled_from([None, RunState.FORMING, RunState.RUNNING]),
    unclaimed=few,
    stop_reason=st.sampled_from([None, "its host goes away"]),
    hosts=few,
    draining=few,
    refusing=few,
    giving_way=few,
    idle=few,
    missing=st.lists(st.just(LastHeard("b", RECENTLY)), max_size=2),
    ahead=others,
)
training_states = st.sampled_from(sorted(ACTIVE - {JobState.FINALIZING}))


@given(facts, training_states, gang_facts)
def test_a_training_job_moves_or_says_why_it_does_not(
    facts: JobFacts, state: JobState, gang: GangFacts
) -> None:
    facts = dataclasses.replace(facts, state=state)
    planned = facts.step_held and state is JobState.PLANNING
    trains = gang.run is RunState.RUNNING and state is JobState.RUNNING and not gang.missing
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
        ({"state": JobState.QUEUED, "planners": 0}, {}, "no planner takes new work"),
        ({"state": JobState.PLANNING}, {}, "its message is on the way to a planner"),
        ({"state": JobState.CANCELLING}, {}, "its ranks must end first"),
        ({"state": JobState.CANCELLING, "control_turned_at": None}, {}, "no control process has"),
        ({"control_turned_at": LONG_AGO}, {}, "no control process has run since"),
        ({}, {"hosts": 0, "idle": 0}, "no training host of pool 'cpu' is alive; start one"),
        (
            {},
            {"hosts": 0, "idle": 0, "draining": 1},
            "the only training host of pool 'cpu' is draining and takes no new run; start one",
        ),
        (
            {},
            {"hosts": 0, "idle": 0, "draining": 2},
            "all 2 training hosts of pool 'cpu' are draining and take no new run; start one",
        ),
        (
            {},
            {"hosts": 1, "idle": 1, "draining": 1},
            "which has 1, and 1 that is draining: start more",
        ),
        ({}, {"min_hosts": 5}, "it needs 5 hosts of pool 'cpu', which has 3: start more"),
        ({}, {"refusing": 2, "idle": 1}, "which has 3, 2 of which refuse to train: start more"),
        ({}, {"giving_way": 2, "idle": 1}, "2 hosts of pool 'cpu' yield to bulk work"),
        (
            {},
            {"ahead": [NIGHTLY, THEIRS], "idle": 0},
            (
                "it gets hosts of pool 'cpu' after job_1 (nightly) and a job of another project; "
                "0 of 3 hosts are idle"
            ),
        ),
        ({}, {"idle": 1}, "it needs 2 idle hosts of pool 'cpu'; 1 of 3 are"),
        ({}, {}, "its hosts are being reserved"),
        (
            {},
            {"not_before": SOON, "run_error": "rank 1 on host b went silent"},
            "the last run was lost and is taken up again in 9 s: rank 1 on host b went silent",
        ),
        ({}, {"not_before": LONG_AGO, "idle": 1}, "it needs 2 idle hosts"),
        ({}, {"run": RunState.FORMING, "unclaimed": 1}, "1 of its hosts must begin first"),
        ({"broker_error": "refused"}, {"run": RunState.FORMING}, "the broker does not answer"),
        (
            {},
            {"run": RunState.RUNNING, "stop_reason": "host a is going away"},
            "its run ends and will be taken up again: host a is going away",
        ),
        (
            {},
            {"run": RunState.RUNNING, "missing": [LastHeard("b", RECENTLY)]},
            "lost touch with host b (last heard at 11:59:46 UTC) of its run; if that lasts, the",
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
    assert words in (reason or "")


def test_a_job_whose_run_goes_on_has_no_reason() -> None:
    gang = dataclasses.replace(GANG, run=RunState.RUNNING)
    assert waiting_reason.training_reason(WELL, gang) is None
