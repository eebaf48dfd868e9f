"""Schedules whose fires are groups: all jobs of a fire or none, and one state for all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.errors import BadSpec, NightshiftError, NotFound
from jobs.inputs import ROWS
from jobs.kinds import Since
from jobs.ledger import controls, deletions, files, fire_states, groups, transitions
from jobs.lookups import inputs as lookup
from jobs.queries import fires as fire_queries
from jobs.queries import groups as group_queries
from jobs.schedules.states import FireState
from jobs.states import JobState
from jobs.tables import (
    ApiKey,
    Event,
    Fire,
    Job,
    JobGroup,
    JobInput,
    Schedule,
    ScheduleVersion,
    WebhookDelivery,
    WebhookEvent,
)
from jobs.webhooks.events import EventType
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.ledger.scheduling import HOUR, MINUTE, SPEC, START, TRAIN, Clockwork
from tests.jobs.ledger.test_webhooks import Outbox

NIGHT: dict[str, Any] = {
    "train": {**TRAIN, "name": "{schedule} at {fire_time:%H}"},
    "check": {**SPEC, "model": "{train.model}"},
    "label": {**SPEC, "depends_on": ["check:end"]},
    "apart": SPEC,
}


@pytest.fixture
def clock(ledger: Ledger) -> Iterator[Clockwork]:
    yield Clockwork(ledger)
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Schedule).values(next_due=None, next_at=None))
        session.execute(sa.update(Fire).values(to_follow=False))
        session.execute(sa.update(ApiKey).values(revoked_at=None))


def fired(clock: Clockwork, jobs: dict[str, Any], **policy: Any) -> str:
    """A schedule of this group that has fired once."""
    schedule = clock.create(jobs=jobs, **policy)
    clock.move_to(clock.now + HOUR)
    return schedule


def group_id(clock: Clockwork, schedule: str) -> str:
    (found,) = {job.group_id for job in clock.members(schedule).values()}
    assert found is not None
    return found


def test_a_fire_is_one_group_with_its_jobs_their_needs_and_their_events(clock: Clockwork) -> None:
    schedule = clock.create(jobs=NIGHT, name="nightly")
    clock.move_to(START + HOUR)
    (fire,), found = clock.fires(schedule), clock.members(schedule)
    assert fire.state is FireState.SUBMITTED
    assert found.keys() == NIGHT.keys()
    assert found["train"].spec["name"] == "nightly at 01"
    assert [found[name].held for name in NIGHT] == [False, True, True, False]
    with clock.ledger.sessions.begin() as session:
        group = group_queries.get(session, group_id(clock, schedule), project_id=PROJECT)
        events = session.scalars(
            sa.select(Event).where(Event.job_id.in_([job.id for job in found.values()]))
        ).all()
        view = fire_queries.get(session, fire.id)
    assert (group.group.name, group.group.members) == ("nightly", list(NIGHT))
    assert {event.data["schedule_name"] for event in events} == {"nightly"}
    assert len(events) == len(NIGHT)
    assert view.group_id == group.group.id
    assert [job.member for job in view.jobs] == list(NIGHT)


def test_a_member_that_cannot_be_submitted_leaves_none_of_the_group(clock: Clockwork) -> None:
    schedule = clock.create(jobs=NIGHT)
    with clock.ledger.sessions.begin() as session:
        stored = session.get_one(ScheduleVersion, (schedule, 1))
        *kept, last = stored.definition["jobs"]
        last = {**last, "spec": {**SPEC, "corpus": {"file": "file-gone"}}}
        stored.definition = {**stored.definition, "jobs": [*kept, last]}
        before = session.scalar(sa.select(sa.func.count(JobGroup.id)))
    clock.move_to(START + HOUR)
    (fire,) = clock.fires(schedule)
    assert fire.state is FireState.FAILED
    assert fire.reason == (
        "jobs.apart.corpus.file: no file 'file-gone' in this project; upload it first"
    )
    assert clock.jobs(schedule) == []
    with clock.ledger.sessions.begin() as session:
        assert session.scalar(sa.select(sa.func.count(JobGroup.id))) == before


@pytest.mark.parametrize(
    ("member", "error", "param"),
    [
        ({**SPEC, "depends_on": ["job_none"]}, NotFound, "jobs.bad.depends_on.0.job"),
        ({**SPEC, "model": "{apart.model}"}, BadSpec, "jobs.bad.model"),
        ({**SPEC, "depends_on": ["bad"]}, BadSpec, "jobs"),
        ({**SPEC, "model": "none@1"}, BadSpec, "jobs.bad.model"),
        ({**SPEC, "corpus": {"uri": "s3://elsewhere/a"}}, NightshiftError, "jobs.bad.corpus.uri"),
    ],
)
def test_a_group_that_no_fire_could_submit_is_refused_when_it_is_made(
    clock: Clockwork, member: dict[str, Any], error: type[NightshiftError], param: str
) -> None:
    with pytest.raises(error) as refused:
        clock.create(jobs={**NIGHT, "bad": member})
    assert refused.value.param == param


def test_the_fire_ends_when_all_members_have_and_fails_if_one_has(clock: Clockwork) -> None:
    schedule = fired(clock, NIGHT)
    found = clock.members(schedule)
    clock.end(found["apart"])
    assert clock.states(schedule) == [FireState.SUBMITTED]
    clock.end(found["train"], failed=True)
    clock.settle()
    assert clock.members(schedule)["check"].error_code == "dependency_failed"
    assert clock.states(schedule) == [FireState.SUBMITTED]
    clock.settle()
    clock.end(clock.members(schedule)["label"])
    assert clock.states(schedule) == [FireState.FAILED]
    with clock.ledger.sessions.begin() as session:
        groups.retry(session, group_id(clock, schedule), project_id=PROJECT)
    (fire,) = clock.fires(schedule)
    assert (fire.state, fire.ended_at, fire.to_follow) == (FireState.SUBMITTED, None, False)


def test_members_that_end_at_once_end_their_fire_once(clock: Clockwork) -> None:
    jobs = {f"m{number}": SPEC for number in range(6)}
    for _ in range(3):
        schedule = fired(clock, jobs, overlap="allow")
        start = threading.Barrier(len(jobs))

        def end(job: Job, start: threading.Barrier = start) -> None:
            start.wait()
            clock.end(job)

        with ThreadPoolExecutor(len(jobs)) as pool:
            list(pool.map(end, clock.members(schedule).values()))
        (fire,) = clock.fires(schedule)
        assert (fire.state, fire.to_follow) == (FireState.SUCCEEDED, True)
        clock.turn()


def test_a_retry_while_another_member_ends_keeps_the_fire_open(clock: Clockwork) -> None:
    schedule = fired(clock, {"one": SPEC, "two": SPEC})
    found = clock.members(schedule)
    clock.end(found["one"], failed=True)
    with clock.ledger.sessions() as session:
        controls.retry(session, found["one"].id, project_id=PROJECT)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(clock.end, found["two"])
            with pytest.raises(TimeoutError):  # it waits for the lock on the fire
                ending.result(timeout=0.3)
            session.commit()
            ending.result(timeout=30)
    assert clock.states(schedule) == [FireState.SUBMITTED]


def test_a_fire_of_which_no_member_had_rows_is_skipped_and_says_why(clock: Clockwork) -> None:
    schedule = fired(clock, {"train": TRAIN, "check": NIGHT["check"]})
    clock.skip(clock.members(schedule)["train"])
    assert clock.states(schedule) == [FireState.SUBMITTED]
    clock.settle()
    found = clock.members(schedule)
    assert found["check"].state is JobState.CANCELLED
    assert found["check"].skipped == (f"it needs train ({found['train'].id}), which had no rows")
    (fire,) = clock.fires(schedule)
    assert fire.state is FireState.SKIPPED
    assert fire.reason == "train: there are no new objects; one more job was skipped"
    with clock.ledger.sessions.begin() as session:
        view = group_queries.get(session, group_id(clock, schedule), project_id=PROJECT)
        assert view.progress.state is JobState.CANCELLED
        controls.retry(session, found["train"].id, project_id=PROJECT)
    (fire,) = clock.fires(schedule)
    assert (fire.state, fire.reason) == (FireState.SUBMITTED, None)
    assert clock.members(schedule)["train"].skipped is None


def test_what_needs_no_skipped_member_decides_about_the_fire(clock: Clockwork) -> None:
    schedule = fired(clock, NIGHT)
    clock.skip(clock.members(schedule)["train"])
    for _ in range(2):
        clock.settle()
    found = clock.members(schedule)
    assert (found["check"].state, found["label"].held) == (JobState.CANCELLED, False)
    for name in ("label", "apart"):
        clock.end(found[name])
    assert clock.states(schedule) == [FireState.SUCCEEDED]
    with clock.ledger.sessions.begin() as session:
        view = group_queries.get(session, group_id(clock, schedule), project_id=PROJECT)
        (summary, *_), _ = group_queries.page(session, project_id=PROJECT, limit=1)
    assert view.progress.state is summary.state is JobState.SUCCEEDED


@pytest.mark.parametrize("policy", ["skip", "buffer_one", "buffer_all"])
def test_a_fire_overlaps_while_one_member_of_the_earlier_one_runs(
    clock: Clockwork, policy: str
) -> None:
    schedule = fired(clock, {"one": SPEC, "two": SPEC}, overlap=policy)
    clock.end(clock.members(schedule)["one"])
    clock.move_to(clock.now + HOUR)
    first, second = clock.fires(schedule)
    later = FireState.SKIPPED if policy == "skip" else FireState.BUFFERED
    assert (first.state, second.state) == (FireState.SUBMITTED, later)
    group = clock.members(schedule, fire=0)["two"].group_id
    assert second.reason == f"{group} of an earlier fire still runs"
    clock.end(clock.members(schedule, fire=0)["two"])
    clock.turn()
    assert len(clock.members(schedule)) == (0 if policy == "skip" else 2)


def test_cancel_other_cancels_all_members_at_once(clock: Clockwork) -> None:
    schedule = fired(clock, NIGHT, overlap="cancel_other")
    clock.move_to(clock.now + HOUR)
    assert clock.states(schedule) == [FireState.SUBMITTED, FireState.SUBMITTED]
    clock.cancel_wanted()
    states = {job.state for job in clock.members(schedule, fire=0).values()}
    assert states == {JobState.CANCELLING}
    assert {job.state for job in clock.members(schedule).values()} == {JobState.QUEUED}
    assert not clock.fires(schedule)[0].to_follow
    with clock.ledger.sessions.begin() as session:
        for job in clock.members(schedule, fire=0).values():
            transitions.move(session, job.id, JobState.CANCELLED)
    assert clock.states(schedule) == [FireState.CANCELLED, FireState.SUBMITTED]


def test_catch_up_and_backfill_count_groups(clock: Clockwork) -> None:
    jobs = {f"m{number}": SPEC for number in range(8)}
    schedule = clock.create(jobs=jobs, overlap="allow", catch_up={"mode": "all"})
    clock.move_to(START + 5 * HOUR)
    assert [len(clock.members(schedule, fire=place)) for place in range(5)] == [8] * 5
    made = clock.backfill(schedule, START - 2 * HOUR, START, at_most=2)
    assert made.fires == 3
    states = clock.states(schedule)
    assert states[:3].count(FireState.SUBMITTED) == 2
    for job in clock.members(schedule, fire=0).values():
        clock.end(job)
    clock.turn()
    assert clock.states(schedule)[:3] == [
        FireState.SUCCEEDED,
        FireState.SUBMITTED,
        FireState.SUBMITTED,
    ]


def test_a_failed_member_pauses_the_schedule_if_that_was_asked_for(clock: Clockwork) -> None:
    schedule = fired(clock, {"one": SPEC, "two": SPEC}, pause_on_failure=True)
    found = clock.members(schedule)
    clock.end(found["one"], failed=True)
    clock.turn()
    assert clock.row(schedule).paused_at is None
    clock.end(found["two"])
    clock.turn()
    assert "failed: a job of its group failed" in str(clock.row(schedule).note)


def test_an_edit_from_one_job_to_a_group_changes_the_fires_after_it(clock: Clockwork) -> None:
    schedule = clock.create(overlap="allow")
    clock.now = START + HOUR + MINUTE
    clock.edit(schedule, jobs=[{"name": name, "spec": spec} for name, spec in NIGHT.items()])
    clock.move_to(START + 2 * HOUR)
    assert [fire.version for fire in clock.fires(schedule)] == [1, 2]
    assert [len(clock.members(schedule, fire=place)) for place in (0, 1)] == [1, 4]


def test_a_fire_that_an_earlier_version_left_open_is_mended_once_all_have_ended(
    clock: Clockwork,
) -> None:
    schedule = fired(clock, {"one": SPEC, "two": SPEC})
    one, two = clock.members(schedule).values()
    for job, mended in ((one, 0), (two, 1)):
        clock.ledger.set(job.id, state=JobState.SUCCEEDED, finished_at=sa.func.now())
        with clock.ledger.sessions.begin() as session:
            assert fire_states.mend(session) == mended
    assert clock.states(schedule) == [FireState.SUCCEEDED]


def test_an_event_of_a_fire_has_the_ids_of_its_group_and_jobs(clock: Clockwork) -> None:
    outbox = Outbox(clock.ledger)
    endpoint = outbox.endpoint("schedule.fire_failed", "schedule.fire_skipped", "group.succeeded")
    schedule = fired(clock, {"one": SPEC, "two": SPEC})
    found = clock.members(schedule)
    clock.end(found["one"])
    clock.end(found["two"], failed=True)
    clock.turn()
    with clock.ledger.sessions.begin() as session:
        (data,) = session.scalars(
            sa.select(WebhookEvent.data).where(
                WebhookEvent.type == EventType.FIRE_FAILED,
                WebhookEvent.data["schedule"].as_string() == schedule,
            )
        )
    assert data["group"] == group_id(clock, schedule)
    assert sorted(data["jobs"]) == sorted(job.id for job in found.values())
    assert outbox.events(endpoint) == [("schedule.fire_failed", schedule)]


def test_fires_that_end_in_one_turn_are_events_in_the_order_of_their_times(
    clock: Clockwork,
) -> None:
    outbox = Outbox(clock.ledger)
    endpoint = outbox.endpoint("schedule.fire_failed")
    schedule = clock.create(overlap="allow")
    for hour in (1, 2, 3):
        clock.move_to(START + hour * HOUR)
    for job in reversed(clock.jobs(schedule)):
        clock.end(job, failed=True)
    with clock.ledger.sessions.begin() as session:  # a retry before control turns loses no event
        controls.retry(session, clock.jobs(schedule)[0].id, project_id=PROJECT)
    assert len(outbox.events(endpoint)) == 1
    clock.end(clock.jobs(schedule)[0], failed=True)
    clock.turn()
    query = (
        sa.select(WebhookEvent.data["fire_time"].as_string())
        .join(WebhookDelivery, WebhookDelivery.event_id == WebhookEvent.id)
        .where(WebhookDelivery.endpoint_id == endpoint)
        .order_by(WebhookDelivery.id)
    )
    with clock.ledger.sessions.begin() as session:
        told = session.scalars(query).all()
    assert told == [f"2026-12-01T0{hour}:00:00Z" for hour in (1, 1, 2, 3)]


def take(clock: Clockwork, job: Job, *names: str) -> None:
    with clock.ledger.sessions.begin() as session:
        for index, name in enumerate(names):
            session.add(
                JobInput(job_id=job.id, split=ROWS, index=index, name=name, version="1", bytes=1)
            )


def taken(clock: Clockwork, job: Job) -> set[str]:
    with clock.ledger.sessions.begin() as session:
        found = lookup.taken(
            session,
            job.id,
            split=ROWS,
            since=Since.LAST_SUCCESS,
            names=["a", "b"],
        )
    return {name for name, _ in found}


def test_a_member_takes_what_no_job_of_its_name_has_taken(clock: Clockwork) -> None:
    schedule = fired(clock, {"one": SPEC, "two": SPEC}, overlap="allow")
    first = clock.members(schedule)
    take(clock, first["one"], "a")
    take(clock, first["two"], "a", "b")
    clock.end(first["one"])
    clock.end(first["two"], failed=True)
    clock.move_to(clock.now + HOUR)
    second = clock.members(schedule)
    assert {name: taken(clock, job) for name, job in second.items()} == {"one": {"a"}, "two": set()}
    with clock.ledger.sessions.begin() as session:
        deletions.delete_job(session, first["one"].id, project_id=PROJECT)
        while deletions.remove_rows(session, first["one"].id):
            pass
        deletions.finish_job(session, first["one"].id)
    assert taken(clock, second["one"]) == {"a"}
    assert taken(clock, second["two"]) == set()


def test_what_the_only_job_took_before_an_edit_counts_for_members_of_its_kind(
    clock: Clockwork,
) -> None:
    schedule = clock.create(overlap="allow")
    clock.move_to(START + HOUR)
    take(clock, clock.jobs(schedule)[0], "a")
    clock.edit(schedule, jobs=[{"name": name, "spec": spec} for name, spec in NIGHT.items()])
    clock.move_to(START + 2 * HOUR)
    found = clock.members(schedule)
    assert taken(clock, found["apart"]) == {"a"}
    assert taken(clock, found["train"]) == set()


def test_a_file_that_a_member_names_is_not_deleted(clock: Clockwork) -> None:
    with clock.ledger.sessions.begin() as session:
        files.add(
            session,
            file_id="file-1",
            project_id=PROJECT,
            filename="a.jsonl",
            purpose="batch",
            size=1,
            sha256="",
            object_key="files/file-1",
            tag=None,
        )
    clock.create(jobs={**NIGHT, "own": {**SPEC, "corpus": {"file": "file-1"}}}, name="names-it")
    with clock.ledger.sessions.begin() as session, pytest.raises(NightshiftError) as refused:
        files.delete(session, "file-1", project_id=PROJECT)
    assert "names-it" in refused.value.message


def test_the_group_of_a_fire_goes_with_its_jobs_and_the_fire_stays(clock: Clockwork) -> None:
    schedule = fired(clock, {"one": SPEC, "two": SPEC})
    found = clock.members(schedule)
    for job in found.values():
        clock.end(job)
        with clock.ledger.sessions.begin() as session:
            deletions.delete_job(session, job.id, project_id=PROJECT)
            deletions.finish_job(session, job.id)
    (fire,) = clock.fires(schedule)
    assert fire.state is FireState.SUCCEEDED
    with clock.ledger.sessions.begin() as session:
        view = fire_queries.get(session, fire.id)
    assert (view.group_id, view.jobs) == (None, ())


def test_a_trigger_and_its_key_are_one_group(clock: Clockwork) -> None:
    schedule = clock.create(jobs=NIGHT)
    clock.now += timedelta(minutes=1)
    first, again = clock.trigger(schedule, key="once"), clock.trigger(schedule, key="once")
    assert first.id == again.id
    assert len(clock.members(schedule)) == len(NIGHT)
