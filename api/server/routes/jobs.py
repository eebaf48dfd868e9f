"""Jobs of every kind: submit, look, control."""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from api.server import schemas
from api.server.creates import Counted
from api.server.dependencies import (
    After,
    ByAge,
    IdempotencyKey,
    JobId,
    KeyHash,
    Limit,
    NoteMade,
    ProjectId,
    Shared,
    Transaction,
)
from jobs import admission, folding, ids, kinds, names
from jobs.ledger import branches, controls, creations, deletions, submission
from jobs.moments import Moment
from jobs.queries import inputs, job_filters, jobs, why
from jobs.queries.job_filters import JobFilter
from jobs.queries.paging import Order
from jobs.states import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

Kind = StrEnum("Kind", {kind.upper(): kind for kind in kinds.KINDS})  # type: ignore[misc]


WithDependents = Annotated[
    bool, Query(description="The same to every job that depends on it, directly or not.")
]


@router.post("", status_code=201, responses={200: {"model": schemas.Job}})
def submit_job(
    *,
    spec: kinds.Spec,
    response: Response,
    session: Transaction,
    project: ProjectId,
    shared: Shared,
    note_made: NoteMade,
    counted: Counted,
    idempotency_key: IdempotencyKey = None,
) -> schemas.Job:
    """Accept a job: 201 for a new one, 200 for one that this key has submitted before."""
    admission.check(spec, project_id=project, settings=shared.settings)
    accept = functools.partial(
        submission.accept,
        session,
        project_id=project,
        spec=spec,
        idempotency_key=idempotency_key,
    )
    job_id, new = creations.once(session, counted, accept)
    note_made(job_id)
    response.status_code = 201 if new else 200
    return schemas.Job.of(jobs.get(session, job_id, project_id=project))


@router.get("")
def list_jobs(
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: After = None,
    order: ByAge = Order.DESC,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    kind: Annotated[Kind | None, Query(description="Only jobs of this kind.")] = None,
    name: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            description="Only jobs with this in their name, in letters of either case.",
        ),
    ] = None,
    since: Annotated[
        Moment | None, Query(description="Only jobs that were accepted then or later.")
    ] = None,
    group: Annotated[
        str | None, Query(pattern=f"^{names.ID}$", description="Only jobs of this group.")
    ] = None,
) -> schemas.JobPage:
    """The project's jobs, newest first, without their histograms."""
    wanted = JobFilter(state=state, kind=kind, name=name, since=since, group=group)
    views, more = jobs.page(
        session, project_id=project, limit=limit, after=after, order=order, wanted=wanted
    )
    total = job_filters.count(session, project_id=project, wanted=wanted)
    return schemas.JobPage.of(views, has_more=more, total=total)


@router.get("/{job_id}")
def get_job(job_id: JobId, session: Transaction, project: ProjectId) -> schemas.Job:
    """One job."""
    return schemas.Job.of(jobs.get(session, job_id, project_id=project))


@router.get("/{job_id}/why")
def explain_job(job_id: JobId, session: Transaction, project: ProjectId) -> schemas.Why:
    """Why it does not move, how it moves, or how it ended; and where its time went."""
    return schemas.Why.of(why.look(session, job_id, project_id=project))


@router.get("/{job_id}/inputs")
def list_inputs(
    job_id: JobId,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 100,
    after: Annotated[
        int | None, Query(ge=0, le=2**31, description="How many objects come before the page.")
    ] = None,
) -> schemas.InputPage:
    """The objects that the job reads, corpus by corpus, as its planner wrote them down."""
    jobs.get(session, job_id, project_id=project)
    found, more = inputs.page(session, job_id, limit=limit, after=after)
    data = [schemas.Input.of(each) for each in found]
    return schemas.InputPage(data=data, has_more=more, next=(after or 0) + len(data))


@router.delete("/{job_id}")
def delete_job(job_id: JobId, shared: Shared, project: ProjectId) -> schemas.Deleted:
    """Delete an ended job and all that is its alone; versions that it registered stay."""
    with shared.sessions.begin() as session:
        deletions.delete_job(session, job_id, project_id=project)
    shared.purge_thread.wake()
    return schemas.Deleted(id=job_id, object="job")


@router.post("/{job_id}/cancel")
def cancel_job(
    job_id: JobId,
    session: Transaction,
    project: ProjectId,
    *,
    with_dependents: WithDependents = False,
) -> schemas.Job:
    """Stop at the next chunk boundary; of training, at once. What is done is kept."""
    action = branches.cancel if with_dependents else controls.cancel
    return _control(action, session, job_id, project_id=project)


@router.post("/{job_id}/pause")
def pause_job(job_id: JobId, session: Transaction, project: ProjectId, key: KeyHash) -> schemas.Job:
    """Begin nothing new; chunks that are under way end, training makes a checkpoint first."""
    action = functools.partial(controls.pause, by=ids.of_key(key))
    return _control(action, session, job_id, project_id=project)


@router.post("/{job_id}/resume")
def resume_job(job_id: JobId, session: Transaction, project: ProjectId) -> schemas.Job:
    """Let a paused job go on."""
    return _control(controls.resume, session, job_id, project_id=project)


@router.post("/{job_id}/retry")
def retry_job(
    job_id: JobId,
    shared: Shared,
    project: ProjectId,
    *,
    with_dependents: WithDependents = False,
) -> schemas.Job:
    """Do the failed rows of an ended job again, and what was never done; training goes on."""
    action = branches.retry if with_dependents else controls.retry
    return folding.retried(
        shared.sessions,
        shared.store,
        lambda session: _control(action, session, job_id, project_id=project),
    )


def _control(
    action: Callable[..., object], session: Session, job_id: str, *, project_id: str
) -> schemas.Job:
    action(session, job_id, project_id=project_id)
    return schemas.Job.of(jobs.get(session, job_id, project_id=project_id))
