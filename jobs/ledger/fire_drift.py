"""Fires whose results are compared with those of earlier fires of their schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import drift
from jobs.errors import ModelFailure
from jobs.kinds import BULK
from jobs.lookups import fire_profiles
from jobs.lookups.fire_profiles import MEMBERS, Compared
from jobs.models import references
from jobs.models.references import Registered
from jobs.schedules.drift_policy import DriftPolicy
from jobs.states import JobState
from jobs.tables import Fire, Job, Json


def judge(session: Session, ended: Sequence[Fire], policy: DriftPolicy | None) -> None:
    """Compare the bulk jobs of each of these fires, the earliest first, and flag what drifted.

    All are of one schedule, whose lock is held. Jobs that did not succeed are left out; a fire
    without another one stays as it is.
    """
    if policy is None:
        return
    for fire in sorted(ended, key=lambda each: each.due):
        _judge(session, fire, policy)


def _judge(session: Session, fire: Fire, policy: DriftPolicy) -> None:
    jobs = session.scalars(
        sa.select(Job)
        .where(Job.fire_id == fire.id, Job.kind.in_(BULK), Job.state == JobState.SUCCEEDED)
        .order_by(Job.id)
    ).all()
    if not jobs:
        return
    found = {job: fire_profiles.compared(session, job, fire, policy) for job in jobs}
    only = jobs[0]
    if only.member is None:
        profile, verdict = found[only].profile.as_json(), _verdict(only, found[only], policy)
    else:
        profile = {MEMBERS: {job.member: each.profile.as_json() for job, each in found.items()}}
        verdict = _of_group(found, policy)
    session.execute(
        sa.update(Fire)
        .where(Fire.id == fire.id)
        .values(profile=profile, drift={**verdict, "threshold": policy.threshold})
    )


def _verdict(job: Job, compared: Compared, policy: DriftPolicy) -> Json:
    """What is kept of one job."""
    held = _alias(job) if policy.hold_promotion else None
    return {**compared.verdict.as_json(), "holds": held}


def _of_group(found: Mapping[Job, Compared], policy: DriftPolicy) -> Json:
    """What is kept of a fire with several jobs: all of them together, and each."""
    whole = drift.together({str(job.member): each.verdict for job, each in found.items()})
    members = {job.member: _verdict(job, each, policy) for job, each in found.items()}
    return {**whole.as_json(), "holds": None, MEMBERS: members}


def _alias(job: Job) -> str | None:
    """The alias of the registry that names the job's model; ``None``: none does."""
    try:
        found = references.parse(str(job.spec.get("model")))
    except ModelFailure:
        return None
    if not isinstance(found, Registered) or found.alias is None:
        return None
    return f"{found.name}@{found.alias}"
