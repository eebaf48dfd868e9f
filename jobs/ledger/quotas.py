"""What a project may hold at a time: asked where it takes more.

Who counts does it under the lock on the project's row, so that two who take at once count each
other. A project without limits pays for one look at its row.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import BadSpec, Forbidden, ModelFailure, QuotaExceeded
from jobs.kinds import AnySpec
from jobs.models import references
from jobs.states import FINAL
from jobs.tables import CollectionRound, File, Job, Project, StorageUsage
from jobs.tenancy import Limits


def check_job(session: Session, spec: AnySpec, *, project_id: str) -> None:
    """Raise ``QuotaExceeded``, or another error for what the project may not use."""
    limits = _limits(session, project_id)
    if limits is None:
        return
    if limits.pools is not None and spec.pool not in limits.pools:
        raise Forbidden(
            f"the project may use the pools {', '.join(limits.pools) or '(none)'}, "
            f"and not {spec.pool}",
            code="pool_not_allowed",
            param="pool",
        )
    if limits.models is not None and spec.starts_from is not None:
        param, reference = spec.starts_from
        try:
            references.check_allowed(reference, limits.models)
        except ModelFailure as failure:
            raise BadSpec(failure.message, code=failure.code, param=param) from failure
    if limits.jobs_in_flight is not None:
        _check_jobs(session, project_id, most=limits.jobs_in_flight)


def upload_room(session: Session, *, project_id: str) -> int | None:
    """Bytes that an upload may have; ``None``: the project has no limit.

    Raises ``QuotaExceeded`` where its storage is full.
    """
    limits = _limits(session, project_id)
    if limits is None:
        return None
    if limits.storage_bytes is not None:
        used = _stored(session, project_id)
        if used >= limits.storage_bytes:
            raise QuotaExceeded(
                f"the project stores {used} bytes, and may store {limits.storage_bytes}: delete "
                "jobs or files; what is deleted counts until the store was looked through again",
            )
    return limits.upload_bytes


def _check_jobs(session: Session, project_id: str, *, most: int) -> None:
    session.execute(
        sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)
    )
    count = session.scalar(
        sa.select(sa.func.count())
        .select_from(Job)
        .where(Job.project_id == project_id, Job.state.not_in(FINAL))
    )
    if (count or 0) >= most:
        raise QuotaExceeded(
            f"the project has {count} jobs that have not ended, and may have {most}: wait until "
            "one ends, or cancel one"
        )


def _stored(session: Session, project_id: str) -> int:
    """Bytes as they were counted last, and files that came since."""
    counted = (
        sa.select(sa.func.coalesce(sa.func.sum(StorageUsage.bytes), 0))
        .where(StorageUsage.project_id == project_id)
        .scalar_subquery()
    )
    measured = sa.select(sa.func.max(CollectionRound.measured_at)).scalar_subquery()
    since = (
        sa.select(sa.func.coalesce(sa.func.sum(File.bytes), 0))
        .where(
            File.project_id == project_id,
            File.deleted_at.is_(None),
            File.created_at > sa.func.coalesce(measured, sa.text("'-infinity'")),
        )
        .scalar_subquery()
    )
    return int(session.scalar(sa.select(counted + since)) or 0)


def _limits(session: Session, project_id: str) -> Limits | None:
    stored = session.scalar(sa.select(Project.limits).where(Project.id == project_id))
    return None if stored is None else Limits.model_validate(stored)
