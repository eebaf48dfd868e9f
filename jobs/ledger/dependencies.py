"""Jobs that wait for other jobs: what they need is written down, and control lets them go.

The states of the needed jobs are the only truth: nothing is counted, so that nothing can be counted
twice or not at all, whichever process ends a job and whenever it dies. A job that waits is
``held``: no planner begins it. Its own row is the lock: the states are read behind it, so that who
retries it and who ends it come one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.decisions import dependencies
from jobs.decisions.dependencies import DependencyOn, Need, Verdict
from jobs.errors import BadSpec, Conflict, ModelFailure, NotFound
from jobs.kinds import AnySpec, FinetuneSpec
from jobs.ledger import events, registry, transitions
from jobs.lookups import dependencies as lookup
from jobs.lookups import predicates
from jobs.models import references
from jobs.models.references import Registered, RegisteredBy
from jobs.states import JobState
from jobs.tables import Job, JobDependency, ModelVersion

NONE: Mapping[str, str] = {}

MODELS_KIND = FinetuneSpec.model_fields["kind"].default
"""The kind of job that registers a model."""


@dataclass(frozen=True)
class Declared:
    """A job that a new job needs."""

    job_id: str
    on: DependencyOn
    gives_model: bool


def declared(
    session: Session,
    spec: AnySpec,
    *,
    project_id: str,
    members: Mapping[str, str],
    kinds_of_members: Mapping[str, str] = NONE,
) -> list[Declared]:
    """The jobs that the spec needs; its reference to the model of another job is such a need.

    ``members``: ids by the names that the spec may use in place of ids. Raises ``NotFound`` for a
    job that is not there, and ``BadSpec``.
    """
    wanted: dict[str, tuple[str, DependencyOn]] = {}
    for place, each in enumerate(spec.depends_on):
        path, job_id = f"depends_on.{place}.job", members.get(each.job, each.job)
        if job_id in wanted:
            raise BadSpec(f"depends_on names {each.job} twice", param=path)
        wanted[job_id] = (path, each.on)
    source = _source_of_model(spec)
    giver = None if source is None else members.get(source[1], source[1])
    if source is not None and giver is not None:
        path, on = wanted.setdefault(giver, (source[0], DependencyOn.SUCCESS))
        if on is not DependencyOn.SUCCESS:
            raise BadSpec(
                f"the model of {source[1]} is there only if that job succeeds: depend on its "
                "success, not on its end",
                param=path,
            )
    kinds = {**_kinds(session, wanted, project_id=project_id), **kinds_of_members}
    for job_id, (path, _) in wanted.items():
        if job_id not in kinds:
            raise NotFound(f"no job {job_id!r} in this project", code="job_not_found", param=path)
    if source is not None and giver is not None and kinds[giver] != MODELS_KIND:
        raise BadSpec(
            f"{source[1]} is a job of kind {kinds[giver]}, which registers no model; "
            f"only {MODELS_KIND} does",
            param=source[0],
        )
    return [Declared(job_id, on, job_id == giver) for job_id, (_, on) in wanted.items()]


def check(session: Session, spec: AnySpec, *, project_id: str, members: Mapping[str, str]) -> None:
    """Raise what ``declared`` does for a member of a group of which no job is there yet.

    ``members``: the kinds of all of them by name.
    """
    names = {name: name for name in members}
    declared(session, spec, project_id=project_id, members=names, kinds_of_members=members)


def declare(session: Session, job_id: str, found: Sequence[Declared], *, project_id: str) -> None:
    """Write down what the new job needs."""
    if found:
        session.execute(
            insert(JobDependency),
            [{"project_id": project_id, "job_id": job_id, **_columns(each)} for each in found],
        )


def due(session: Session, *, limit: int) -> list[str]:
    """Held jobs for which something has changed."""
    return list(session.scalars(sa.select(Job.id).where(predicates.job_settles()).limit(limit)))


def settle(session: Session, job_id: str) -> bool:
    """Let the job go, end it, or pin its model, by what it needs; ``False``: it goes on waiting.

    A job whose row somebody else has locked is left for the next turn.
    """
    job = session.scalar(
        sa.select(Job)
        .where(Job.id == job_id, Job.held, Job.state == JobState.QUEUED)
        .with_for_update(skip_locked=True)
    )
    if job is None:
        return False
    needs = lookup.needs(session, [job_id]).get(job_id, [])
    verdict = dependencies.judge(needs)
    if verdict is Verdict.FAIL:
        message = dependencies.failure(needs)
        return transitions.fail(session, job_id, code=dependencies.FAILED, message=message)
    if verdict is Verdict.SKIP:
        return transitions.skip(session, job_id, reason=dependencies.no_rows(needs))
    try:
        pinned = _pin(session, job, needs)
    except NotFound as error:
        return transitions.fail(session, job_id, code=error.code, message=error.message)
    if verdict is Verdict.BEGIN:
        _release(session, job_id)
    return pinned or verdict is Verdict.BEGIN


def holds_again(session: Session, job: Job, target: JobState) -> bool:
    """Whether the job waits for others once more where it is retried.

    Raises ``Conflict`` where it would only fail again.
    """
    if target is not JobState.QUEUED:
        return False
    needs = lookup.needs(session, [job.id]).get(job.id, [])
    if dependencies.judge(needs) in {Verdict.FAIL, Verdict.SKIP}:
        raise Conflict(
            f"{job.id} cannot begin: {dependencies.failure(needs)}", code=dependencies.FAILED
        )
    return bool(needs)


def _source_of_model(spec: AnySpec) -> tuple[str, str] | None:
    """The field that refers to the model of another job, and that job."""
    if spec.starts_from is None:
        return None
    field, reference = spec.starts_from
    try:
        found = references.parse(reference)
    except ModelFailure as error:
        raise BadSpec(error.message, code=error.code, param=field) from error
    return (field, found.job) if isinstance(found, RegisteredBy) else None


def _kinds(session: Session, job_ids: Collection[str], *, project_id: str) -> dict[str, str]:
    query = sa.select(Job.id, Job.kind).where(
        Job.id.in_(job_ids), Job.project_id == project_id, Job.deleted_at.is_(None)
    )
    return dict(session.execute(query).all()) if job_ids else {}


def _columns(each: Declared) -> dict[str, object]:
    return {"needs_job_id": each.job_id, "on": each.on, "gives_model": each.gives_model}


def _pin(session: Session, job: Job, needs: Sequence[Need]) -> bool:
    """Pin the version that a needed job has registered, once it has. Raises ``NotFound``."""
    giver = next((need for need in needs if need.gives_model and need.is_met), None)
    if giver is None or job.model_pinned is not None:
        return False
    version = session.scalar(sa.select(ModelVersion).where(ModelVersion.job_id == giver.job_id))
    if version is None:
        raise NotFound(f"{giver.words} has registered no model", code="model_not_found")
    name = Registered(version.name, version.version)
    job.model_pinned = registry.pin(session, name, project_id=job.project_id)
    session.flush()
    events.record(session, job_id=job.id, type="model", model=job.model_pinned, of=giver.job_id)
    return True


def _release(session: Session, job_id: str) -> None:
    session.execute(sa.update(Job).where(Job.id == job_id).values(held=False))
    events.record(session, job_id=job_id, type="released")
    events.wake_control(session)
