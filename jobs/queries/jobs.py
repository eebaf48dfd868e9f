"""Jobs as their owners see them: state, counts, rate, why they wait."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import result_quality as quality_decisions
from jobs.decisions.dependencies import Need
from jobs.decisions.failure_limit import RowErrorGroup
from jobs.decisions.result_quality import QualityCounts, QualityWarning
from jobs.decisions.throughput import Work
from jobs.decisions.waiting_reason import Situation
from jobs.errors import NotFound
from jobs.kinds import BULK, KINDS
from jobs.lookups import chunk_folds, clock, dependencies, row_errors
from jobs.queries import fires, fold_sums, paging, training_progress, waits, work_sums
from jobs.queries.fires import FireOfJob
from jobs.queries.job_filters import JobFilter
from jobs.queries.paging import Order
from jobs.queries.training_progress import TrainingProgress
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, Job

ANY = JobFilter()

MOVING = frozenset({JobState.PLANNING, JobState.RUNNING})
"""States in which chunks are computed."""


@dataclass(frozen=True)
class Counts:
    """Sums over a job's chunks."""

    pending: int = 0
    sent: int = 0  # of those, chunks with a message in the queue
    failing: int = 0  # of those, chunks that wait after a failure
    retry_at: datetime | None = None  # when the first of those is tried again
    leased: int = 0
    expired: int = 0  # of those, chunks whose lease ran out
    done: int = 0
    rows_done: int = 0
    rows_failed: int = 0
    tokens: int = 0
    seconds: float = 0.0
    rows_checked: int = 0
    rows_agreeing: int = 0
    rows_answered: int = 0
    rows_truncated: int = 0
    rows_near_tie: int = 0
    tokens_read: int = 0
    tokens_unknown: int = 0
    last_error: str | None = None
    # For ``jobs.decisions.throughput``.
    work_rows: float = 0.0
    work_seconds: float = 0.0
    busy_seconds: float = 0.0
    age_seconds: float = 0.0
    under_way: float = 0.0
    unreported_seconds: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        pairs = (
            (each.name, getattr(self, each.name), getattr(other, each.name))
            for each in fields(self)
        )
        return Counts(
            **{
                name: one + two if None not in (one, two) else one or two
                for name, one, two in pairs
            }
        )

    @property
    def work(self) -> Work:
        """How much was done lately, and how much is under way."""
        return Work(
            rows=self.work_rows,
            seconds=self.work_seconds,
            busy_seconds=self.busy_seconds,
            age_seconds=self.age_seconds,
            under_way=self.under_way,
            unreported_seconds=self.unreported_seconds,
        )

    @property
    def chunks(self) -> int:
        """All that were not cut in two."""
        return self.pending + self.leased + self.done

    @property
    def quality(self) -> QualityCounts:
        """Counts of truncated rows, unknown tokens and near-ties."""
        return QualityCounts(
            rows=self.rows_answered,
            rows_truncated=self.rows_truncated,
            rows_near_tie=self.rows_near_tie,
            tokens=self.tokens_read,
            tokens_unknown=self.tokens_unknown,
        )


@dataclass(frozen=True)
class JobView:
    """One job in the one shape that every kind has."""

    job: Job
    counts: Counts
    histogram: dict[str, int]
    row_errors: list[RowErrorGroup]  # empty in listings
    situation: Situation | None  # null: it has ended
    now: datetime
    training: TrainingProgress | None  # null: a job of bulk work
    fire: FireOfJob | None  # null: no schedule submitted it
    needs: list[Need]  # jobs that it depends on

    @property
    def waiting_reason(self) -> str | None:
        """Why it does not move; null: it moves or has ended."""
        return self.situation.reason if self.situation else None

    @property
    def rate(self) -> float | None:
        """Rows per second at present, or over the whole run once it has ended.

        A training job has steps instead, see ``TrainingProgress``.
        """
        if self.training:
            return None
        if self.job.finished_at and self.job.started_at:
            span = (self.job.finished_at - self.job.started_at).total_seconds()
            return self.counts.rows_done / span if span > 0 else None
        return self.counts.work.rate

    @property
    def skipped(self) -> str | None:
        """Why it was cancelled because there was nothing for it to do; null: it was not."""
        return self.job.skipped if self.job.state is JobState.CANCELLED else None

    @property
    def last_error(self) -> str | None:
        """Why the last try that failed did, of what is tried again; null: nothing is."""
        return self.job.step_error or self.counts.last_error or self.job.run_error

    @property
    def warnings(self) -> list[QualityWarning]:
        """What makes the results doubtful, as far as they have come."""
        contradicted = (self.job.reading or {}).get("warnings", [])
        return [
            *(QualityWarning("not_as_trained", message) for message in contradicted),
            *quality_decisions.warnings(self.counts.quality, windows=KINDS[self.job.kind].strides),
        ]

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last row or step at the present rate; unknown before planning ended."""
        if self.training:
            return self.training.eta_seconds
        if self.job.rows_total is None or self.job.state not in MOVING:
            return None
        return self.counts.work.eta_seconds(rows_left=self.job.rows_total - self.counts.rows_done)


def get(session: Session, job_id: str, *, project_id: str) -> JobView:
    """The job. Raises ``NotFound``, for another project's job too."""
    job = own_row(session, job_id, project_id=project_id)
    return views(session, [job], histograms=True)[0]


def own_row(session: Session, job_id: str, *, project_id: str) -> Job:
    """The row of a job of the project. Raises ``NotFound``."""
    job = session.scalar(
        sa.select(Job).where(
            Job.id == job_id, Job.project_id == project_id, Job.deleted_at.is_(None)
        )
    )
    if job is None:
        raise NotFound(f"no job {job_id!r} in this project")
    return job


def of_group(session: Session, group_id: str) -> list[JobView]:
    """The members of a group, without their histograms."""
    query = sa.select(Job).where(Job.group_id == group_id, Job.deleted_at.is_(None))
    return views(session, session.scalars(query).all(), histograms=False)


def row(session: Session, job_id: str) -> Job:
    """The job's row. Raises ``NotFound`` where it was deleted since the caller looked it up."""
    job = session.get_one(Job, job_id)
    if job.deleted_at is not None:
        raise NotFound(f"the job {job_id!r} was deleted")
    return job


def page(
    session: Session,
    *,
    project_id: str,
    limit: int,
    after: str | None = None,
    order: Order = Order.DESC,
    wanted: JobFilter = ANY,
) -> tuple[list[JobView], bool]:
    """Jobs by age, beginning behind the job ``after``; and whether there are more.

    The job ``after`` may have been deleted since.
    """
    query = sa.select(Job).where(Job.project_id == project_id, *wanted.conditions())
    place = None if after is None else _place(session, after, project_id=project_id)
    query = paging.sort(query, Job.created_at, Job.id, order=order, after=place)
    jobs, more = paging.page(session, query, limit=limit)
    return views(session, jobs, histograms=False), more


def _place(session: Session, job_id: str, *, project_id: str) -> Sequence[object]:
    query = sa.select(Job.created_at, Job.id)
    place = session.execute(
        query.where(Job.id == job_id, Job.project_id == project_id)
    ).one_or_none()
    if place is None:
        raise NotFound(f"no job {job_id!r} in this project to list after", param="after")
    return place


def views(session: Session, jobs: Sequence[Job], *, histograms: bool) -> list[JobView]:
    """These rows with what is counted and known of them, in the same order."""
    now = clock.now(session)
    found = _counts(session, [job.id for job in jobs])
    counts = {job.id: found.get(job.id, Counts()) for job in jobs}
    situations = waits.situations(session, jobs, counts, now=now)
    needs = dependencies.needs(session, counts)
    trained = training_progress.look(session, jobs, now=now, examples=histograms)
    fired = fires.of_jobs(session, jobs)
    return [
        JobView(
            job=job,
            counts=counts[job.id],
            histogram=histogram(session, job.id) if histograms else {},
            row_errors=_row_errors(session, job) if histograms else [],
            situation=situations.get(job.id),
            now=now,
            training=trained.get(job.id),
            fire=fired.get(job.id),
            needs=needs.get(job.id, []),
        )
        for job in jobs
    ]


def _row_errors(session: Session, job: Job) -> list[RowErrorGroup]:
    """A job that trains has no rows of results."""
    return row_errors.by_code(session, job.id) if job.kind in BULK else []


def _counts(session: Session, job_ids: Sequence[str]) -> dict[str, Counts]:
    """A job of which a part is folded has sums over its rows and sums over its folds."""
    found: dict[str, Counts] = {}
    for row in session.execute(_summed(), {"job_ids": job_ids}):
        values = row._asdict()
        job_id, counts = values.pop("job_id"), Counts(**values)
        found[job_id] = found[job_id] + counts if job_id in found else counts
    return found


_OF_QUALITY = (
    Chunk.rows_answered,
    Chunk.rows_truncated,
    Chunk.rows_near_tie,
    Chunk.tokens_read,
    Chunk.tokens_unknown,
)


@functools.cache  # to build it takes about as long as to run it
def _summed() -> sa.CompoundSelect[*tuple[Any, ...]]:
    """One statement, so that none sees a chunk that is being folded twice, or not at all."""
    return sa.union_all(_summed_rows(), fold_sums.summed())


def _summed_rows() -> sa.Select[*tuple[Any, ...]]:
    now = sa.func.now()
    done, pending = Chunk.state == ChunkState.DONE, Chunk.state == ChunkState.PENDING
    failing = sa.and_(pending, Chunk.not_before > now)
    number, rows = sa.func.count(), sa.func.sum(Chunk.rows)
    return (
        sa.select(
            Chunk.job_id,
            number.filter(pending).label("pending"),
            number.filter(pending, Chunk.dispatched_at.is_not(None)).label("sent"),
            number.filter(failing).label("failing"),
            sa.func.min(Chunk.not_before).filter(failing).label("retry_at"),
            number.filter(Chunk.state == ChunkState.LEASED).label("leased"),
            number.filter(Chunk.lease_expires_at < now).label("expired"),
            number.filter(done).label("done"),
            _integer(rows.filter(done)).label("rows_done"),
            _integer(sa.func.sum(Chunk.rows_failed)).label("rows_failed"),
            _integer(sa.func.sum(Chunk.tokens)).label("tokens"),
            sa.func.coalesce(sa.func.sum(Chunk.seconds), 0.0).label("seconds"),
            _integer(sa.func.sum(Chunk.rows_checked)).label("rows_checked"),
            _integer(sa.func.sum(Chunk.rows_agreeing)).label("rows_agreeing"),
            *(_integer(sa.func.sum(each)).label(each.key) for each in _OF_QUALITY),
            sa.func.max(Chunk.last_error).filter(failing).label("last_error"),
            *work_sums.columns(),
        )
        .where(
            Chunk.job_id.in_(sa.bindparam("job_ids", expanding=True)),
            Chunk.state
            != ChunkState.SPLIT,  # their rows are in others; the index leaves them out as well
        )
        .group_by(Chunk.job_id)
    )


def _integer(value: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.coalesce(value, 0), sa.BigInteger)


def histogram(session: Session, job_id: str) -> dict[str, int]:
    """Rows per best label so far, most frequent first."""
    return dict(session.execute(_by_label(), {"job_id": job_id}).all())


@functools.cache
def _by_label() -> sa.Select[str, int]:
    done = chunk_folds.done_chunks(sa.bindparam("job_id"))
    entry = sa.func.jsonb_each(done.c.histogram).table_valued("key", "value").render_derived()
    total = sa.cast(sa.func.sum(sa.cast(entry.c.value, sa.BigInteger)), sa.BigInteger)
    return (
        sa.select(entry.c.key, total)
        .select_from(done)
        .join(entry, sa.true())
        .group_by(entry.c.key)
        .order_by(total.desc(), entry.c.key)
    )
