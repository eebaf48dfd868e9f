"""The state of a fire follows those of its jobs, in the same transaction.

The lock on the fire is taken behind that on a job, and the states of the others are read behind it:
of two jobs that end at once the later one sees both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import webhook_outbox
from jobs.lookups import predicates
from jobs.schedules import states
from jobs.schedules.states import FireState
from jobs.states import FINAL
from jobs.tables import Fire, Job

BATCH = 500


def follow_job(session: Session, fire_id: int, *, has_ended: bool) -> None:
    """Move the fire where its jobs have gone; one that has ended is left for control to follow up.

    ``has_ended``: whether the job that has just moved has. Of the rows of schedules it takes that
    of the fire alone: who holds the schedule may wait for a fire, and never the other way round.
    """
    fire = session.scalar(
        sa.select(Fire)
        .where(Fire.id == fire_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    assert fire is not None, "a fire with a job that is there is kept"
    jobs = _jobs(session, fire_id) if has_ended else ()
    target = _target(jobs)
    if fire.state is target:
        return
    if fire.to_follow and fire.ended_at is not None:  # control has not turned since it ended
        tell(session, [fire])
    is_final = target not in states.OPEN
    values: dict[str, Any] = {
        "state": target,
        "ended_at": sa.func.now() if is_final else None,
        "to_follow": is_final,
    }
    if FireState.SKIPPED in {target, fire.state}:
        values["reason"] = _why_skipped(jobs) if target is FireState.SKIPPED else None
    session.execute(sa.update(Fire).where(Fire.id == fire_id).values(**values))


def tell(session: Session, ended: Sequence[Fire]) -> None:
    """Record the events of fires whose jobs have ended, in the order of their fire times."""
    for fire in sorted(ended, key=lambda each: each.due):
        webhook_outbox.fire_ended(
            session,
            schedule_id=fire.schedule_id,
            fire_id=fire.id,
            state=fire.state,
            due=fire.due,
        )


def mend(session: Session) -> int:
    """Move fires whose jobs have ended without them, as under an earlier version; their number."""
    of_fire = sa.select(Job.id).where(Job.fire_id == Fire.id)
    stale = session.scalars(
        sa.select(Fire.id)
        .where(
            Fire.state == FireState.SUBMITTED,
            of_fire.exists(),
            ~of_fire.where(Job.state.not_in(FINAL)).exists(),
        )
        .limit(BATCH)
    ).all()
    for fire_id in stale:
        follow_job(session, fire_id, has_ended=True)
    return len(stale)


def _target(jobs: Sequence[Any]) -> FireState:
    """The state of a fire with these jobs; none: one of them has not ended."""
    if not jobs:
        return FireState.SUBMITTED
    return states.of_jobs([(job.state, job.is_skipped) for job in jobs])


def _jobs(session: Session, fire_id: int) -> Sequence[Any]:
    """The jobs of a fire, those that ended first at the front; a deleted one is as it ended."""
    is_skipped = predicates.job_skipped().label("is_skipped")
    query = (
        sa.select(Job.state, Job.member, Job.skipped, is_skipped)
        .where(Job.fire_id == fire_id)
        .order_by(Job.finished_at, Job.id)
    )
    return session.execute(query).all()


def _why_skipped(jobs: Sequence[Any]) -> str:
    """The reason of the job that was skipped first, for which the others were as well."""
    first, *others = jobs
    reason = f"{first.member}: {first.skipped}" if first.member else str(first.skipped)
    if not others:
        return reason
    more = "one more job was" if len(others) == 1 else f"{len(others)} more jobs were"
    return f"{reason}; {more} skipped"
