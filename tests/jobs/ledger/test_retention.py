"""Retention on the ledger: what is due goes in one transaction, and nothing that is in use."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.decisions.run_verdict import RunVerdict
from jobs.errors import Conflict, NotFound
from jobs.ledger import controls, deletions, files, registry, retention
from jobs.lookups import removals as lookup
from jobs.queries import retention as queries
from jobs.retention import JobRetention, Piece, Retention
from jobs.states import JobState, RunState
from jobs.tables import File, Fire, Job, Project, Removal
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger
from tests.jobs.ledger.scheduling import HOUR, SPEC, Clockwork
from tests.jobs.ledger.training import Training

DAYS = 100


@pytest.fixture
def training(ledger: Ledger) -> Training:
    return Training(ledger)


@pytest.fixture(autouse=True)
def _leave_nothing(ledger: Ledger) -> Iterator[None]:
    yield
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Project).values(retention=None))
    Training(ledger).clear()


def policy(**periods: Any) -> Retention:
    return Retention.model_validate(periods)


def retain(ledger: Ledger, *, limit: int = 100, **defaults: Any) -> None:
    """What control does, until nothing is left to do."""
    parts = (retention.spread, retention.look, retention.drop_files, retention.drop_fires)
    for part in parts:
        found = limit
        while found >= limit:
            with ledger.sessions.begin() as session:
                found = part(session, defaults=policy(**defaults), limit=limit)


def set_project(ledger: Ledger, project: str = PROJECT, **periods: Any) -> None:
    with ledger.sessions.begin() as session:
        retention.set_project(session, project, policy(**periods))


def set_job(ledger: Ledger, job_id: str, **fields: Any) -> None:
    with ledger.sessions.begin() as session:
        retention.set_job(session, job_id, JobRetention.model_validate(fields), project_id=PROJECT)


def ended(ledger: Ledger, *, days: float = 0, failed: int = 0, **fields: Any) -> str:
    """A bulk job that has succeeded some days ago."""
    job_id = ledger.running(5, 5, **fields)
    ledger.commit_all(job_id, failed=failed)
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    age(ledger, job_id, days)
    return job_id


def age(ledger: Ledger, job_id: str, days: float) -> None:
    ledger.set(job_id, finished_at=sa.func.now() - timedelta(days=days))


def removed(ledger: Ledger, job_id: str) -> set[Piece]:
    with ledger.sessions.begin() as session:
        return set(lookup.of_job(session, job_id))


def upload(ledger: Ledger, name: str, *, days: float = 0, project: str = PROJECT) -> str:
    with ledger.sessions.begin() as session:
        files.add(
            session,
            file_id=f"file-{name}",
            project_id=project,
            filename="corpus.csv",
            purpose="batch",
            size=5,
            sha256=f"hash of {name}",
            object_key=f"files/file-{name}",
        )
        made = sa.func.now() - timedelta(days=days)
        session.execute(sa.update(File).where(File.id == f"file-{name}").values(created_at=made))
    return f"file-{name}"


def is_there(ledger: Ledger, file_id: str) -> bool:
    with ledger.sessions.begin() as session:
        return session.get_one(File, file_id).deleted_at is None


def test_by_default_checkpoints_of_training_that_succeeded_go_and_chunks_fold_after_a_week(
    training: Training, ledger: Ledger
) -> None:
    bulk = ended(ledger, days=DAYS, output={"postgres": True})
    old = upload(ledger, "old", days=DAYS)
    won, lost = training.job(), training.job()
    leases = {job_id: training.gang(job_id)[0] for job_id in (won, lost)}
    for lease in leases.values():
        training.checkpoint(lease, 10)
    training.succeed(leases[won])
    training.conclude(leases[lost].run_id, RunVerdict(RunState.FAILED, reason="bad"))
    age(ledger, lost, DAYS)
    retain(ledger)
    assert [removed(ledger, each) for each in (bulk, lost, won)] == [
        {"chunks"},
        set(),
        {"checkpoints"},
    ]
    assert is_there(ledger, old)
    assert training.newest(won) is None
    assert training.newest(lost) == 10
    assert training.told(bulk, "removed") == [], "nothing of it is removed"
    (event,) = training.told(won, "removed")
    assert event == {"pieces": ["checkpoints"]}


def test_pieces_go_after_their_periods_and_the_whole_job_after_its_own(ledger: Ledger) -> None:
    job_id = ended(ledger, days=3, output={"postgres": True})
    set_project(ledger, parts="2d", outputs="2d", rows="1d", shards="5d", jobs="9d")
    retain(ledger)
    assert removed(ledger, job_id) == {Piece.PARTS, Piece.OUTPUTS, Piece.ROWS}
    assert ledger.job(job_id).output == {"rows": 10, "file": None, "manifest": None}
    age(ledger, job_id, 6)
    retain(ledger)
    assert Piece.SHARDS not in removed(ledger, job_id), "it is looked at when the next is due"
    ledger.set(job_id, retention_at=sa.func.now())
    retain(ledger)
    assert Piece.SHARDS in removed(ledger, job_id)
    age(ledger, job_id, 9)
    ledger.set(job_id, retention_at=sa.func.now())
    retain(ledger)
    assert ledger.job(job_id).deleted_at is not None


def test_a_job_is_looked_at_again_when_its_next_piece_is_due(ledger: Ledger) -> None:
    job_id = ended(ledger)
    set_project(ledger, parts="2d", jobs="9d")
    retain(ledger)
    job = ledger.job(job_id)
    assert job.finished_at is not None
    assert job.retention_at == job.finished_at + timedelta(days=2)
    set_project(ledger, chunks="forever")
    retain(ledger)
    assert ledger.job(job_id).retention_at == retention.NEVER


def test_a_policy_that_changes_reaches_every_job_however_many_at_a_time(ledger: Ledger) -> None:
    made = [ended(ledger, days=3) for _ in range(7)]
    theirs = ended(ledger, days=3, project=OTHER)
    retain(ledger)
    set_project(ledger, jobs="2d")
    retain(ledger, limit=2)
    assert all(ledger.job(each).deleted_at is not None for each in made)
    assert ledger.job(theirs).deleted_at is None
    retain(ledger, jobs="1d")  # the installation's setting changes
    assert ledger.job(theirs).deleted_at is not None


def test_a_job_has_periods_of_its_own(ledger: Ledger) -> None:
    short, long = ended(ledger, days=3), ended(ledger, days=30)
    set_project(ledger, jobs="10d")
    set_job(ledger, short, jobs="1d")
    set_job(ledger, long, jobs="forever")
    retain(ledger)
    assert ledger.job(short).deleted_at is not None
    assert ledger.job(long).deleted_at is None


def test_nothing_goes_of_a_job_that_is_kept_until_it_is_no_longer(ledger: Ledger) -> None:
    file_id = upload(ledger, "kept", days=30)
    job_id = ended(ledger, days=30, corpus={"file": file_id})
    set_project(ledger, jobs="1d", parts="1h", files="1d")
    set_job(ledger, job_id, keep=True)
    retain(ledger)
    assert removed(ledger, job_id) == set()
    assert is_there(ledger, file_id)
    with ledger.sessions.begin() as session, pytest.raises(Conflict, match="jobs keep") as hit:
        deletions.delete_job(session, job_id, project_id=PROJECT)
    assert hit.value.code == "job_kept"
    set_job(ledger, job_id)
    retain(ledger)
    assert ledger.job(job_id).deleted_at is not None


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.PAUSED])
def test_of_a_job_that_has_not_ended_nothing_goes(ledger: Ledger, state: JobState) -> None:
    job_id = ledger.running(5)
    ledger.set(job_id, state=state)
    set_project(ledger, jobs="0s", parts="0s", shards="0s")
    retain(ledger)
    assert removed(ledger, job_id) == set()
    assert ledger.job(job_id).deleted_at is None


def test_a_job_that_another_one_waits_for_stays(ledger: Ledger) -> None:
    needed = ended(ledger, days=3)
    waiting = ledger.accept(depends_on=[needed])
    set_project(ledger, jobs="1d")
    retain(ledger)
    assert ledger.job(needed).deleted_at is None
    ledger.set(waiting, state=JobState.CANCELLED, finished_at=sa.func.now())
    ledger.set(needed, retention_at=sa.func.now())
    retain(ledger)
    assert ledger.job(needed).deleted_at is not None


@pytest.mark.parametrize("piece", ["shards", "parts", "rows"])
def test_a_retry_that_needs_what_is_gone_is_refused(ledger: Ledger, piece: str) -> None:
    job_id = ended(ledger, days=3, failed=1, output={"postgres": True})
    set_project(ledger, **{piece: "1d"})
    retain(ledger)
    with ledger.sessions.begin() as session, pytest.raises(Conflict, match=f"its {piece} went"):
        controls.retry(session, job_id, project_id=PROJECT)


def test_a_retry_writes_the_output_again_and_begins_the_periods_again(ledger: Ledger) -> None:
    job_id = ended(ledger, days=3, failed=1)
    set_project(ledger, outputs="1d")
    retain(ledger)
    assert removed(ledger, job_id) == {Piece.OUTPUTS}
    with ledger.sessions.begin() as session:
        controls.retry(session, job_id, project_id=PROJECT)
    assert removed(ledger, job_id) == set()
    ledger.commit_all(job_id)
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    retain(ledger)
    assert removed(ledger, job_id) == set()


def test_a_job_that_was_never_planned_can_be_retried_however_old_it_is(ledger: Ledger) -> None:
    job_id = ledger.accept()
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())
    age(ledger, job_id, DAYS)
    set_project(ledger, shards="1d", parts="1d")
    retain(ledger)
    with ledger.sessions.begin() as session:
        controls.retry(session, job_id, project_id=PROJECT)
    assert ledger.job(job_id).state is JobState.QUEUED


def test_files_go_after_their_period_unless_something_uses_them(ledger: Ledger) -> None:
    waits, scheduled = upload(ledger, "waits", days=9), upload(ledger, "scheduled", days=9)
    free, young = upload(ledger, "free", days=9), upload(ledger, "young", days=1)
    theirs = upload(ledger, "theirs", days=9, project=OTHER)
    job_id = ledger.accept(corpus={"file": waits})
    clockwork = Clockwork(ledger)
    schedule = clockwork.create(spec={"corpus": {"file": scheduled}})
    set_project(ledger, files="5d")
    retain(ledger)
    every = (waits, scheduled, free, young, theirs)
    assert [is_there(ledger, each) for each in every] == [True, True, False, True, True]
    clockwork.delete(schedule)
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())
    retain(ledger)
    assert is_there(ledger, waits), "it is looked at again after a while"
    with ledger.sessions.begin() as session:
        session.execute(sa.update(File).values(used_at=sa.func.now() - timedelta(hours=2)))
    retain(ledger)
    assert [is_there(ledger, each) for each in (waits, scheduled)] == [False, False]


def test_a_file_that_a_schedule_names_is_not_deleted_and_the_answer_names_the_schedule(
    ledger: Ledger,
) -> None:
    file_id, clockwork = upload(ledger, "weekly"), Clockwork(ledger)
    schedule = clockwork.create(name="labels-weekly", spec={"corpus": {"file": file_id}})
    with ledger.sessions.begin() as session, pytest.raises(Conflict) as hit:
        files.delete(session, file_id, project_id=PROJECT)
    assert hit.value.code == "file_in_use"
    assert "the schedule labels-weekly needs it: edit or delete the schedule" in hit.value.message
    clockwork.edit(schedule, jobs=[{"spec": {**SPEC, "model": "/other"}}])
    with ledger.sessions.begin() as session:
        files.delete(session, file_id, project_id=PROJECT)


def test_a_version_that_a_schedule_or_a_waiting_job_uses_is_not_deleted(
    training: Training, ledger: Ledger
) -> None:
    trainer = training.job(model="news")
    for job in (trainer, None):
        register(ledger, job)
    clockwork = Clockwork(ledger)
    schedule = clockwork.create(name="nightly", spec={"model": "news@2"})
    with pytest.raises(Conflict, match="the schedule nightly uses it"):
        delete_version(ledger, 2)
    clockwork.delete(schedule)
    delete_version(ledger, 2)
    waiting = ledger.accept(model=f"{{{trainer}.model}}")
    with pytest.raises(Conflict, match=f"{waiting} uses it"):
        delete_version(ledger, 1)


def register(ledger: Ledger, job_id: str | None) -> None:
    with ledger.sessions.begin() as session:
        registry.register(
            session,
            project_id=PROJECT,
            name="news",
            task="classify",
            kind="full",
            base=None,
            files=[],
            metrics={},
            lineage={},
            job_id=job_id,
        )


def delete_version(ledger: Ledger, version: int) -> None:
    with ledger.sessions.begin() as session:
        registry.delete_version(session, project_id=PROJECT, name="news", version=version)


def test_old_fires_go_but_for_the_last_ones_and_those_whose_job_is_there(ledger: Ledger) -> None:
    clockwork = Clockwork(ledger)
    schedule = clockwork.create()
    for _ in range(6):
        clockwork.move_to(clockwork.now + HOUR)
        clockwork.end(clockwork.jobs(schedule)[-1])
        clockwork.turn()
    jobs = clockwork.jobs(schedule)
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Fire).values(ended_at=sa.func.now() - timedelta(days=9)))
        for job in jobs[1:]:
            deletions.bury(session, job.id)
    set_project(ledger, fires="5d")
    retain(ledger)
    left = clockwork.fires(schedule)
    assert [fire.id for fire in left] == [jobs[0].fire_id, jobs[-1].fire_id]
    before = clockwork.row(schedule).fired
    clockwork.turn()
    assert clockwork.row(schedule).fired == before, "none comes due again"


def test_the_answer_about_a_job_says_what_goes_when(ledger: Ledger) -> None:
    job_id = ended(ledger, days=3)
    set_project(ledger, parts="1d", jobs="30d")
    set_job(ledger, job_id, outputs="7d")
    retain(ledger)
    with ledger.sessions.begin() as session:
        job = session.get_one(Job, job_id)
        found = queries.of_job(session, job, defaults=Retention())
    assert job.finished_at is not None
    assert set(found.removed) == {Piece.PARTS}
    assert found.goes == {
        Piece.OUTPUTS: job.finished_at + timedelta(days=7),
        Piece.CHUNKS: job.finished_at + timedelta(days=7),
        Piece.JOB: job.finished_at + timedelta(days=30),
    }


def test_another_projects_job_is_as_if_it_did_not_exist(ledger: Ledger) -> None:
    job_id = ended(ledger, project=OTHER)
    with pytest.raises(NotFound):
        set_job(ledger, job_id, keep=True)


def test_what_is_marked_stays_marked_once(ledger: Ledger) -> None:
    job_id = ended(ledger, days=3)
    set_project(ledger, parts="1d")
    for _ in range(3):
        ledger.set(job_id, retention_at=sa.func.now())
        retain(ledger)
    assert len([each for each in ledger.events(job_id) if each.type == "removed"]) == 1
    with ledger.sessions.begin() as session:
        assert len(session.scalars(sa.select(Removal)).all()) == 1
