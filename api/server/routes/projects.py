"""The projects of the installation: made and changed by those who operate it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.server import schemas
from api.server.dependencies import Caller, Limit, NoteMade, Transaction
from jobs import names
from jobs.ledger import projects as ledger
from jobs.queries import projects
from jobs.queries.paging import Order
from jobs.tenancy import ProjectChange, ProjectRequest

router = APIRouter(prefix="/v1/projects", tags=["projects"])

ProjectName = Annotated[
    str, Path(pattern=f"^{names.ID}$", description="The id of a project, such as team-b.")
]


@router.post("", status_code=201)
def create_project(
    body: ProjectRequest, session: Transaction, note_made: NoteMade
) -> schemas.Project:
    """Make a project; it has no key yet."""
    ledger.create(session, body)
    note_made(body.id)
    return schemas.Project.of(projects.get(session, body.id))


@router.get("")
def list_projects(
    *,
    session: Transaction,
    limit: Limit = 20,
    after: Annotated[
        str | None,
        Query(pattern=f"^{names.ID}$", description="The `last_id` of the page before."),
    ] = None,
    order: Annotated[Order, Query(description="By id, from its start or its end.")] = Order.ASC,
) -> schemas.ProjectPage:
    """Every project."""
    found, more = projects.page(session, limit=limit, after=after, order=order)
    return schemas.ProjectPage.of(found, has_more=more)


@router.get("/{project}")
def get_project(project: ProjectName, session: Transaction, caller: Caller) -> schemas.Project:
    """One project: the caller's own, or with the scope `operate` any."""
    return schemas.Project.of(projects.get(session, caller.project(project)))


@router.patch("/{project}")
def change_project(
    project: ProjectName, body: ProjectChange, session: Transaction
) -> schemas.Project:
    """Change what is given."""
    ledger.change(session, project, body)
    return schemas.Project.of(projects.get(session, project))
