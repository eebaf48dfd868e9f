"""What was found about a job's rows: too many of them failed, or their answers are doubtful.

Nothing is added up in a commit (docs/decisions/0001-counts-are-sums.md): control asks each second
for the jobs of which a row has failed, and the finalizer for the job that it ends.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import failure_limit, result_quality
from jobs.decisions.failure_limit import FailureLimit
from jobs.ledger import events, transitions
from jobs.queries import failed_rows
from jobs.queries import jobs as job_queries
from jobs.states import JobState, sources
from jobs.tables import Job

CODE = "too_many_failed_rows"


def end(session: Session, job_id: str) -> bool:
    """End the job if more of its rows failed than may; ``True`` if this is what ended it.

    The verdict is found twice. The second time the job's row is locked, which each commit shares:
    what is added up then are all commits that will count, and no other can move the job meanwhile.
    """
    if _reason(session, session.get_one(Job, job_id)) is None:
        return False
    locked = session.scalar(
        sa.select(Job)
        .where(Job.id == job_id, Job.state.in_(sources(JobState.FAILED)))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    reason = None if locked is None else _reason(session, locked)
    if locked is None or reason is None:
        return False
    record(session, locked)
    return transitions.fail(session, job_id, code=CODE, message=reason)


def record(session: Session, job: Job) -> None:
    """Tell in the job's history what failed, and what makes its answers doubtful, at its end."""
    for errors in failed_rows.by_code(session, job.id):
        events.record(session, job_id=job.id, type="row_errors", **vars(errors))
    for warning in result_quality.warnings(job_queries.quality(session, job.id), kind=job.kind):
        events.record(session, job_id=job.id, type="warning", **vars(warning))


def _reason(session: Session, job: Job) -> str | None:
    """Why the job ends, in words."""
    limit, found = FailureLimit.parse(job.spec.get("max_failed")), failed_rows.tally(session, job)
    verdict = failure_limit.judge(found, limit)
    if verdict is None:
        return None
    errors = failed_rows.by_code(session, job.id)
    return failure_limit.message(verdict, found, limit, errors=errors)
