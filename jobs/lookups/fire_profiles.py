"""How a bulk job of a schedule differs from its like of earlier fires (``jobs.decisions.drift``).

A job is like those with its name in the groups of earlier fires, or like the only jobs of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import drift
from jobs.decisions.drift import Profile, Verdict
from jobs.lookups import profiles
from jobs.schedules.drift_policy import DriftPolicy
from jobs.schedules.states import FireState
from jobs.tables import Fire, Job

MEMBERS = "members"
"""The key of what a fire whose jobs are a group has of each, by name."""


@dataclass(frozen=True)
class Compared:
    """How the results of a job are spread, and how far that is from earlier ones."""

    profile: Profile
    verdict: Verdict


def compared(session: Session, job: Job, fire: Fire, policy: DriftPolicy) -> Compared:
    """The job of this fire beside those of the fires before it."""
    now = profiles.of_job(session, job.id)
    earlier = _earlier(session, fire, job.member, most=policy.against)
    verdict = drift.compare(now, earlier, threshold=policy.threshold, min_rows=policy.min_rows)
    return Compared(now, verdict)


def _earlier(session: Session, fire: Fire, member: str | None, *, most: int) -> list[Profile]:
    """What was kept of earlier fires, the latest first."""
    before = (Fire.schedule_id == fire.schedule_id, Fire.due < fire.due)
    of_group = Fire.profile[MEMBERS]
    if member is None:
        query = sa.select(Fire.profile).where(
            *before,
            Fire.state == FireState.SUCCEEDED,
            Fire.profile.is_not(None),
            of_group.is_(None),
        )
    else:
        of_member = of_group[member]
        query = sa.select(of_member).where(*before, of_member.is_not(None))
    found = session.scalars(query.order_by(Fire.due.desc()).limit(most))
    return [Profile.from_json(profile or {}) for profile in found]
