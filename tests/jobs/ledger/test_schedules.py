"""Promise P8 on a real Postgres: a fire and its job are one, whatever is edited, paused or lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.errors import BadRequest, BadSpec, Conflict, KeyReused, NotFound
from jobs.ledger import controls, fire_states, fires, keys
from jobs.queries import jobs as job_queries
from jobs.rights import Scope
from jobs.schedules.policy import Overlap
from jobs.schedules.states import FireOrigin, FireState
from jobs.states import JobState, RunState
from jobs.tables import ApiKey, Event, Fire, Job, Project, Run, Schedule, ScheduleVersion
from jobs.tenancy import KeyRotation
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger
from tests.jobs.ledger.scheduling import (
    HOUR,
    MINUTE,
    SETTINGS,
    SPEC,
    START,
    Clockwork,
    at,
)
from tests.jobs.ledger.training import Training

PROCESSES = 4


@pytest.fixture
def clock(ledger: Ledger) -> Iterator[Clockwork]:
    yield Clockwork(ledger)
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Schedule).values(next_due=None, next_at=None))
        session.execute(sa.update(Fire).values(to_follow=False))
        whole = {"revoked_at": None, "expires_at": None, "replaced_by": None}
        session.execute(sa.update(ApiKey).values(**whole, scopes=list(Scope)))
        session.execute(sa.update(Project).values(limits=None))


def test_a_fire_is_one_row_with_its_job_and_its_event(clock: Clockwork) -> None:
    nightly = clock.create(timing={"cron": "0 2 * * *"}, name="nightly")
    clock.move_to(at("2026-12-01 02:00"))
    (fire,), (job,) = clock.fires(nightly), clock.jobs(nightly)
    assert (fire.due, fire.state, fire.origin) == (
        at("2026-12-01 02:00"),
        FireState.SUBMITTED,
        FireOrigin.CALENDAR,
    )
    assert job.state is JobState.QUEUED
    with clock.ledger.sessions.begin() as session:
        event = session.scalars(sa.select(Event).where(Event.job_id == job.id)).one()
        view = job_queries.get(session, job.id, project_id=PROJECT)
    assert event.data["schedule_name"] == "nightly"
    assert view.fire is not None
    assert (view.fire.schedule_id, view.fire.due) == (nightly, fire.due)
    assert clock.row(nightly).next_due == at("2026-12-02 02:00")


def test_nothing_fires_before_its_time(clock: Clockwork) -> None:
    clock.now = at("2026-12-01 23:55")
    midnight = clock.create(timing={"cron": "0 0 * * *"})
    clock.turn()
    clock.move_to(at("2026-12-01 23:59"))
    assert clock.fires(midnight) == []


def test_a_turn_that_is_repeated_fires_nothing_again(clock: Clockwork) -> None:
    hourly = clock.create()
    for _ in range(3):
        clock.move_to(START + HOUR)
    assert len(clock.jobs(hourly)) == 1


def test_processes_that_turn_at_once_make_one_job_a_fire(clock: Clockwork) -> None:
    made = [clock.create(overlap="allow") for _ in range(8)]
    clock.now = START + HOUR
    start = threading.Barrier(PROCESSES)

    def turn(_: int) -> None:
        start.wait()
        for _ in range(len(made)):
            with clock.ledger.sessions.begin() as session:
                fires.fire_due(session, now=clock.now, settings=SETTINGS)

    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(turn, range(PROCESSES)))
    clock.turn()
    assert [len(clock.jobs(schedule)) for schedule in made] == [1] * len(made)


def test_a_process_that_dies_in_the_middle_leaves_nothing(clock: Clockwork) -> None:
    hourly = clock.create()
    with clock.ledger.sessions() as session:
        assert fires.fire_due(session, now=START + HOUR, settings=SETTINGS) == 1
        session.rollback()
    assert (clock.fires(hourly), clock.jobs(hourly)) == ([], [])
    clock.move_to(START + HOUR)
    assert len(clock.jobs(hourly)) == 1


def test_a_schedule_that_another_process_holds_is_not_waited_for(clock: Clockwork) -> None:
    both = clock.create(), clock.create()  # due at the same time: either may be held
    with clock.ledger.sessions() as holder:
        assert fires.fire_due(holder, now=START + HOUR, settings=SETTINGS) == 1
        clock.move_to(START + HOUR)
        holder.rollback()
    assert sorted(len(clock.jobs(each)) for each in both) == [0, 1]


@pytest.mark.parametrize(
    ("policy", "jobs", "missed"),
    [
        ({}, [101], [100]),
        ({"catch_up": {"mode": "all"}}, list(range(1, 102)), []),
        ({"catch_up": {"mode": "all", "limit": 10}}, list(range(92, 102)), [91]),
        ({"catch_up": {"mode": "all", "window": "30m"}}, list(range(71, 102)), [70]),
    ],
    ids=["latest", "all", "at most ten", "within half an hour"],
)
def test_after_an_outage(
    clock: Clockwork, policy: dict[str, Any], jobs: list[int], missed: list[int]
) -> None:
    minutely = clock.create(timing={"cron": "* * * * *"}, overlap="allow", **policy)
    clock.move_to(START + 101 * MINUTE)
    found = clock.fires(minutely)
    assert [fire.due for fire in found if fire.state is FireState.SUBMITTED] == [
        START + minute * MINUTE for minute in jobs
    ]
    left_out = [fire for fire in found if fire.state is FireState.MISSED]
    assert sum(fire.count for fire in left_out) == sum(missed)
    assert all(fire.reason for fire in left_out)
    clock.move_to(START + 102 * MINUTE)
    assert clock.fires(minutely)[-1].due == START + 102 * MINUTE


def test_a_template_that_became_invalid_fails_its_fire_and_the_next_is_tried(
    clock: Clockwork,
) -> None:
    hourly = clock.create(spec={"corpus": {"uri": "file:///{fire_time:%H}/rows.jsonl"}})
    with clock.ledger.sessions.begin() as session:
        stored = session.get_one(ScheduleVersion, (hourly, 1))
        broken = {**SPEC, "corpus": {"file": "file-gone"}}
        stored.definition = {**stored.definition, "jobs": [{"spec": broken}]}
    clock.move_to(START + HOUR)
    clock.move_to(START + 2 * HOUR)
    first, second = clock.fires(hourly)
    assert first.state is second.state is FireState.FAILED
    assert first.reason == "no file 'file-gone' in this project; upload it first"
    assert clock.jobs(hourly) == []
    assert clock.row(hourly).next_due == START + 3 * HOUR


def test_a_fire_uses_the_rights_of_its_key_at_that_time(clock: Clockwork) -> None:
    hourly = clock.create()
    with clock.ledger.sessions.begin() as session:
        session.execute(sa.update(ApiKey).values(revoked_at=sa.func.now()))
    clock.move_to(START + HOUR)
    (fire,) = clock.fires(hourly)
    assert fire.state is FireState.FAILED
    assert "the key that made version 1 of this schedule is not valid any more" in str(fire.reason)


def test_a_fire_goes_on_with_the_key_that_replaced_its_own(clock: Clockwork) -> None:
    hourly = clock.create(overlap="allow")
    with clock.ledger.sessions.begin() as session:
        by = keys.authenticate(session, key=f"key of {PROJECT}")
        at_once = KeyRotation(overlap=timedelta())
        made = keys.rotate(session, by.key_id, at_once, by=by)
    clock.move_to(START + HOUR)
    assert clock.fires(hourly)[0].state is FireState.SUBMITTED
    with clock.ledger.sessions.begin() as session:
        keys.revoke(session, made.key_id, by=by)
    clock.move_to(START + 2 * HOUR)
    assert clock.fires(hourly)[1].state is FireState.FAILED


@pytest.mark.parametrize(
    "change", [{"expires_at": sa.func.now()}, {"scopes": ["read"]}], ids=["expired", "may read"]
)
def test_a_fire_needs_a_key_that_may_submit(clock: Clockwork, change: dict[str, Any]) -> None:
    hourly = clock.create()
    with clock.ledger.sessions.begin() as session:
        session.execute(sa.update(ApiKey).values(**change))
    clock.move_to(START + HOUR)
    assert clock.fires(hourly)[0].state is FireState.FAILED


def test_a_fire_beyond_the_limit_of_its_project_fails(clock: Clockwork) -> None:
    hourly = clock.create()
    with clock.ledger.sessions.begin() as session:
        session.execute(sa.update(Project).values(limits={"jobs_in_flight": 0}))
    clock.move_to(START + HOUR)
    (fire,) = clock.fires(hourly)
    assert fire.state is FireState.FAILED
    assert "jobs that have not ended, and may have 0" in str(fire.reason)


def test_a_schedule_that_cannot_be_read_is_paused_and_keeps_no_other_from_firing(
    clock: Clockwork,
) -> None:
    broken, hourly = clock.create(), clock.create()
    clock.trigger(broken)
    clock.end(clock.jobs(broken)[0])
    with clock.ledger.sessions.begin() as session:
        stored = session.get_one(ScheduleVersion, (broken, 1))
        timing = {**stored.definition["timing"], "time_zone": "Europe/Atlantis"}
        stored.definition = {**stored.definition, "timing": timing}
    clock.move_to(START + HOUR)
    assert (len(clock.jobs(hourly)), len(clock.jobs(broken))) == (1, 1)
    row = clock.row(broken)
    assert row.paused_at == clock.now
    assert "Europe/Atlantis" in (row.note or "")


def test_the_state_of_a_fire_is_that_of_its_job(clock: Clockwork) -> None:
    hourly = clock.create()
    clock.move_to(START + HOUR)
    (job,) = clock.jobs(hourly)
    clock.end(job, failed=True)
    assert clock.states(hourly) == [FireState.FAILED]
    with clock.ledger.sessions.begin() as session:
        controls.retry(session, job.id, project_id=PROJECT)
    assert clock.states(hourly) == [FireState.SUBMITTED]
    clock.end(job)
    assert clock.states(hourly) == [FireState.SUCCEEDED]


def test_a_job_that_an_earlier_version_ended_is_noticed(clock: Clockwork) -> None:
    hourly = clock.create()
    clock.move_to(START + HOUR)
    (job,) = clock.jobs(hourly)
    clock.ledger.set(job.id, state=JobState.SUCCEEDED, finished_at=sa.func.now())
    with clock.ledger.sessions.begin() as session:
        assert fire_states.mend(session) == 1
    assert clock.states(hourly) == [FireState.SUCCEEDED]


def test_skip_leaves_a_fire_out_while_an_earlier_one_runs(clock: Clockwork) -> None:
    hourly = clock.create(overlap="skip")
    clock.move_to(START + HOUR)
    clock.move_to(START + 2 * HOUR)
    (first,) = clock.jobs(hourly)
    assert clock.states(hourly) == [FireState.SUBMITTED, FireState.SKIPPED]
    assert first.id in str(clock.fires(hourly)[1].reason)
    clock.end(first)
    clock.move_to(START + 3 * HOUR)
    assert clock.states(hourly)[2] is FireState.SUBMITTED


def test_buffer_one_keeps_the_newest_and_the_dropped_fire_says_so(clock: Clockwork) -> None:
    hourly = clock.create(overlap="buffer_one")
    for hour in (1, 2, 3):
        clock.move_to(START + hour * HOUR)
    assert clock.states(hourly) == [FireState.SUBMITTED, FireState.SKIPPED, FireState.BUFFERED]
    assert "2026-12-01T03:00:00Z took its place" in str(clock.fires(hourly)[1].reason)
    clock.end(clock.jobs(hourly)[0])
    clock.turn()
    assert clock.states(hourly)[2] is FireState.SUBMITTED
    assert len(clock.jobs(hourly)) == 2


def test_buffer_all_starts_them_one_after_another(clock: Clockwork) -> None:
    hourly = clock.create(overlap="buffer_all")
    for hour in (1, 2, 3):
        clock.move_to(START + hour * HOUR)
    for done in (1, 2):
        clock.end(clock.jobs(hourly)[-1])
        clock.turn()
        assert len(clock.jobs(hourly)) == done + 1
    assert clock.states(hourly)[2] is FireState.SUBMITTED


def test_a_fire_that_waits_in_a_paused_schedule_says_so_and_starts_when_it_is_resumed(
    clock: Clockwork,
) -> None:
    hourly = clock.create(overlap="buffer_all")
    for hour in (1, 2):
        clock.move_to(START + hour * HOUR)
    clock.pause(hourly)
    clock.end(clock.jobs(hourly)[0])
    clock.turn()
    waiting = clock.fires(hourly)[1]
    assert (waiting.state, waiting.reason) == (FireState.BUFFERED, "the schedule is paused")
    clock.resume(hourly)
    assert clock.states(hourly)[1] is FireState.SUBMITTED


def test_a_buffered_fire_that_cannot_start_lets_the_next_one_start(clock: Clockwork) -> None:
    hourly = clock.create(overlap="buffer_all")
    for hour in (1, 2, 3):
        clock.move_to(START + hour * HOUR)
    with clock.ledger.sessions.begin() as session:
        session.execute(sa.update(ApiKey).values(revoked_at=sa.func.now()))
    clock.end(clock.jobs(hourly)[0])
    clock.turn()
    assert clock.states(hourly)[1:] == [FireState.FAILED, FireState.FAILED]


def test_cancel_other_cancels_what_runs(clock: Clockwork) -> None:
    hourly = clock.create(overlap="cancel_other")
    clock.move_to(START + HOUR)
    clock.move_to(START + 2 * HOUR)
    first, second = clock.jobs(hourly)
    clock.cancel_wanted()
    assert clock.ledger.job(first.id).state is JobState.CANCELLING
    with clock.ledger.sessions.begin() as session:
        session.execute(
            sa.update(Job)
            .where(Job.id == first.id)
            .values(state=JobState.CANCELLED, finished_at=sa.func.now())
        )
        fire_states.mend(session)
    assert clock.states(hourly) == [FireState.CANCELLED, FireState.SUBMITTED]
    assert "cancelled for the fire of 2026-12-01T02:00:00Z" in str(clock.fires(hourly)[0].reason)
    assert clock.ledger.job(second.id).state is JobState.QUEUED


def test_training_makes_a_checkpoint_before_it_is_cancelled(clock: Clockwork) -> None:
    training = Training(clock.ledger)
    finetune = {"kind": "finetune", "base": "/model", "model": "m", "pool": "train"}
    hourly = clock.create(spec=finetune, overlap="cancel_other")
    clock.move_to(START + HOUR)
    (job,) = clock.jobs(hourly)
    training.plan(job.id)
    run_id = training.formed(job.id)
    clock.move_to(START + 2 * HOUR)
    clock.cancel_wanted()
    assert clock.ledger.job(job.id).state is JobState.PAUSED
    clock.cancel_wanted()
    assert clock.ledger.job(job.id).state is JobState.PAUSED
    with clock.ledger.sessions.begin() as session:
        values = {"state": RunState.PREEMPTED, "finished_at": sa.func.now()}
        session.execute(sa.update(Run).where(Run.id == run_id).values(values))
    clock.cancel_wanted()
    assert clock.ledger.job(job.id).state is JobState.CANCELLING
    training.clear()


def test_a_failed_job_pauses_the_schedule_if_that_was_asked_for(clock: Clockwork) -> None:
    careful, bold = clock.create(pause_on_failure=True), clock.create()
    clock.move_to(START + HOUR)
    for schedule in (careful, bold):
        clock.end(clock.jobs(schedule)[0], failed=True)
    clock.turn()
    assert clock.row(careful).note == (
        "paused because the fire of 2026-12-01T01:00:00Z failed: its job failed"
    )
    clock.move_to(START + 2 * HOUR)
    assert (len(clock.fires(careful)), len(clock.fires(bold))) == (1, 2)


def test_a_pause_is_shown_with_its_note_and_what_passed_meanwhile_is_left_out(
    clock: Clockwork,
) -> None:
    hourly = clock.create()
    clock.pause(hourly, "the cluster moves")
    assert clock.row(hourly).note == "the cluster moves"
    clock.move_to(START + 5 * HOUR)
    clock.resume(hourly)
    clock.turn()
    assert clock.fires(hourly) == []
    clock.move_to(START + 6 * HOUR)
    assert [fire.due for fire in clock.fires(hourly)] == [START + 6 * HOUR]


def test_a_fire_that_was_due_when_the_schedule_was_paused_is_recorded(clock: Clockwork) -> None:
    hourly = clock.create()
    clock.now = START + HOUR
    clock.pause(hourly)
    (fire,) = clock.fires(hourly)
    assert fire.state is FireState.SKIPPED
    assert "paused before this fire was let go" in str(fire.reason)


def test_an_edit_neither_loses_nor_repeats_a_fire_that_was_due(clock: Clockwork) -> None:
    schedule = clock.create(timing={"cron": "0 * * * *"}, overlap="allow")
    clock.now = START + HOUR + MINUTE
    clock.edit(schedule, timing={"cron": "*/10 * * * *"})
    assert [fire.version for fire in clock.fires(schedule)] == [1]
    clock.move_to(START + HOUR + 10 * MINUTE)
    assert [(fire.due, fire.version) for fire in clock.fires(schedule)] == [
        (START + HOUR, 1),
        (START + HOUR + 10 * MINUTE, 2),
    ]


def test_an_edit_lets_a_fire_go_that_waits_for_its_jitter(clock: Clockwork) -> None:
    schedule = clock.create(timing={"cron": "0 * * * *", "jitter": "50m"})
    clock.now = START + HOUR
    clock.edit(schedule, timing={"jitter": None})
    clock.move_to(START + 2 * HOUR - MINUTE)
    assert [fire.due for fire in clock.fires(schedule)] == [START + HOUR]


def test_a_version_is_kept_with_who_made_it(clock: Clockwork) -> None:
    schedule = clock.create()
    clock.edit(schedule, policy={"overlap": "allow"}, made_by="another")
    with clock.ledger.sessions.begin() as session:
        versions = session.scalars(
            sa.select(ScheduleVersion)
            .where(ScheduleVersion.schedule_id == schedule)
            .order_by(ScheduleVersion.version)
        ).all()
    assert [each.definition["policy"]["overlap"] for each in versions] == ["skip", "allow"]
    assert versions[1].made_by == "another"


def test_a_schedule_ends_after_its_last_fire(clock: Clockwork) -> None:
    twice = clock.create(timing={"cron": "0 * * * *", "max_fires": 2}, overlap="allow")
    for hour in (1, 2, 3):
        clock.move_to(START + hour * HOUR)
    assert len(clock.jobs(twice)) == 2
    assert clock.row(twice).next_due is None


def test_a_trigger_fires_now_even_when_paused_and_a_repeated_key_is_the_same_fire(
    clock: Clockwork,
) -> None:
    schedule = clock.create()
    clock.pause(schedule)
    first = clock.trigger(schedule, key="once")
    assert first.state is FireState.SUBMITTED
    assert clock.trigger(schedule, key="once").id == first.id
    assert clock.trigger(schedule).id != first.id
    assert clock.trigger(schedule, overlap=Overlap.SKIP).state is FireState.SKIPPED
    assert len(clock.jobs(schedule)) == 2


def test_a_backfill_has_at_most_that_many_jobs_at_a_time(clock: Clockwork) -> None:
    schedule = clock.create()
    clock.pause(schedule)
    clock.now = START + 24 * HOUR
    clock.resume(schedule)
    made = clock.backfill(schedule, START, START + 5 * HOUR, at_most=2)
    assert made.fires == 6
    seen = []
    for _ in range(4):
        running = [job for job in clock.jobs(schedule) if job.state is JobState.QUEUED]
        seen.append(len(running))
        for job in running:
            clock.end(clock.ledger.job(job.id))
        clock.turn()
    assert seen == [2, 2, 2, 0]
    assert clock.states(schedule) == [FireState.SUCCEEDED] * 6


def test_a_backfill_leaves_out_what_had_a_job_and_does_what_was_missed(clock: Clockwork) -> None:
    schedule = clock.create(overlap="allow")
    clock.move_to(START + HOUR)
    clock.move_to(START + 4 * HOUR)
    assert clock.states(schedule) == [
        FireState.SUBMITTED,
        FireState.MISSED,
        FireState.SUBMITTED,
    ]
    made = clock.backfill(schedule, START, clock.now, at_most=9)
    assert (made.fires, made.left_out) == (3, 2)  # midnight, before it was made, and two missed
    again = clock.backfill(schedule, START, clock.now, at_most=9)
    assert (again.fires, again.left_out) == (0, 5)
    assert len(clock.jobs(schedule)) == 5


def test_a_backfill_of_the_first_missed_fires_leaves_the_record_of_the_others(
    clock: Clockwork,
) -> None:
    schedule = clock.create(overlap="allow")
    clock.move_to(START + 6 * HOUR)
    clock.backfill(schedule, START, START + 2 * HOUR)
    missed = [fire for fire in clock.fires(schedule) if fire.state is FireState.MISSED]
    assert [(fire.due, fire.until, fire.count) for fire in missed] == [
        (START + 3 * HOUR, START + 5 * HOUR, 3)
    ]


def test_a_backfill_before_control_has_seen_what_was_missed_leaves_its_record(
    clock: Clockwork,
) -> None:
    schedule = clock.create(overlap="allow")
    clock.now = START + 6 * HOUR
    clock.backfill(schedule, START, START + 2 * HOUR)
    clock.turn()
    missed = [fire for fire in clock.fires(schedule) if fire.state is FireState.MISSED]
    assert [(fire.due, fire.until, fire.count) for fire in missed] == [
        (START + 3 * HOUR, START + 5 * HOUR, 3)
    ]


def test_a_backfill_does_not_keep_the_calendar_from_firing(clock: Clockwork) -> None:
    schedule = clock.create(overlap="skip")
    clock.now = START + MINUTE
    clock.backfill(schedule, START - 3 * HOUR, START)
    clock.move_to(START + HOUR)
    assert clock.fires(schedule)[-1].state is FireState.SUBMITTED


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        (START, START - HOUR, "from an earlier to a later time"),
        (START, START + 3 * HOUR, "not into the future"),
        (START - timedelta(days=60), START, "at most 1,000 fires"),
    ],
)
def test_a_backfill_that_cannot_be_is_refused(
    clock: Clockwork, since: Any, until: Any, words: str
) -> None:
    schedule = clock.create()
    with pytest.raises(BadRequest, match=words):
        clock.backfill(schedule, since, until)


def test_a_deleted_schedule_fires_no_more_and_its_name_is_free(clock: Clockwork) -> None:
    schedule = clock.create(name="once-only", overlap="buffer_all")
    clock.move_to(START + HOUR)
    clock.move_to(START + 2 * HOUR)
    clock.delete(schedule)
    assert clock.states(schedule) == [FireState.SUBMITTED, FireState.CANCELLED]
    clock.end(clock.jobs(schedule)[0])
    clock.move_to(START + 3 * HOUR)
    assert clock.states(schedule) == [FireState.SUCCEEDED, FireState.CANCELLED]
    assert clock.create(name="once-only") != schedule


def test_a_name_is_taken_once_in_a_project(clock: Clockwork) -> None:
    clock.create(name="taken")
    with pytest.raises(Conflict, match="there is a schedule 'taken' in this project"):
        clock.create(name="taken")
    assert clock.create(name="taken", project=OTHER)


def test_the_same_key_makes_one_schedule(clock: Clockwork) -> None:
    first = clock.create(name="keyed", key="k")
    assert clock.create(name="keyed", key="k") == first
    with pytest.raises(KeyReused, match="Idempotency-Key 'k' was used"):
        clock.create(name="keyed", key="k", overlap="allow")


def test_another_projects_schedule_is_not_found(clock: Clockwork) -> None:
    schedule = clock.create(name="theirs", project=OTHER)
    for key in (schedule, "theirs"):
        with pytest.raises(NotFound):
            clock.pause(key)
        with pytest.raises(NotFound):
            clock.trigger(key)


def test_placeholders_are_filled_in_the_zone_of_the_schedule(clock: Clockwork) -> None:
    schedule = clock.create(
        name="windows",
        timing={"cron": "0 2 * * *", "time_zone": "Europe/Berlin"},
        spec={
            "name": "{schedule} of {fire_time:%Y-%m-%d}, {{not}} {}",
            "corpus": {"uri": "file:///{previous_fire_time:%d}-{last_success:%Y%m%dT%H%M}.jsonl"},
        },
        overlap="allow",
    )
    for day in (1, 2):
        clock.move_to(at(f"2026-12-0{day} 01:00"))
        clock.end(clock.jobs(schedule)[-1])
    first, second = (job.spec for job in clock.jobs(schedule))
    assert first["name"] == "windows of 2026-12-01, {not} {}"
    assert first["corpus"]["uri"] == "file:///30-20261201T0100.jsonl"  # when it was made
    assert second["corpus"]["uri"] == "file:///01-20261201T0200.jsonl"


@pytest.mark.parametrize(
    ("spec", "param", "words"),
    [
        ({"name": "{today}"}, "jobs.0.spec.name", "there is no placeholder '{today}'"),
        ({"name": "{fire_time:%x}"}, "jobs.0.spec.name", "has '%x': there are %Y"),
        ({"name": "{schedule:%Y}"}, "jobs.0.spec.name", "write it without a colon"),
        (
            {"corpus": {"uri": "s3://other/x"}},
            "jobs.0.spec.corpus.uri",
            "outside of what jobs may read",
        ),
        ({"corpus": {"file": "file-none"}}, "jobs.0.spec.corpus.file", "no file 'file-none'"),
        ({"model": "none@champion"}, "jobs.0.spec.model", "no model 'none'"),
        ({"priority": 1000}, "jobs.0.spec.priority", "less than or equal to 100"),
    ],
)
def test_a_template_that_could_not_be_submitted_is_refused_at_once(
    clock: Clockwork, spec: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises((BadRequest, NotFound), match=words) as refused:
        clock.create(spec=spec)
    assert refused.value.param == param


def test_a_model_from_a_placeholder_need_not_exist_yet(clock: Clockwork) -> None:
    assert clock.create(spec={"model": "news-{fire_time:%Y%m%d}@1"})


def test_an_edit_is_refused_with_the_name_of_its_field(clock: Clockwork) -> None:
    schedule = clock.create()
    with pytest.raises(BadSpec, match="exactly one"):
        clock.edit(schedule, timing={"every": "1h"})
    with pytest.raises(Conflict, match="has version 1 by now, not 7"):
        clock.edit(schedule, version=7, policy={"overlap": "allow"})
