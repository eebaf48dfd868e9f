"""What the API answers with. Times are ISO 8601 in UTC, except where OpenAI's shape has seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel

from api.server.schemas.findings import JobWarning, Quality, RowErrors
from api.server.schemas.job_relations import JobNeed, JobSchedule
from api.server.schemas.models import FloorChecks
from api.server.schemas.runs import Training
from jobs import tables
from jobs.models.signatures import Reading
from jobs.queries.jobs import Counts, JobView
from jobs.results.verification import VerificationReport
from jobs.states import ChunkState, JobState


class Rows(BaseModel):
    """Rows of a job: ``total`` is known once planning has ended."""

    total: int | None
    planned: int
    done: int
    under_way: int  # rows' worth of work that is done of chunks which are not done yet, by tokens
    failed: int


class Chunks(BaseModel):
    """Chunks of a job by state."""

    pending: int
    leased: int
    done: int


class Usage(BaseModel):
    """What a job has used: tokens read, seconds of the engine."""

    tokens: int
    seconds: float


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str

    @classmethod
    def of(cls, job: tables.Job) -> Self | None:
        """The error of a failed job; ``None``: it has not failed."""
        if job.error_code is None:
            return None
        return cls(code=job.error_code, message=job.error_message or "")


class JobOutput(BaseModel):
    """What a job wrote besides its parts; ``format`` is null where no single file was asked for."""

    format: str | None
    rows: int
    rows_failed: int
    bytes: int


class Promotion(BaseModel):
    """Whether a fine-tune's version took an alias, and both values of the metric."""

    alias: str
    promoted: bool
    reason: str
    metric: str
    value: float | None  # null: it is no number
    incumbent: int | str | None  # the version that the alias pointed to; null: to none
    incumbent_value: float | None  # null: it could not be evaluated, or there is none
    split: str | None = None  # which rows decided
    rows: int | None = None
    min_rows: int = 0
    floors: FloorChecks | None = None  # null: none were asked for


class ModelOutput(BaseModel):
    """What a fine-tune or an evaluation ended with; the report has a route of its own."""

    rows: int | None
    model: str | None = None  # `name@version` as registered; null: of an evaluation
    version: int | None = None
    steps: int | None = None
    best_step: int | None = None
    bytes: int | None = None
    promotion: Promotion | None = None  # null: none was asked for


class Agreement(BaseModel):
    """Of an int8 job: rows that were computed in float32 as well, and those with equal labels."""

    rows: int
    equal: int


class Progress(BaseModel):
    """How far a job is."""

    state: JobState
    waiting_reason: str | None
    last_error: str | None  # of the last try that failed, while something is tried again
    rows: Rows
    chunks: Chunks
    rate: float | None  # rows per second, of chunks under way too
    eta_seconds: float | None
    usage: Usage
    histogram: dict[str, int]
    agreement: Agreement | None  # null: nothing was computed twice
    row_errors: list[RowErrors]  # the most frequent first; empty in listings
    quality: Quality | None  # null: the model has answered no row
    warnings: list[JobWarning]
    training: Training | None  # null: a job of bulk work

    @classmethod
    def of(cls, view: JobView) -> Self:
        """The progress of one job."""
        return cls(**_progress(view))


class Job(Progress):
    """A job of any kind."""

    id: str
    object: Literal["job"] = "job"
    kind: str
    name: str | None
    error: JobError | None
    skipped: str | None  # why it was cancelled: there was nothing for it to do; null: it was not
    output: JobOutput | ModelOutput | None
    model: str | None
    model_pinned: str | None
    model_digest: str | None
    depends_on: list[JobNeed]
    group: str | None  # the group that it was submitted with
    member: str | None  # its name there
    reading: Reading | None  # null: not planned yet, or the model's folder has no signature
    pool: str
    priority: int
    created_at: datetime
    started_at: datetime | None
    planned_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    schedule: JobSchedule | None  # null: no schedule submitted it
    spec: dict[str, Any]

    @classmethod
    def of(cls, view: JobView) -> Self:
        """One job as its owner sees it."""
        job = view.job
        return cls(
            **_progress(view),
            id=job.id,
            kind=job.kind,
            name=job.spec.get("name"),
            error=JobError.of(job),
            skipped=view.skipped,
            output=_output(view),
            model=job.spec.get("model"),
            model_pinned=job.model_pinned,
            model_digest=job.model_digest,
            depends_on=[JobNeed.of(need) for need in view.needs],
            group=job.group_id,
            member=job.member,
            reading=None if job.reading is None else Reading.model_validate(job.reading),
            pool=job.pool,
            priority=job.priority,
            created_at=job.created_at,
            started_at=job.started_at,
            planned_at=job.planned_at,
            finished_at=job.finished_at,
            expires_at=job.expires_at,
            schedule=None if view.fire is None else JobSchedule.of(view.fire),
            spec=job.spec,
        )


class JobPage(BaseModel):
    """Jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[Job]
    has_more: bool
    first_id: str | None
    last_id: str | None
    total: int | None  # that the filters leave, on all pages; null: more than 10,000

    @classmethod
    def of(cls, views: list[JobView], *, has_more: bool, total: int | None) -> Self:
        """One page."""
        jobs = [Job.of(view) for view in views]
        first, last = (jobs[0].id, jobs[-1].id) if jobs else (None, None)
        return cls(data=jobs, has_more=has_more, first_id=first, last_id=last, total=total)


class FileExtras(BaseModel):
    """What OpenAI's file shape has no place for."""

    sha256: str
    tag: str | None


class File(BaseModel):
    """An uploaded file, in OpenAI's shape."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int  # seconds since 1970
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    nightshift: FileExtras

    @classmethod
    def of(cls, file: tables.File) -> Self:
        """One file."""
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=int(file.created_at.timestamp()),
            filename=file.filename,
            purpose=file.purpose,
            nightshift=FileExtras(sha256=file.sha256, tag=file.tag),
        )


class FilePage(BaseModel):
    """Files, newest first."""

    object: Literal["list"] = "list"
    data: list[File]
    has_more: bool
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, found: list[tables.File], *, has_more: bool) -> Self:
        """One page."""
        files = [File.of(file) for file in found]
        first, last = (files[0].id, files[-1].id) if files else (None, None)
        return cls(data=files, has_more=has_more, first_id=first, last_id=last)


class Chunk(BaseModel):
    """One chunk of a job; the fields of the result are null until it is done."""

    id: int
    object: Literal["chunk"] = "chunk"
    first_row: int
    rows: int
    state: ChunkState
    owner: str | None
    crashes: int
    failures: int
    last_error: str | None
    damage: str | None  # why the part cannot be read; a retry computes the chunk again
    rows_failed: int | None
    bytes: int | None
    sha256: str | None  # of the part; null too where a version before hashes wrote it
    tokens: int | None
    seconds: float | None
    done_at: datetime | None

    @classmethod
    def of(cls, chunk: tables.Chunk) -> Self:
        """One chunk."""
        return cls(
            id=chunk.id,
            first_row=chunk.first_row,
            rows=chunk.rows,
            state=chunk.state,
            owner=chunk.owner,
            crashes=chunk.crashes,
            failures=chunk.failures,
            last_error=chunk.last_error,
            damage=chunk.damage,
            rows_failed=chunk.rows_failed,
            bytes=chunk.part_bytes,
            sha256=chunk.part_sha256,
            tokens=chunk.tokens,
            seconds=chunk.seconds,
            done_at=chunk.done_at,
        )


class ChunkPage(BaseModel):
    """Chunks in row order; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[Chunk]
    has_more: bool
    next: int | None


class ResultPage(BaseModel):
    """Results in the order of the corpus.

    ``next`` is the ``after`` of the next page, and of the next look where rows are still to come.
    ``complete``: the job has ended and nothing follows.
    """

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    next: int | None
    complete: bool


class Verification(BaseModel):
    """Inputs recounted against outputs, from storage; ``ok`` if there are no problems."""

    object: Literal["verification"] = "verification"
    job: str
    ok: bool
    rows_total: int | None
    rows_input: int
    rows_output: int
    rows_failed: int
    missing: int
    duplicated: int
    unhashed: int  # parts of a version that kept no hashes: compared by their counts alone
    problems: list[str]

    @classmethod
    def of(cls, job_id: str, report: VerificationReport) -> Self:
        """The report on one job."""
        return cls(
            job=job_id,
            ok=report.ok,
            rows_total=report.rows_total,
            rows_input=report.rows_input,
            rows_output=report.rows_output,
            rows_failed=report.rows_failed,
            missing=report.missing,
            duplicated=report.duplicated,
            unhashed=report.unhashed,
            problems=list(report.problems),
        )


class Health(BaseModel):
    """The process, or the process and its database, answer."""

    status: Literal["ok"] = "ok"


def _progress(view: JobView) -> dict[str, Any]:
    job, counts = view.job, view.counts
    return {
        "state": job.state,
        "waiting_reason": view.waiting_reason,
        "last_error": view.last_error,
        "rows": Rows(
            total=job.rows_total,
            planned=job.rows_planned,
            done=counts.rows_done,
            under_way=int(counts.under_way),
            failed=counts.rows_failed,
        ),
        "chunks": Chunks(pending=counts.pending, leased=counts.leased, done=counts.done),
        "rate": view.rate,
        "eta_seconds": view.eta_seconds,
        "usage": Usage(tokens=counts.tokens, seconds=counts.seconds),
        "histogram": view.histogram,
        "agreement": _agreement(counts),
        "row_errors": [RowErrors.of(each) for each in view.row_errors],
        "quality": Quality(**vars(counts.quality)) if counts.rows_answered else None,
        "warnings": [JobWarning(**vars(each)) for each in view.warnings],
        "training": Training.of(view.training) if view.training else None,
    }


def _agreement(counts: Counts) -> Agreement | None:
    checked, equal = counts.rows_checked, counts.rows_agreeing
    return Agreement(rows=checked, equal=equal) if checked else None


def _output(view: JobView) -> JobOutput | ModelOutput | None:
    if view.job.output is None:
        return None
    return (ModelOutput if view.training else JobOutput).model_validate(view.job.output)
