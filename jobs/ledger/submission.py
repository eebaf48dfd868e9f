"""Accepting a job: one transaction, after which it cannot be lost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import ids
from jobs.errors import BadSpec, Conflict, ModelFailure, NotFound
from jobs.kinds import AnySpec
from jobs.ledger import dependencies, events, files, idempotency, quotas, registry
from jobs.models import references
from jobs.models.references import Registered
from jobs.states import JobState
from jobs.tables import Job

APART = {"depends_on"}
"""Fields of a spec that are stored in rows of their own: a worker has no use for them."""


@dataclass(frozen=True)
class Firing:
    """The fire that submits a job, and what the job's first event says of it."""

    fire_id: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Membership:
    """The group that a job is accepted with, its name there, and the ids of members before it."""

    group_id: str
    name: str
    members: Mapping[str, str]


def accept(
    session: Session,
    *,
    project_id: str,
    spec: AnySpec,
    idempotency_key: str | None,
    firing: Firing | None = None,
) -> tuple[str, bool]:
    """The job's id, and whether it is new.

    The same key with the same spec is the same job, however often it is sent; with another spec it
    raises ``KeyReused``. A fine-tune under a name of another task is a ``Conflict``. A name of the
    registry is pinned to the version that it means now; raises ``BadSpec`` for one that means none.
    Raises ``NotFound`` for an uploaded file, or a job that it depends on, that is not there, and
    ``QuotaExceeded`` or ``Forbidden`` by the limits of the project.
    """
    values = _values(project_id=project_id, spec=spec, idempotency_key=idempotency_key)
    earlier = _earlier(session, values)
    if earlier is not None:
        return earlier, False
    job_id = _insert(session, values, spec, members={}, firing=firing)
    if job_id is None:
        return _earlier_for_sure(session, values), False
    return job_id, True


def accept_member(
    session: Session,
    *,
    project_id: str,
    spec: AnySpec,
    membership: Membership,
    firing: Firing | None,
) -> str:
    """The id of a new job of a group; raises what ``accept`` does."""
    values = _values(project_id=project_id, spec=spec, idempotency_key=None)
    values |= {"group_id": membership.group_id, "member": membership.name}
    job_id = _insert(session, values, spec, members=membership.members, firing=firing)
    assert job_id is not None, "without a key there is no earlier job"
    return job_id


def resolve(session: Session, spec: AnySpec, *, project_id: str) -> str | None:
    """What the spec's model means now, as ``name@version``; ``None``: no name of the registry.

    Keeps its files from being deleted before this transaction ends. Raises as ``accept``.
    """
    _check_task(session, spec, project_id=project_id)
    files.hold(session, spec, project_id=project_id)
    return _pinned(session, spec, project_id=project_id)


def _insert(
    session: Session,
    values: dict[str, Any],
    spec: AnySpec,
    *,
    members: Mapping[str, str],
    firing: Firing | None,
) -> str | None:
    """The new job; ``None``: another one with its key was faster."""
    if firing is None:
        _check_since(spec)
    project_id = values["project_id"]
    quotas.check_job(session, spec, project_id=project_id)
    pinned = resolve(session, spec, project_id=project_id)
    needs = dependencies.declared(session, spec, project_id=project_id, members=members)
    values |= {"model_pinned": pinned, "held": bool(needs)}
    values["fire_id"] = None if firing is None else firing.fire_id
    job_id: str | None = session.scalar(
        insert(Job)
        .values(values)
        .on_conflict_do_nothing(index_elements=["project_id", "idempotency_key"])
        .returning(Job.id)
    )
    if job_id is None:
        return None
    dependencies.declare(session, job_id, needs, project_id=project_id)
    facts: dict[str, Any] = {} if firing is None else dict(firing.facts)
    if needs:
        facts["waits_for"] = [need.job_id for need in needs]
    events.record(session, job_id=job_id, type="accepted", state=JobState.QUEUED, **facts)
    events.wake_control(session)
    return job_id


def _values(*, project_id: str, spec: AnySpec, idempotency_key: str | None) -> dict[str, Any]:
    deadline = spec.deadline_seconds
    request = spec.model_dump_json(exclude=None if spec.depends_on else APART)
    return {
        "id": ids.job(),
        "project_id": project_id,
        "kind": spec.kind,
        "state": JobState.QUEUED,
        "spec": spec.model_dump(mode="json", exclude=APART),
        "pool": spec.pool,
        "priority": spec.priority,
        "idempotency_key": idempotency_key,
        "request_sha256": hashlib.sha256(request.encode()).hexdigest(),
        "expires_at": sa.func.now() + timedelta(seconds=deadline) if deadline else None,
    }


def _pinned(session: Session, spec: AnySpec, *, project_id: str) -> str | None:
    """The spec's registry reference as ``name@version``; ``None`` for any other model."""
    if spec.starts_from is None:
        return None
    field, reference = spec.starts_from
    try:
        found = references.parse(reference)
        if not isinstance(found, Registered):
            return None
        return registry.pin(session, found, project_id=project_id)
    except (ModelFailure, NotFound) as error:
        raise BadSpec(error.message, code=error.code, param=field) from error


def _check_since(spec: AnySpec) -> None:
    """Refuse a corpus of what is new since the last fire in a job of no schedule."""
    for param, corpus in spec.corpora():
        if corpus.since is not None:
            raise BadSpec(
                "since is for the job of a schedule, which knows what earlier fires have taken: "
                "leave it out, or create a schedule",
                param=f"{param}.since",
            )


def _check_task(session: Session, spec: AnySpec, *, project_id: str) -> None:
    """Refuse before the training what could not be registered after it."""
    if spec.registers is None:
        return
    name, task = spec.registers
    other = registry.other_task(session, name, task=task, project_id=project_id)
    if other is not None:
        raise Conflict(other, code=registry.ANOTHER_TASK, param="model")


def _earlier(session: Session, values: dict[str, Any]) -> str | None:
    """The job that this key has submitted before."""
    return idempotency.earlier(
        session,
        Job,
        project_id=values["project_id"],
        key=values["idempotency_key"],
        digest=values["request_sha256"],
    )


def _earlier_for_sure(session: Session, values: dict[str, Any]) -> str:
    """The job that was faster than this one with the same key, and has committed."""
    job_id = _earlier(session, values)
    assert job_id is not None, "the insertion has just met it"
    return job_id
