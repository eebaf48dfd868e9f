"""The model registry: versions in OpenAI's shape; aliases, files, promotions."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from api.server import downloads, schemas
from api.server.dependencies import ByAge, Limit, ProjectId, Shared, Transaction
from jobs import names
from jobs.errors import ModelFailure, NotFound
from jobs.ledger import registry as registry_ledger
from jobs.ledger import rollbacks
from jobs.lookups import backups
from jobs.lookups import registry as lookup
from jobs.models import references
from jobs.models.references import Registered
from jobs.queries import registry
from jobs.queries.paging import Order

router = APIRouter(prefix="/v1/models", tags=["models"])

Number = Annotated[int, Path(ge=1, lt=10**9)]
DecisionId = Annotated[int, Path(ge=1, lt=2**62)]
AliasName = Annotated[str, Path(json_schema_extra={"pattern": f"^{names.ALIAS}$"})]
Behind = Annotated[int | None, Query(ge=0, lt=2**62, description="The `next` of the page before.")]


@router.get("")
def list_models(session: Transaction, project: ProjectId) -> schemas.ModelList:
    """Every version that can be used, by name, newest first."""
    found = registry.models(session, project_id=project)
    return schemas.ModelList(data=[schemas.Model.of(view) for view in found])


@router.get("/{model}")
def get_model(model: str, session: Transaction, project: ProjectId) -> schemas.ModelDetails:
    """One version in full, by `name@version`, `name@alias`, or `name` for the newest."""
    view = registry.view(session, _registered(model), project_id=project)
    return schemas.ModelDetails.of(view)


@router.get("/{name}/versions")
def list_versions(
    name: str,
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: Behind = None,
    order: ByAge = Order.DESC,
) -> schemas.VersionPage:
    """One name's versions, newest first, deleted ones too."""
    found, more = registry.versions(
        session, name, project_id=project, limit=limit, after=after, order=order
    )
    return schemas.VersionPage(
        data=[schemas.VersionDetails.of(view) for view in found],
        has_more=more,
        next=found[-1].version.version if more else None,
    )


@router.delete("/{name}/versions/{version}")
def delete_version(
    name: str, version: Number, shared: Shared, project: ProjectId
) -> schemas.Deleted:
    """Delete a version that nothing uses; its number is not given again."""
    with shared.sessions.begin() as session:
        files = registry_ledger.delete_version(
            session, project_id=project, name=name, version=version
        )
    with shared.sessions.begin() as session:
        stay = backups.under_way(
            session
        )  # it may have their rows; the garbage collector takes them
    for file in () if stay else files:  # after the commit: a tombstone without objects, never the
        shared.store.delete(file["key"])  # other way round
    return schemas.Deleted(id=f"{name}@{version}", object="model")


@router.get(
    "/{name}/versions/{version}/files/{path:path}",
    response_class=Response,
    responses=downloads.responses(),
)
@router.head("/{name}/versions/{version}/files/{path:path}", response_class=Response)
def get_model_file(
    *, name: str, version: Number, path: str, request: Request, shared: Shared, project: ProjectId
) -> Response:
    """One file's bytes, or a range of them."""
    with shared.sessions.begin() as session:
        found = lookup.version(session, Registered(name, version), project_id=project)
    file = next((file for file in found.files if file["path"] == path), None)
    if file is None:
        names = ", ".join(sorted(file["path"] for file in found.files))
        raise NotFound(f"{name}@{version} has no file {path!r}; it has {names}")
    filename = quote(path.rpartition("/")[2], safe="")
    return downloads.stored(
        shared.store,
        file["key"],
        request=request,
        what=f"the file {path} of {name}@{version}",
        size=file["bytes"],
        sha256=file["sha256"],
        disposition=f"attachment; filename*=UTF-8''{filename}",
    )


@router.get("/{name}/aliases/{alias}")
def get_alias(name: str, alias: str, session: Transaction, project: ProjectId) -> schemas.Alias:
    """Where an alias points."""
    return schemas.Alias.of(lookup.alias(session, name, alias, project_id=project))


@router.put("/{name}/aliases/{alias}")
def set_alias(
    name: str,
    alias: AliasName,
    target: schemas.AliasTarget,
    session: Transaction,
    project: ProjectId,
) -> schemas.Alias:
    """Let an alias point to a version, wherever it pointed before."""
    registry_ledger.set_alias(
        session, project_id=project, name=name, alias=alias, version=target.version
    )
    return schemas.Alias.of(lookup.alias(session, name, alias, project_id=project))


@router.delete("/{name}/aliases/{alias}")
def remove_alias(
    name: str, alias: str, session: Transaction, project: ProjectId
) -> schemas.Deleted:
    """Forget an alias; the version it pointed to stays."""
    registry_ledger.remove_alias(session, project_id=project, name=name, alias=alias)
    return schemas.Deleted(id=f"{name}@{alias}", object="model.alias")


@router.post("/{name}/aliases/{alias}/rollback")
def roll_back_alias(
    name: str,
    alias: str,
    *,
    session: Transaction,
    project: ProjectId,
    body: schemas.RollbackRequest | None = None,
) -> schemas.AliasRollback:
    """Let an alias point to what it pointed to before; deleted versions are passed over."""
    done = rollbacks.roll_back(
        session,
        project_id=project,
        name=name,
        alias=alias,
        expected=None if body is None else body.from_version,
    )
    return schemas.AliasRollback.of(done, name=name, alias=alias)


@router.get("/{name}/aliases/{alias}/history")
def list_alias_history(
    name: str,
    alias: str,
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: Behind = None,
    order: ByAge = Order.DESC,
) -> schemas.AliasHistoryPage:
    """Which version an alias pointed to from when until when, newest first."""
    found, more = registry.history(
        session, name, alias, project_id=project, limit=limit, after=after, order=order
    )
    return schemas.AliasHistoryPage(
        data=[schemas.AliasService.of(service) for service in found],
        has_more=more,
        next=found[-1].move.id if more else None,
    )


@router.get("/{name}/promotions/{decision}")
def get_promotion(
    name: str, decision: DecisionId, session: Transaction, project: ProjectId
) -> schemas.PromotionDetails:
    """One decision about an alias, with the reports on both versions."""
    found = registry.promotion(session, name, decision, project_id=project)
    return schemas.PromotionDetails.of(found)


@router.get("/{name}/promotions")
def list_promotions(
    name: str,
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: Behind = None,
    order: ByAge = Order.DESC,
) -> schemas.PromotionPage:
    """Decisions about a name's aliases, newest first, each with both values of the metric."""
    found, more = registry.promotions(
        session, name, project_id=project, limit=limit, after=after, order=order
    )
    return schemas.PromotionPage(
        data=[schemas.PromotionDecision.of(promotion) for promotion in found],
        has_more=more,
        next=found[-1].id if more else None,
    )


def _registered(model: str) -> Registered:
    """The reference in a path; what cannot be in the registry is not in it."""
    try:
        found = references.parse(model)
    except ModelFailure as error:
        raise NotFound(error.message, code="model_not_found") from error
    if not isinstance(found, Registered):
        raise NotFound(f"{model!r} is not in the registry", code="model_not_found")
    return found
