"""Jobs that a later fire of their schedule takes the place of; training makes a checkpoint first.

All jobs of a fire are cancelled in one transaction, so that none fails because one that it needs
was cancelled before it. The locks on jobs are taken before that on their fire, as where a job ends.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import branches, controls
from jobs.schedules.states import FireState
from jobs.states import FINAL, LIVE_RUN, JobState
from jobs.tables import Fire, Job, Run, Schedule

BATCH = 100

DONE = FINAL | {JobState.CANCELLING}
"""States of jobs for which nothing more is asked."""


def wanted(session: Session) -> list[int]:
    """Fires whose jobs must be cancelled, and of which that was not asked yet."""
    return list(
        session.scalars(
            sa.select(Fire.id).where(Fire.to_follow, Fire.state == FireState.SUBMITTED).limit(BATCH)
        )
    )


def cancel(session: Session, fire_id: int) -> int:
    """Cancel the fire's jobs, or pause those of which a run makes its checkpoint; how many."""
    project = sa.select(Schedule.project_id).join(Fire, Fire.schedule_id == Schedule.id)
    project_id = session.scalar(project.where(Fire.id == fire_id))
    assert project_id is not None
    jobs = branches.locked(session, Job.fire_id == fire_id, project_id=project_id)
    done = [_cancel(session, job) for job in jobs]
    left = sa.select(Job.id).where(Job.fire_id == fire_id, Job.state.not_in(DONE))
    session.execute(
        sa.update(Fire)
        .where(Fire.id == fire_id, Fire.ended_at.is_(None), ~left.exists())
        .values(to_follow=False)
    )
    return sum(done)


def _cancel(session: Session, job: Job) -> bool:
    """Whether the job was cancelled or paused."""
    if job.state in DONE:
        return False
    if _is_training(session, job.id):
        if job.state is JobState.PAUSED:
            return False
        controls.pause(session, job.id, project_id=job.project_id)
        return True
    controls.cancel(session, job.id, project_id=job.project_id)
    return True


def _is_training(session: Session, job_id: str) -> bool:
    """Whether a run of the job is under way, unless it was asked to stop at once."""
    live = sa.select(Run.id).where(
        Run.job_id == job_id, Run.state.in_(LIVE_RUN), Run.stop.is_distinct_from("now")
    )
    return session.scalar(live.limit(1)) is not None
