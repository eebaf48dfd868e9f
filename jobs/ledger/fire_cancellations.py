"""Jobs that a later fire of their schedule takes the place of; training makes a checkpoint first.

The lock on a job is taken before that on its fire, as where a job ends.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import controls
from jobs.schedules.states import FireState
from jobs.states import FINAL, LIVE_RUN, JobState
from jobs.tables import Fire, Job, Run

BATCH = 100


def wanted(session: Session) -> list[str]:
    """Jobs that must be cancelled, and of which that was not asked yet."""
    return list(
        session.scalars(
            sa.select(Job.id)
            .join(Fire, Fire.id == Job.fire_id)
            .where(Fire.to_follow, Fire.state == FireState.SUBMITTED)
            .limit(BATCH)
        )
    )


def cancel(session: Session, job_id: str) -> bool:
    """Cancel the job, or pause it while a run of it makes its checkpoint; whether it did either."""
    job = session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())
    if job is None or job.state in FINAL:
        return False
    if job.state is not JobState.CANCELLING and _is_training(session, job_id):
        if job.state is JobState.PAUSED:
            return False
        controls.pause(session, job_id, project_id=job.project_id)
        return True
    controls.cancel(session, job_id, project_id=job.project_id)
    session.execute(sa.update(Fire).where(Fire.id == job.fire_id).values(to_follow=False))
    return True


def _is_training(session: Session, job_id: str) -> bool:
    """Whether a run of the job is under way, unless it was asked to stop at once."""
    live = sa.select(Run.id).where(
        Run.job_id == job_id, Run.state.in_(LIVE_RUN), Run.stop.is_distinct_from("now")
    )
    return session.scalar(live.limit(1)) is not None
