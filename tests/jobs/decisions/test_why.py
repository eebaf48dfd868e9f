"""Promise P11: every job says why it does not move, or how it does, and what to do next."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.decisions import why
from jobs.decisions.phrases import OtherJob
from jobs.decisions.time_spent import TimePart
from jobs.decisions.waiting_reason import GangFacts, JobFacts, Situation
from jobs.decisions.why import (
    Finding,
    JobSnapshot,
    Pause,
    PausedSchedule,
    QueuePlace,
    TimeFinding,
)
from jobs.states import ACTIVE, FINAL, JobState, RunState
from tests.jobs.decisions.test_waiting_reason import (
    DEAD,
    GANG,
    LONG_AGO,
    NIGHTLY,
    SOON,
    THEIRS,
    WELL,
    facts,
    gang_facts,
)

JOB = JobSnapshot(
    job_id="job_9",
    state=JobState.RUNNING,
    trains=False,
    pool="cpu",
    situation=Situation(WELL, None),
    rows_done=40,
    rows_total=100,
)

times = st.dictionaries(st.sampled_from(list(TimePart)), st.floats(0, 1e6), max_size=9)


patient = settings(suppress_health_check=[HealthCheck.too_slow])
"""The first snapshot takes a second on a busy machine."""


@st.composite
def snapshots(draw: st.DrawFn) -> JobSnapshot:
    """Any job in any state."""
    trains = draw(st.booleans())
    states = sorted(set(JobState) - {JobState.FINALIZING}) if trains else list(JobState)
    state = draw(st.sampled_from(states))
    known = dataclasses.replace(draw(facts), state=state)
    gang = draw(gang_facts) if trains else None
    failed = state is JobState.FAILED
    return JobSnapshot(
        job_id="job_9",
        state=state,
        trains=trains,
        pool="cpu",
        situation=Situation(known, gang) if state in ACTIVE else None,
        error_code=draw(st.sampled_from(["corpus_empty", "too_many_failed_rows"]))
        if failed
        else None,
        error_message="there are no rows" if failed else None,
        rows_done=draw(st.integers(0, 9)),
        rows_total=draw(st.none() | st.integers(9, 10)),
        rows_failed=draw(st.integers(0, 2)),
        failed_codes=draw(st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 2))),
        rate=draw(st.none() | st.floats(0, 1e5)),
        loading=draw(st.integers(0, 2)),
        steps=draw(st.integers(0, 9)),
        steps_total=draw(st.none() | st.just(9)),
        pause=draw(st.none() | st.just(Pause(LONG_AGO, "3f2a91c0"))),
        place=draw(st.none() | st.builds(QueuePlace, st.integers(1, 3), st.integers(1, 3))),
        schedule=draw(st.none() | st.just(PausedSchedule("nightly", None))),
        time=draw(times),
    )


@patient
@given(snapshots())
def test_every_job_gets_a_sentence_and_a_next_step(job: JobSnapshot) -> None:
    found = why.explain(job)
    assert found.findings
    everything: list[Finding | TimeFinding] = [*found.findings, *found.time]
    for each in everything:
        assert each.sentence
        assert each.advice
        assert each.command.startswith(("nightshift ", "python -m ", "NIGHTSHIFT_"))
        assert "{" not in each.command


@patient
@given(snapshots())
def test_it_is_the_waiting_reason_with_what_to_do(job: JobSnapshot) -> None:
    """One decision says what stands in the way, and nothing is said twice."""
    found = why.explain(job)
    sentences = [finding.sentence for finding in found.findings]
    assert len(sentences) == len(set(sentences)) or job.state in ACTIVE
    reason = job.situation.reason if job.situation else None
    assert found.moves == (job.state in ACTIVE and reason is None)
    if job.situation and job.state is not JobState.PAUSED:
        named = sentences[: len(job.situation.obstacles)]
        assert "; ".join(named) == (reason or "")


@patient
@given(snapshots())
def test_of_another_projects_job_nothing_is_in_it_but_that_it_is_one(job: JobSnapshot) -> None:
    assert THEIRS.job_id not in str(why.explain(job))
    assert "secret" not in str(why.explain(job))


def situation(change: dict[str, Any], gang: GangFacts | None = None) -> dict[str, Any]:
    known: JobFacts = dataclasses.replace(WELL, **change)
    return {"situation": Situation(known, gang), "state": known.state, "trains": gang is not None}


def first(**change: Any) -> tuple[str, str, str]:
    """Cause, sentence and command of the first finding."""
    found = why.explain(dataclasses.replace(JOB, **change)).findings[0]
    return found.cause, found.sentence, found.command


POOL = "NIGHTSHIFT_POOL=cpu python -m workers.processes pool"
HOST = "NIGHTSHIFT_HOST_POOL=cpu python -m workers.processes host"
CONTROL = "python -m workers.processes control"
PLANNER = "python -m workers.processes planner"
NEED_ME = OtherJob("job_7", None, priority=0, same_project=True)


@pytest.mark.parametrize(
    ("change", "cause", "command"),
    [
        ({"state": JobState.PAUSED}, "paused", "nightshift jobs resume job_9"),
        ({"slots": 0}, "no_worker", POOL),
        ({"control_turned_at": None}, "no_control", CONTROL),
        ({"broker_error": "refused"}, "broker", "nightshift doctor"),
        ({"busy_slots": 2, "computed": [NIGHTLY]}, "busy", "nightshift jobs why job_1"),
        ({"busy_slots": 2, "computed": [THEIRS]}, "busy", POOL),
        ({"sent": 0, "queued": [NEED_ME]}, "in_queue", "nightshift jobs why job_7"),
        ({"sent": 0, "queued": [THEIRS]}, "in_queue", POOL),
        ({}, "on_the_way", "nightshift jobs watch job_9"),
        (
            {"failing": 3, "last_error": "disk full", "retry_at": SOON},
            "failing",
            "nightshift jobs chunks job_9",
        ),
        ({"pending": 0, "lost": [DEAD]}, "lost_worker", "nightshift workers list"),
        ({"state": JobState.QUEUED, "planners": 0}, "no_planner", PLANNER),
        (
            {"state": JobState.QUEUED, "planning": [NIGHTLY]},
            "planners_busy",
            "nightshift jobs why job_1",
        ),
        ({"state": JobState.QUEUED, "planning": [THEIRS]}, "planners_busy", PLANNER),
        (
            {"state": JobState.QUEUED, "step_error": "refused", "step_not_before": SOON},
            "step_failed",
            "nightshift jobs events job_9",
        ),
        ({"state": JobState.CANCELLING, "leased": 2}, "ending", "nightshift jobs watch job_9"),
    ],
)
def test_each_obstacle_of_bulk_work_has_its_command(
    change: dict[str, Any], cause: str, command: str
) -> None:
    found = first(**situation(change))
    assert (found[0], found[2]) == (cause, command)


@pytest.mark.parametrize(
    ("gang", "cause", "command"),
    [
        ({"hosts": 0, "idle": 0}, "no_host", HOST),
        ({"min_hosts": 5}, "too_few_hosts", "nightshift hosts list"),
        ({"idle": 0, "ahead": [NIGHTLY]}, "hosts_busy", "nightshift jobs why job_1"),
        ({"idle": 0, "ahead": [THEIRS]}, "hosts_busy", "nightshift hosts list"),
        (
            {"not_before": SOON, "run_error": "rank 1 died"},
            "run_lost",
            "nightshift jobs logs job_9",
        ),
        ({"run": RunState.RUNNING}, "training", "nightshift jobs watch job_9"),
    ],
)
def test_each_obstacle_of_training_has_its_command(
    gang: dict[str, Any], cause: str, command: str
) -> None:
    found = first(**situation({}, dataclasses.replace(GANG, **gang)))
    assert (found[0], found[2]) == (cause, command)


def test_a_pause_names_when_and_which_key() -> None:
    pause = Pause(datetime(2026, 1, 1, 11, 2, 3, tzinfo=UTC), "3f2a91c0")
    _, sentence, _ = first(pause=pause, **situation({"state": JobState.PAUSED}))
    assert sentence == (
        "paused; resume it with `nightshift jobs resume` "
        "(since 2026-01-01 11:02:03 UTC by the key 3f2a91c0)"
    )


def test_a_job_that_moves_says_what_is_computed_loaded_and_failing() -> None:
    change = {"leased": 3, "failing": 1, "last_error": "disk full", "retry_at": SOON}
    job = dataclasses.replace(JOB, loading=1, rate=2.5, **situation(change))
    found = why.explain(job)
    assert found.moves
    assert [finding.sentence for finding in found.findings] == [
        "2 chunks are computed; 40 of 100 rows are done, 2.5 a second",
        "the model is loaded for 1 chunk",
        "1 chunk failed and is tried again in 9 s; the last error: disk full",
    ]


@pytest.mark.parametrize(
    ("state", "fields", "sentence", "command"),
    [
        ("succeeded", {}, "it succeeded; 40 of 100 rows are done", "jobs results job_9"),
        ("succeeded", {"trains": True}, "it succeeded", "jobs report job_9"),
        ("cancelled", {}, "it was cancelled; 40 of 100 rows are done", "jobs retry job_9"),
        ("expired", {}, "its deadline passed; 40 of 100 rows are done", "jobs show job_9"),
        (
            "failed",
            {"error_code": "corpus_empty", "error_message": "there are no rows"},
            "it failed: there are no rows (corpus_empty)",
            "jobs retry job_9",
        ),
        (
            "failed",
            {"error_code": "run_failed", "error_message": "rank 0", "trains": True},
            "it failed: rank 0 (run_failed)",
            "jobs logs job_9",
        ),
    ],
)
def test_a_job_that_has_ended_says_how(
    state: str, fields: dict[str, Any], sentence: str, command: str
) -> None:
    found = first(state=JobState(state), situation=None, **fields)
    assert found[1:] == (sentence, f"nightshift {command}")


@pytest.mark.parametrize("state", sorted(FINAL))
def test_failed_rows_are_counted_by_code_and_no_example_is_shown(state: JobState) -> None:
    """The message of such a job has the first failed row as an example."""
    failed = state is JobState.FAILED
    job = dataclasses.replace(
        JOB,
        state=state,
        situation=None,
        error_code=why.TOO_MANY_FAILED_ROWS if failed else None,
        error_message="such as line 3: my secret text" if failed else None,
        rows_failed=1_012,
        failed_codes={"empty_text": 12, "row_failed": 1_000},
    )
    said = " ".join(finding.sentence for finding in why.explain(job).findings)
    assert "1,012 rows failed (row_failed 1,000, empty_text 12)" in said
    assert "secret" not in said


def test_a_job_in_a_queue_says_its_place() -> None:
    change = situation({"busy_slots": 2, "computed": [NIGHTLY]})
    job = dataclasses.replace(JOB, place=QueuePlace(2, 5), **change)
    busy, place = why.explain(job).findings
    assert busy.cause == "busy"
    assert place.sentence == (
        "of 5 jobs that wait for slots of pool 'cpu' it is number 2, by priority and age"
    )


def test_the_schedule_that_submitted_it_and_is_paused_is_named() -> None:
    job = dataclasses.replace(JOB, schedule=PausedSchedule("nightly", "the GPU is away"))
    last = why.explain(job).findings[-1]
    assert last.sentence.endswith("nightly, which submitted it, is paused: the GPU is away")
    assert last.command == "nightshift schedules resume nightly"


@pytest.mark.parametrize("trains", [False, True])
def test_each_part_of_the_time_has_its_sentence_in_the_order_in_which_it_comes(
    *, trains: bool
) -> None:
    job = dataclasses.replace(JOB, trains=trains, time=dict.fromkeys(TimePart, 1.0))
    found = why.explain(dataclasses.replace(job, state=JobState.SUCCEEDED, situation=None))
    assert [each.part for each in found.time] == list(TimePart)
    assert len({each.sentence for each in found.time}) == len(TimePart)
