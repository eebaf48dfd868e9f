"""Models of the registry: versions, aliases, decisions about promotions."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

from fastapi import Query, Request, Response

from api.server import schemas
from api.server.dependencies import ProjectId, Transaction
from api.server.pages import page_route, rendering
from api.server.routes import models
from jobs.lookups import clock
from jobs.queries import registry

router = page_route.router()

PAGE_VERSIONS = 20
SHOWN_DECISIONS, SHOWN_MOVES = 20, 10

Behind = Annotated[int | None, Query(ge=0, lt=2**62)]


@router.get("/models")
def list_models(request: Request, session: Transaction, project: ProjectId) -> Response:
    """Every name with its newest version and its aliases."""
    views = registry.models(session, project_id=project)
    names = [(name, list(versions)) for name, versions in groupby(views, lambda v: v.version.name)]
    return rendering.page(request, "models.html", names=names, now=clock.now(session))


@router.get("/models/{name}")
def show_model(
    name: str,
    request: Request,
    session: Transaction,
    project: ProjectId,
    after: Behind = None,
) -> Response:
    """One name: its versions side by side, where its aliases point and pointed, and why."""
    page = models.list_versions(
        name, session=session, project=project, limit=PAGE_VERSIONS, after=after
    )
    decisions = models.list_promotions(
        name, session=session, project=project, limit=SHOWN_DECISIONS
    )
    aliases = sorted({alias for version in page.data for alias in version.aliases})
    history: dict[str, list[schemas.AliasService]] = {
        alias: models.list_alias_history(
            name, alias, session=session, project=project, limit=SHOWN_MOVES
        ).data
        for alias in aliases
    }
    return rendering.page(
        request,
        "model.html",
        name=name,
        page=page,
        decisions=decisions.data,
        history=history,
        now=clock.now(session),
    )
