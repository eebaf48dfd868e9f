"""The end of a group, as an event: looked for after the end of each of its jobs."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import group_progress
from jobs.ledger import webhook_outbox
from jobs.lookups import predicates
from jobs.states import FINAL
from jobs.tables import Job, WebhookGroupCheck
from jobs.webhooks import events


def settle(session: Session) -> bool:
    """Look at one group of which a job has ended; ``False``: there is none to look at.

    Two processes that look at the same group at once find the same event, which has one id.
    """
    check = session.scalar(
        sa.select(WebhookGroupCheck)
        .order_by(WebhookGroupCheck.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if check is None:
        return False
    session.delete(check)
    members = session.execute(
        sa.select(
            Job.project_id,
            Job.state,
            Job.finished_at,
            predicates.job_skipped().label("skipped"),
        ).where(Job.group_id == check.group_id)
    ).all()
    ends = [each.finished_at for each in members]
    if members and all(each.state in FINAL for each in members):
        states = Counter(each.state for each in members)
        deciding = group_progress.deciding((each.state, each.skipped) for each in members)
        occurrence = events.group_ended(
            group_id=check.group_id,
            state=group_progress.state_of(deciding),
            jobs=states,
            ended_at=max(ends),
        )
        webhook_outbox.record(session, occurrence, project_id=members[0].project_id)
    return True
