"""What was found about a job's rows: too many of them failed, or their answers are doubtful.

Nothing is added up in a commit (docs/decisions/0001-counts-are-sums.md): control asks each second
for the jobs of which a row has failed, and the finalizer for the job that it ends.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import failure_limit, result_quality
from jobs.decisions.failure_limit import FailureCounts, FailureLimit
from jobs.decisions.result_quality import QualityCounts
from jobs.kinds import KINDS
from jobs.ledger import events, transitions
from jobs.lookups import predicates, row_errors
from jobs.states import ChunkState, JobState, sources
from jobs.tables import Chunk, Job

TOO_MANY_FAILED_ROWS = "too_many_failed_rows"


def fail_if_too_many_rows_failed(session: Session, job_id: str) -> bool:
    """End the job as failed if more rows failed than ``max_failed`` allows; ``True``: this did it.

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
    return transitions.fail(session, job_id, code=TOO_MANY_FAILED_ROWS, message=reason)


def record(session: Session, job: Job) -> None:
    """Tell in the job's history what failed, and what makes its answers doubtful, at its end."""
    for errors in row_errors.by_code(session, job.id):
        events.record(session, job_id=job.id, type="row_errors", **vars(errors))
    for warning in result_quality.warnings(
        _quality(session, job.id), windows=KINDS[job.kind].strides
    ):
        events.record(session, job_id=job.id, type="warning", **vars(warning))


def _reason(session: Session, job: Job) -> str | None:
    """Why the job ends, in words."""
    limit, found = FailureLimit.parse(job.spec.get("max_failed")), _failure_counts(session, job)
    verdict = failure_limit.judge(found, limit)
    if verdict is None:
        return None
    errors = row_errors.by_code(session, job.id)
    return failure_limit.message(verdict, found, limit, errors=errors)


def _failure_counts(session: Session, job: Job) -> FailureCounts:
    """The facts for ``decisions.failure_limit``; codes only while the job has no result."""
    failed = session.scalar(
        sa.select(sa.func.sum(Chunk.rows_failed)).where(
            Chunk.job_id == job.id, predicates.chunk_has_failed_rows(), predicates.chunk_done()
        )
    )
    has_results = _has_results(session, job.id)
    errors = [] if has_results else row_errors.by_code(session, job.id)
    return FailureCounts(
        rows_total=job.rows_total,
        rows_failed=int(failed or 0),
        has_results=has_results,
        codes={each.code: each.rows for each in errors},
    )


def _has_results(session: Session, job_id: str) -> bool:
    """In the order of the corpus: of a job that does well the first chunk decides."""
    chunk_id = session.scalar(
        sa.select(Chunk.id)
        .where(
            Chunk.job_id == job_id,
            Chunk.state != ChunkState.SPLIT,
            predicates.chunk_done(),
            Chunk.rows_failed < Chunk.rows,
        )
        .order_by(Chunk.first_row)
        .limit(1)
    )
    return chunk_id is not None


def _quality(session: Session, job_id: str) -> QualityCounts:
    columns = (
        *(Chunk.rows_answered, Chunk.rows_truncated, Chunk.rows_near_tie),
        *(Chunk.tokens_read, Chunk.tokens_unknown),
    )
    sums = sa.select(*(sa.func.coalesce(sa.func.sum(column), 0) for column in columns))
    found = session.execute(sums.where(Chunk.job_id == job_id, Chunk.state == ChunkState.DONE))
    return QualityCounts(*map(int, found.one()))
