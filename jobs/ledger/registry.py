"""What changes the model registry: versions, aliases, deletion; ``promotions`` records decisions.

Every change of a name takes the lock on its row first, so changes of one name come one after
another; ``pin`` alone takes the version's, which a deletion has to wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import numbers
from jobs.decisions.alias_history import AliasChange
from jobs.errors import BadRequest, Conflict, JobFailure, NotFound
from jobs.ledger import events
from jobs.lookups import registry, uses
from jobs.models import bundles
from jobs.models.bundles import BundleFile
from jobs.models.references import ALIAS, Registered
from jobs.models.signatures import Signature
from jobs.states import FINAL
from jobs.tables import (
    AliasMove,
    Job,
    JobDependency,
    Json,
    Model,
    ModelAlias,
    ModelVersion,
)

ANOTHER_TASK = "name_has_another_task"


def register(
    session: Session,
    *,
    project_id: str,
    name: str,
    task: str,
    kind: str,
    base: str | None,
    files: Sequence[BundleFile],
    metrics: Json,
    lineage: Json,
    job_id: str | None,
    signature: Signature | None = None,
) -> int:
    """The number of the new version; for a job that has registered already, that of then.

    ``files`` is the bundle whose objects are complete. Numbers in ``metrics`` and ``lineage`` that
    JSON does not have (NaN, infinity) become null. Raises ``JobFailure`` for a name whose versions
    are of another task.
    """
    session.execute(
        insert(Model)
        .values(project_id=project_id, name=name, last_version=0)
        .on_conflict_do_nothing()
    )
    model = locked(session, name, project_id=project_id)
    earlier = _registered_by(session, job_id)
    if earlier is not None:
        return earlier
    check_task(session, name, task=task, project_id=project_id)
    model.last_version += 1
    session.add(
        ModelVersion(
            project_id=project_id,
            name=name,
            version=model.last_version,
            task=task,
            kind=kind,
            base=base,
            files=list(files),
            bytes=bundles.size(files),
            sha256=bundles.digest(files),
            metrics=numbers.storable(metrics),
            lineage=numbers.storable(lineage),
            signature=None if signature is None else signature.model_dump(mode="json"),
            job_id=job_id,
        )
    )
    session.flush()
    if job_id is not None:
        reference = f"{name}@{model.last_version}"
        events.record(session, job_id=job_id, type="registered", model=reference)
    return model.last_version


def check_task(session: Session, name: str, *, task: str, project_id: str) -> None:
    """Raise ``JobFailure`` for a name whose versions are of another task."""
    other = other_task(session, name, task=task, project_id=project_id)
    if other is not None:
        raise JobFailure(other, code=ANOTHER_TASK)


def other_task(session: Session, name: str, *, task: str, project_id: str) -> str | None:
    """Why the name cannot have a version of this task, in words; ``None``: it can.

    A name has one task, so that its aliases never change the task of a job that uses them.
    """
    found = session.scalars(
        sa.select(ModelVersion.task)
        .where(
            ModelVersion.project_id == project_id,
            ModelVersion.name == name,
            ModelVersion.deleted_at.is_(None),
        )
        .distinct()
        .order_by(ModelVersion.task)
    ).all()
    if not found or task in found:
        return None
    return (
        f"the model {name!r} has versions for {' and '.join(found)}, and a name has one task: "
        f"register this one, for {task}, under another name"
    )


def pin(session: Session, name: Registered, *, project_id: str) -> str:
    """The reference as ``name@version``, which is not deleted before this transaction ends.

    Raises ``NotFound``.
    """
    found = registry.version(session, name, project_id=project_id)
    session.refresh(found, with_for_update={"read": True})
    if found.deleted_at is not None:
        raise NotFound(f"{found.name}@{found.version} was deleted", code="model_not_found")
    return f"{found.name}@{found.version}"


def set_alias(session: Session, *, project_id: str, name: str, alias: str, version: int) -> None:
    """Let the alias point to the version, wherever it pointed. Raises ``NotFound``."""
    if not ALIAS.fullmatch(alias):
        raise BadRequest(
            "an alias is a lower-case letter and then at most 39 letters, digits, `-` and `_`, "
            f"not {alias!r}",
            param="alias",
        )
    locked(session, name, project_id=project_id)
    registry.version(session, Registered(name, version), project_id=project_id)
    move_alias(
        session, project_id=project_id, name=name, alias=alias, version=version, how=AliasChange.SET
    )


def remove_alias(session: Session, *, project_id: str, name: str, alias: str) -> None:
    """Forget the alias; the version it pointed to stays. Raises ``NotFound``."""
    locked(session, name, project_id=project_id)
    place = registry.alias(session, name, alias, project_id=project_id)
    _log_move(
        session,
        project_id=project_id,
        name=name,
        alias=alias,
        version=None,
        previous=place.version,
        how=AliasChange.REMOVAL,
    )
    session.delete(place)
    session.flush()


def delete_version(
    session: Session, *, project_id: str, name: str, version: int
) -> list[BundleFile]:
    """Make the version a tombstone; the files whose objects the caller deletes after the commit.

    Deleting it again gives the same files again, for a caller that died in between. Raises
    ``NotFound``, and ``Conflict`` while an alias, a job or an adapter needs it.
    """
    locked(session, name, project_id=project_id)
    found = session.get(
        ModelVersion, (project_id, name, version), populate_existing=True, with_for_update=True
    )
    if found is None:
        raise NotFound(f"the model {name!r} has no version {version}", code="model_not_found")
    if found.deleted_at is None:
        check_unused(session, found)
        bury(session, found)
    return list(found.files)


def bury(session: Session, version: ModelVersion) -> None:
    """Make the locked version a tombstone, whose objects the purger removes."""
    now = session.scalar(sa.select(sa.func.now()))
    version.deleted_at = version.purge_at = now
    session.flush()


def pointed_to(session: Session, *, project_id: str, name: str, alias: str) -> int | None:
    """The version that the alias of a locked name points to; ``None``: it points nowhere."""
    return session.scalar(
        sa.select(ModelAlias.version).where(
            ModelAlias.project_id == project_id,
            ModelAlias.name == name,
            ModelAlias.alias == alias,
        )
    )


def locked(session: Session, name: str, *, project_id: str) -> Model:
    model = session.get(Model, (project_id, name), populate_existing=True, with_for_update=True)
    if model is None:
        raise NotFound(f"no model {name!r} in this project's registry", code="model_not_found")
    return model


def _registered_by(session: Session, job_id: str | None) -> int | None:
    if job_id is None:
        return None
    return session.scalar(sa.select(ModelVersion.version).where(ModelVersion.job_id == job_id))


def move_alias(
    session: Session,
    *,
    project_id: str,
    name: str,
    alias: str,
    version: int,
    how: AliasChange,
    job_id: str | None = None,
) -> None:
    """Let the alias of a locked name point to the version, and log where it pointed before."""
    previous = pointed_to(session, project_id=project_id, name=name, alias=alias)
    moved = {"version": version, "moved_at": sa.func.now()}
    session.execute(
        insert(ModelAlias)
        .values(project_id=project_id, name=name, alias=alias, **moved)
        .on_conflict_do_update(index_elements=["project_id", "name", "alias"], set_=moved)
    )
    if previous != version:
        _log_move(
            session,
            project_id=project_id,
            name=name,
            alias=alias,
            version=version,
            previous=previous,
            how=how,
            job_id=job_id,
        )


def _log_move(session: Session, **move: Any) -> None:
    session.execute(insert(AliasMove).values(**move))


def check_unused(session: Session, found: ModelVersion) -> None:
    """Raise ``Conflict`` where an alias, a job or an adapter needs the version.

    Jobs before adapters: a job that registers an adapter ends in the same transaction.
    """
    reference = f"{found.name}@{found.version}"
    for users, why in (
        (_aliases(session, found), "the alias {} points to it: move or remove the alias first"),
        (_jobs(session, found), "{} uses it: wait until the job has ended, or cancel it"),
        (_adapters(session, found), "{} is an adapter on it: delete the adapter first"),
        (_schedules(session, found), "the schedule {} uses it: edit or delete the schedule first"),
    ):
        if users:
            reason = why.format(users[0])
            raise Conflict(f"{reference} cannot be deleted: {reason}", code="model_in_use")


def _aliases(session: Session, found: ModelVersion) -> Sequence[str]:
    query = sa.select(ModelAlias.alias).where(
        ModelAlias.project_id == found.project_id,
        ModelAlias.name == found.name,
        ModelAlias.version == found.version,
    )
    return session.scalars(query.order_by(ModelAlias.alias)).all()


def _jobs(session: Session, found: ModelVersion) -> Sequence[str]:
    """Jobs under way on the version, and those that wait for the model of the job it is from."""
    waits = sa.exists().where(
        JobDependency.job_id == Job.id,
        JobDependency.needs_job_id == found.job_id,
        JobDependency.gives_model,
    )
    query = sa.select(Job.id).where(
        Job.project_id == found.project_id,
        sa.or_(Job.model_pinned == f"{found.name}@{found.version}", waits),
        Job.state.not_in(FINAL),
    )
    return session.scalars(query.order_by(Job.created_at)).all()


def _schedules(session: Session, found: ModelVersion) -> Sequence[str]:
    reference = f"{found.name}@{found.version}"
    name = uses.schedule(session, reference, project_id=found.project_id)
    return [] if name is None else [name]


def _adapters(session: Session, found: ModelVersion) -> Sequence[str]:
    query = sa.select(ModelVersion.name + "@" + sa.cast(ModelVersion.version, sa.Text)).where(
        ModelVersion.project_id == found.project_id,
        ModelVersion.base == f"{found.name}@{found.version}",
        ModelVersion.kind == "adapter",
        ModelVersion.deleted_at.is_(None),
    )
    return session.scalars(query).all()
