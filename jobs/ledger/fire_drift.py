"""Fires whose results are compared with those of earlier fires of their schedule."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import drift
from jobs.decisions.drift import Profile
from jobs.errors import ModelFailure
from jobs.kinds import BULK
from jobs.lookups import profiles
from jobs.models import references
from jobs.models.references import Registered
from jobs.schedules.drift_policy import DriftPolicy
from jobs.schedules.states import FireState
from jobs.tables import Fire, Job


def judge(session: Session, ended: Sequence[Fire], policy: DriftPolicy | None) -> None:
    """Compare each of these fires that succeeded, the earliest first, and flag it if it drifted.

    All are of one schedule, whose lock is held. A fire without a bulk job is left as it is.
    """
    if policy is None:
        return
    for fire in sorted(ended, key=lambda each: each.due):
        if fire.state is FireState.SUCCEEDED:
            _judge(session, fire, policy)


def _judge(session: Session, fire: Fire, policy: DriftPolicy) -> None:
    jobs = session.scalars(
        sa.select(Job).where(Job.fire_id == fire.id, Job.kind.in_(BULK)).order_by(Job.id)
    ).all()
    if not jobs:
        return
    first, *others = (profiles.of_job(session, job.id) for job in jobs)
    now = sum(others, first)
    verdict = drift.compare(
        now,
        _earlier(session, fire, most=policy.against),
        threshold=policy.threshold,
        min_rows=policy.min_rows,
    )
    held = _alias(jobs[0]) if policy.hold_promotion else None
    session.execute(
        sa.update(Fire)
        .where(Fire.id == fire.id)
        .values(
            profile=now.as_json(),
            drift={**verdict.as_json(), "threshold": policy.threshold, "holds": held},
        )
    )


def _earlier(session: Session, fire: Fire, *, most: int) -> list[Profile]:
    query = (
        sa.select(Fire.profile)
        .where(
            Fire.schedule_id == fire.schedule_id,
            Fire.due < fire.due,
            Fire.state == FireState.SUCCEEDED,
            Fire.profile.is_not(None),
        )
        .order_by(Fire.due.desc())
        .limit(most)
    )
    return [Profile.from_json(profile or {}) for profile in session.scalars(query)]


def _alias(job: Job) -> str | None:
    """The alias of the registry that names the job's model; ``None``: none does."""
    try:
        found = references.parse(str(job.spec.get("model")))
    except ModelFailure:
        return None
    if not isinstance(found, Registered) or found.alias is None:
        return None
    return f"{found.name}@{found.alias}"
