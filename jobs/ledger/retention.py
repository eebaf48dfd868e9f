"""Retention: policies of projects and jobs, and what they let go, in small batches.

``jobs.decisions.retention`` decides; here it is applied, each job under the lock on its row.
Control calls ``spread``, ``look``, ``drop_files`` and ``drop_fires`` again and again, each a
transaction that may be repeated: a process that dies in between leaves nothing half done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from jobs import retention
from jobs.decisions import retention as decisions
from jobs.decisions.retention import EndedJob
from jobs.ledger import controls, deletions, files, removals, transitions
from jobs.lookups import clock, pieces, predicates
from jobs.lookups import removals as lookup
from jobs.retention import FOREVER, JobPeriods, JobRetention, Periods, Piece, Retention
from jobs.schedules.states import FireState
from jobs.states import FINAL
from jobs.tables import File, Fire, Job, JobDependency, Project, Schedule

NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""When retention looks at a job again of which nothing is ever due."""

BLOCKED_PAUSE = timedelta(hours=1)
"""After this, a job or a file that something needs is looked at again."""


def set_project(session: Session, project_id: str, policy: Retention) -> None:
    """Replace the policy of the project; its jobs are looked at again soon."""
    session.execute(
        sa.update(Project)
        .where(Project.id == project_id)
        .values(retention=retention.dumped(policy) or None)
    )


def set_job(session: Session, job_id: str, policy: JobRetention, *, project_id: str) -> None:
    """Replace the policy of the job. Raises ``NotFound``."""
    job = controls.lock(session, job_id, project_id=project_id)
    session.execute(
        sa.update(Job)
        .where(Job.id == job.id)
        .values(
            kept=policy.keep,
            retention=retention.dumped(policy) or None,
            retention_at=transitions.AT_ONCE,
        )
    )


def spread(session: Session, *, defaults: Retention, limit: int) -> int:
    """Let jobs of projects whose policy has changed be looked at again, ``limit`` of each."""
    stale = _stale(session, defaults)
    return sum(_spread(session, project, periods, limit=limit) for project, periods in stale)


def look(session: Session, *, defaults: Retention, limit: int) -> int:
    """Let go what is due of ended jobs; how many jobs were looked at."""
    now = clock.now(session)
    jobs = session.execute(
        sa.select(Job, Project.retention)
        .join(Project, Project.id == Job.project_id)
        .where(predicates.job_ended(), Job.retention_at <= now)
        .order_by(Job.retention_at)
        .limit(limit)
        .with_for_update(of=Job, skip_locked=True)
    ).all()
    for job, of_project in jobs:
        of_job = JobPeriods.model_validate(job.retention or {})
        policy = Retention.model_validate(of_project or {})
        _apply(session, job, retention.effective(defaults, policy, of_job), now=now)
    return len(jobs)


def drop_files(session: Session, *, defaults: Retention, limit: int) -> int:
    """Delete uploaded files whose period is over and that nothing uses; how many were looked at."""
    now, seen = clock.now(session), 0
    for project_id, period in _finite(session, defaults, "files"):
        found = session.scalars(
            sa.select(File)
            .where(
                File.project_id == project_id,
                File.deleted_at.is_(None),
                File.created_at <= now - period,
                sa.or_(File.used_at.is_(None), File.used_at <= now - BLOCKED_PAUSE),
            )
            .order_by(File.created_at, File.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        for file in found:
            if files.user(session, file) or _keeper(session, file):
                file.used_at = now
            else:
                files.bury(session, file.id)
        seen += len(found)
    return seen


def drop_fires(session: Session, *, defaults: Retention, limit: int) -> int:
    """Forget ended fires whose period is over; how many.

    Kept are a fire whose job is there, and of each schedule the last one and the last one that
    succeeded. The cursor of the schedule goes on, so that none comes due again.
    """
    now, dropped = clock.now(session), 0
    for project_id, period in _finite(session, defaults, "fires"):
        found = session.scalars(_old_fires(project_id, before=now - period).limit(limit)).all()
        session.execute(sa.update(Job).where(Job.fire_id.in_(found)).values(fire_id=None))
        session.execute(sa.delete(Fire).where(Fire.id.in_(found)))
        dropped += len(found)
    return dropped


def _stale(session: Session, defaults: Retention) -> list[tuple[Project, dict[str, str]]]:
    """Projects with periods that their jobs were not all looked at by yet."""
    found = []
    for project in session.scalars(sa.select(Project).order_by(Project.id)):
        periods = retention.in_words(_of_project(defaults, project.retention))
        if project.retention_cursor is not None or project.retention_applied != periods:
            found.append((project, periods))
    return found


def _spread(session: Session, project: Project, periods: dict[str, str], *, limit: int) -> int:
    changed = project.retention_applied != periods
    cursor = "" if changed else project.retention_cursor or ""
    query = sa.select(Job.id).where(Job.project_id == project.id, Job.deleted_at.is_(None))
    if cursor:
        place = sa.select(Job.created_at, Job.id).where(Job.id == cursor)
        last = session.execute(place).one()
        query = query.where(sa.tuple_(Job.created_at, Job.id) > sa.tuple_(*last))
    jobs = session.scalars(query.order_by(Job.created_at, Job.id).limit(limit)).all()
    session.execute(
        sa.update(Job)
        .where(Job.id.in_(jobs), predicates.job_ended(), Job.retention_at > sa.func.now())
        .values(retention_at=transitions.AT_ONCE)
    )
    session.execute(
        sa.update(Project)
        .where(Project.id == project.id)
        .values(
            retention_applied=periods, retention_cursor=jobs[-1] if len(jobs) == limit else None
        )
    )
    return len(jobs)


def _apply(session: Session, job: Job, periods: Periods, *, now: datetime) -> None:
    assert job.finished_at is not None, "it has ended"
    ended = EndedJob(
        state=job.state,
        finished_at=job.finished_at,
        pieces=pieces.of_job(job),
        removed=frozenset(lookup.of_job(session, job.id)),
        kept=job.kept,
    )
    verdict = decisions.decide(ended, periods, now=now)
    look_at = verdict.look_at or NEVER
    if Piece.JOB not in verdict.due:
        removals.mark(session, job, verdict.due)
    elif _needed(session, job):
        look_at = now + BLOCKED_PAUSE
    else:
        deletions.bury(session, job.id)
    session.execute(sa.update(Job).where(Job.id == job.id).values(retention_at=look_at))


def _needed(session: Session, job: Job) -> bool:
    """Whether a job that has not ended waits for this one."""
    waiting = aliased(Job)
    query = (
        sa.select(waiting.id)
        .join(JobDependency, JobDependency.job_id == waiting.id)
        .where(JobDependency.needs_job_id == job.id, waiting.state.not_in(FINAL))
    )
    return session.scalar(query.limit(1)) is not None


def _keeper(session: Session, file: File) -> bool:
    """Whether a job that is kept names the file."""
    query = sa.select(Job.id).where(
        Job.project_id == file.project_id, Job.kept, Job.deleted_at.is_(None), files.names(file.id)
    )
    return session.scalar(query.limit(1)) is not None


def _finite(session: Session, defaults: Retention, field: str) -> Sequence[tuple[str, timedelta]]:
    """Projects for which a period is not forever, and that period."""
    rows = session.execute(sa.select(Project.id, Project.retention).order_by(Project.id))
    periods = ((project_id, _of_project(defaults, policy)[field]) for project_id, policy in rows)
    return [(project_id, period) for project_id, period in periods if period != FOREVER]


def _of_project(defaults: Retention, policy: object) -> Periods:
    return retention.effective(defaults, Retention.model_validate(policy or {}))


def _old_fires(project_id: str, *, before: datetime) -> sa.Select[int]:
    later = aliased(Fire)
    same = later.schedule_id == Fire.schedule_id
    after = sa.exists().where(same, later.due > Fire.due)
    success = sa.exists().where(same, later.due > Fire.due, later.state == FireState.SUCCEEDED)
    has_job = sa.exists().where(Job.fire_id == Fire.id, Job.deleted_at.is_(None))
    return (
        sa.select(Fire.id)
        .join(Schedule, Schedule.id == Fire.schedule_id)
        .where(
            Schedule.project_id == project_id,
            Fire.ended_at <= before,
            ~Fire.to_follow,
            after,
            sa.or_(Fire.state != FireState.SUCCEEDED, success),
            ~has_job,
        )
        .order_by(Fire.id)
        .with_for_update(of=Fire, skip_locked=True)
    )
