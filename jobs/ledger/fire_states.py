"""The state of a fire follows that of its job, in the same transaction."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import webhook_outbox
from jobs.schedules import states
from jobs.states import FINAL, JobState
from jobs.tables import Fire, Job

BATCH = 500


def follow_job(session: Session, fire_id: int, state: JobState) -> None:
    """Move the fire where its job has gone; one that has ended is left for control to follow up.

    Of the rows of schedules it takes that of the fire alone: who holds the schedule may wait for a
    fire, and never the other way round.
    """
    target = states.of_job(state)
    is_final = target not in states.OPEN
    moved = session.execute(
        sa.update(Fire)
        .where(Fire.id == fire_id, Fire.state != target)
        .values(
            state=target,
            ended_at=sa.func.now() if is_final else None,
            to_follow=is_final,
        )
        .returning(Fire.schedule_id, Fire.due)
    ).one_or_none()
    if moved is not None:
        webhook_outbox.fire_ended(
            session, schedule_id=moved.schedule_id, fire_id=fire_id, state=target, due=moved.due
        )


def skip_for_job(session: Session, job_id: str, *, reason: str) -> None:
    """The fire of a job that ended because it had no rows is skipped, and says so."""
    fire = sa.select(Job.fire_id).where(Job.id == job_id).scalar_subquery()
    skipped = session.execute(
        sa.update(Fire)
        .where(Fire.id == fire)
        .values(state=states.FireState.SKIPPED, reason=reason)
        .returning(Fire.id, Fire.schedule_id, Fire.due)
    ).one_or_none()
    if skipped is not None:
        webhook_outbox.fire_ended(
            session,
            schedule_id=skipped.schedule_id,
            fire_id=skipped.id,
            state=states.FireState.SKIPPED,
            due=skipped.due,
        )


def mend(session: Session) -> int:
    """Move fires whose jobs have ended without them, as under an earlier version; their number."""
    stale = session.execute(
        sa.select(Fire.id, Job.state)
        .join(Job, Job.fire_id == Fire.id)
        .where(Fire.state == states.FireState.SUBMITTED, Job.state.in_(FINAL))
        .limit(BATCH)
    ).all()
    for fire_id, state in stale:
        follow_job(session, fire_id, state)
    return len(stale)
