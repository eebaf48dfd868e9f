"""A job as it runs and as it ends: chunks, results, output, verification."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.server import downloads, schemas
from api.server.dependencies import Bulk, Limit, Shared
from jobs.errors import NotFound
from jobs.formats import MEDIA_TYPES, OutputFormat
from jobs.lookups import removals
from jobs.queries.jobs import JobView
from jobs.results import chunk_folds, integrity, pages, verifier
from jobs.retention import Piece
from jobs.states import FINAL

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

RowCursor = Annotated[
    int | None, Query(ge=0, le=2**62, description="A row; the page begins behind it.")
]


@router.get("/chunks")
def list_chunks(
    job: Bulk, shared: Shared, limit: Limit = 100, after: RowCursor = None
) -> schemas.ChunkPage:
    """The job's chunks in row order."""
    begin = -1 if after is None else after
    found, more = chunk_folds.page(
        shared.sessions, shared.store, job.job.id, limit=limit, after=begin
    )
    shown = [schemas.Chunk.of(chunk) for chunk in found]
    last = shown[-1].first_row if shown else after
    return schemas.ChunkPage(data=shown, has_more=more, next=last)


@router.get("/results")
def list_results(
    job: Bulk, shared: Shared, limit: Limit = 100, after: RowCursor = None
) -> schemas.ResultPage:
    """Results in the order of the corpus, while the job runs too, up to the first gap."""
    _check_there(job, shared, Piece.PARTS)
    begin = 0 if after is None else after + 1
    page = pages.page(shared.sessions, shared.store, job.job.id, from_row=begin, limit=limit)
    return schemas.ResultPage(
        data=page.rows,
        next=page.next_row - 1 if page.next_row else None,
        complete=page.complete,
    )


@router.get(
    "/output", response_class=Response, responses=downloads.responses(*MEDIA_TYPES.values())
)
@router.head("/output", response_class=Response)
def get_output(job: Bulk, request: Request, shared: Shared) -> Response:
    """The single file that the spec's `output.format` asked for, or a range of its bytes."""
    _check_there(job, shared, Piece.OUTPUTS)
    key, ending = _output_file(job)
    assert job.job.output is not None
    integrity.check_output_file(shared.sessions, shared.store, job.job, whole=False)
    return downloads.stored(
        shared.store,
        key,
        request=request,
        what=f"the output file of {job.job.id}",
        size=job.job.output.get("file_bytes"),
        sha256=job.job.output.get("file_sha256"),
        media_type=MEDIA_TYPES[OutputFormat(ending)],
        disposition=f'attachment; filename="{job.job.id}.{ending}"',
    )


@router.get("/verification")
def verify_job(job: Bulk, shared: Shared) -> schemas.Verification:
    """Recount inputs against outputs from storage; takes as long as reading them once."""
    _check_there(job, shared, Piece.PARTS)
    report = verifier.verify(job.job.id, settings=shared.settings)
    return schemas.Verification.of(job.job.id, report)


def _check_there(job: JobView, shared: Shared, piece: Piece) -> None:
    """Raise ``NotFound`` if retention has removed what is asked for."""
    if job.job.state in FINAL:
        with shared.sessions.begin() as session:
            removals.check(session, job.job.id, piece)


def _output_file(view: JobView) -> tuple[str, str]:
    job = view.job
    if job.spec["output"]["format"] is None:
        raise NotFound(
            f"{job.id} was not asked for a single file: page through /v1/jobs/{job.id}/results, "
            "or submit with output.format jsonl, csv or parquet",
            code="output_not_requested",
        )
    if job.state not in FINAL or not job.output or not job.output["file"]:
        raise NotFound(
            f"{job.id} is {job.state} and has no output file"
            + ("; wait until it has ended" if job.state not in FINAL else ""),
            code="output_not_ready",
        )
    return job.output["file"], job.output["format"]
