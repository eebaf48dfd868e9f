"""Groups: jobs that are accepted together, all or none, and acted on together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import ids
from jobs.errors import Conflict, NightshiftError, NotFound
from jobs.kinds.groups import GroupSpec
from jobs.ledger import branches, idempotency, submission
from jobs.ledger.submission import Firing, Membership
from jobs.tables import Job, JobGroup


def accept(
    session: Session,
    *,
    project_id: str,
    spec: GroupSpec,
    idempotency_key: str | None,
    firing: Firing | None = None,
) -> tuple[str, bool]:
    """The group's id, and whether it is new; as for a job, the same key is the same group.

    Raises what ``submission.accept`` does, with the member in the path of the field.
    """
    digest = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
    group_id = session.scalar(
        insert(JobGroup)
        .values(
            id=ids.group(),
            project_id=project_id,
            name=spec.name,
            members=spec.member_names,
            swept=None if spec.sweep is None else list(spec.sweep.grid),
            idempotency_key=idempotency_key,
            request_sha256=digest,
        )
        .on_conflict_do_nothing(index_elements=["project_id", "idempotency_key"])
        .returning(JobGroup.id)
    )
    if group_id is None:
        earlier = idempotency.earlier(
            session, JobGroup, project_id=project_id, key=idempotency_key, digest=digest
        )
        assert earlier is not None, "the insertion has just met it"
        return earlier, False
    members: dict[str, str] = {}
    for name, each in spec.members().items():
        membership = Membership(group_id, name, dict(members))
        try:
            members[name] = submission.accept_member(
                session, project_id=project_id, spec=each, membership=membership, firing=firing
            )
        except NightshiftError as error:
            error.param = ".".join(filter(None, (spec.place(name), error.param)))
            raise
    return group_id, True


def cancel(session: Session, group_id: str, *, project_id: str) -> None:
    """Cancel every member that has not ended; harmless where all have."""
    branches.cancel_all(session, _locked(session, group_id, project_id=project_id))


def retry(session: Session, group_id: str, *, project_id: str) -> None:
    """Retry every member that ended without success. Raises ``Conflict`` where there is none."""
    if not branches.retry_all(session, _locked(session, group_id, project_id=project_id)):
        raise Conflict(
            f"{group_id} has no job that failed or was cancelled and can begin again",
            code="nothing_to_retry",
        )


def forget(session: Session, group_id: str) -> None:
    """Remove the group when the last of its members was."""
    group = session.scalar(sa.select(JobGroup).where(JobGroup.id == group_id).with_for_update())
    left = sa.select(Job.id).where(Job.group_id == group_id).limit(1)
    if group is not None and session.scalar(left) is None:
        session.delete(group)
        session.flush()


def _locked(session: Session, group_id: str, *, project_id: str) -> Sequence[Job]:
    """The members, each behind those that it needs. Raises ``NotFound``."""
    found = branches.locked(session, Job.group_id == group_id, project_id=project_id)
    if not found:
        raise NotFound(f"no group {group_id!r} in this project")
    return found
