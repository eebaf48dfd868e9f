"""Uploaded files, in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.server import downloads, schemas, uploads
from api.server.creates import Counted
from api.server.dependencies import (
    After,
    ByAge,
    FileId,
    IdempotencyKey,
    KeyHash,
    Limit,
    NoteMade,
    ProjectId,
    Shared,
    Transaction,
)
from api.server.uploads import Origin
from jobs import names
from jobs.ledger import files as files_ledger
from jobs.queries import files
from jobs.queries.paging import Order

router = APIRouter(prefix="/v1/files", tags=["files"])

Purpose = Annotated[
    str | None, Query(pattern=f"^{names.PURPOSE}$", description="Only files of this purpose.")
]
Tag = Annotated[
    str | None, Query(pattern=f"^{names.TAG}$", description="Only files with this tag.")
]


@router.post("", openapi_extra=uploads.OPENAPI)
async def upload_file(
    *,
    request: Request,
    shared: Shared,
    project: ProjectId,
    caller: KeyHash,
    note_made: NoteMade,
    counted: Counted,
    idempotency_key: IdempotencyKey = None,
) -> schemas.File:
    """Store a file: multipart with the fields `file`, `purpose` (default `batch`) and `tag`.

    For a day, the same `Idempotency-Key` with the same file and fields is the same file.
    """
    origin = Origin(project, caller, counted=counted, idempotency_key=idempotency_key)
    file = await shared.uploads.receive(request, origin=origin)
    note_made(file.id)
    return schemas.File.of(file)


@router.get("")
def list_files(
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: After = None,
    order: ByAge = Order.DESC,
    purpose: Purpose = None,
    tag: Tag = None,
) -> schemas.FilePage:
    """The project's files, newest first."""
    found, more = files.page(
        session,
        project_id=project,
        limit=limit,
        after=after,
        order=order,
        purpose=purpose,
        tag=tag,
    )
    return schemas.FilePage.of(found, has_more=more)


@router.get("/{file_id}")
def get_file(file_id: FileId, session: Transaction, project: ProjectId) -> schemas.File:
    """One file."""
    return schemas.File.of(files.get(session, file_id, project_id=project))


@router.delete("/{file_id}")
def delete_file(file_id: FileId, shared: Shared, project: ProjectId) -> schemas.Deleted:
    """Delete a file that no job under way and no schedule needs; its bytes go soon after."""
    with shared.sessions.begin() as session:
        files_ledger.delete(session, file_id, project_id=project)
    shared.purge_thread.wake()
    return schemas.Deleted(id=file_id, object="file")


@router.get("/{file_id}/content", response_class=Response, responses=downloads.responses())
@router.head("/{file_id}/content", response_class=Response)
def get_file_content(
    file_id: FileId, request: Request, shared: Shared, project: ProjectId
) -> Response:
    """The file's bytes, or a range of them."""
    with shared.sessions.begin() as session:
        file = files.get(session, file_id, project_id=project)
    return downloads.stored(
        shared.store,
        file.object_key,
        request=request,
        what=f"the uploaded file {file_id}",
        size=file.bytes,
        sha256=file.sha256,
        disposition=f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
    )
