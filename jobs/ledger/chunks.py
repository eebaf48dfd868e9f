"""Leases on chunks: claim, renew, commit, release. ``rescue`` and ``controls`` move other chunks.

A claim is one short transaction, the work runs outside of any, and a commit is another, guarded by
id, state and fence. A worker with an old fence changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from jobs import kinds
from jobs.decisions import crash_policy, faults
from jobs.decisions.faults import Blame, Diagnosis, RetryLimits
from jobs.decisions.result_quality import QualityCounts
from jobs.errors import LeaseLost
from jobs.ledger import result_rows, transitions
from jobs.lookups import clock, predicates
from jobs.progress import WorkMeter
from jobs.states import CLAIMABLE, ChunkState, JobState
from jobs.tables import Chunk, Job, Shard

_LEASE_CLEARED: dict[str, None] = {"owner": None, "lease_expires_at": None, "dispatched_at": None}

COMMITTABLE = (*CLAIMABLE, JobState.PAUSED, JobState.CANCELLING)
"""A chunk under way may be committed while its job is paused or being cancelled."""


@dataclass(frozen=True)
class ChunkLease:
    """The right to work on one chunk, and all that is needed to do so."""

    chunk_id: int
    fence: int
    owner: str
    job_id: str
    project_id: str
    spec: kinds.AnyBulk
    model_pinned: str | None  # what a registry reference meant at accept; null: it is none
    model_digest: str
    embedding_width: int | None  # of an embed job
    shard_key: str
    offset: int  # of the first row within the shard
    first_row: int
    rows: int
    condemned: bool
    last_error: str | None
    retried_part: str | None
    retried_sha256: str | None = None  # of that part; null: it has none
    waited_seconds: float | None = None  # since its message was sent; null: no message is on record

    @property
    def model(self) -> str:
        """The reference to load: the pinned one, if the spec's can move."""
        return self.model_pinned or self.spec.model


@dataclass(frozen=True)
class PartRecord:
    """The part of a chunk, as the commit records it."""

    key: str
    bytes: int
    rows: int
    rows_failed: int
    tokens: int
    engine_seconds: float  # in the engine, without loading it
    histogram: dict[str, int]
    rows_checked: int = 0  # of an int8 job: whose text was computed in float32 as well
    rows_agreeing: int = 0  # of those, with the same labels both times
    errors: dict[str, Any] = field(default_factory=dict)  # as in the table of chunks
    quality: QualityCounts = field(default_factory=QualityCounts)  # of the rows computed for it
    profile: dict[str, Any] = field(default_factory=dict)  # of all rows, as in the table of chunks
    sha256: str | None = None  # of the object
    elapsed_seconds: float | None = None  # since the first row was begun; None: ``engine_seconds``


def claim(session: Session, chunk_id: int, *, owner: str, duration: timedelta) -> ChunkLease | None:
    """The lease; ``None``: the chunk is not pending, backs off, or its job takes no claims.

    A process works on one chunk at a time. If it claims one that it holds already, the answer to
    its first claim was lost: it gets the chunk under a new fence.
    """
    row = _taken(session, chunk_id, owner=owner, duration=duration)
    if row is None:
        return None
    return ChunkLease(
        chunk_id=row.id,
        fence=row.fence,
        owner=owner,
        job_id=row.job_id,
        project_id=row.project_id,
        spec=kinds.bulk(row.spec),
        model_pinned=row.model_pinned,
        model_digest=row.model_digest or "",
        embedding_width=row.embedding_width,
        shard_key=row.object_key,
        offset=row.first_row - row.shard_row,
        first_row=row.first_row,
        rows=row.rows,
        condemned=row.condemned,
        last_error=row.last_error,
        retried_part=row.retried_part,
        retried_sha256=row.part_sha256,
        waited_seconds=row.waited,
    )


def _taken(
    session: Session, chunk_id: int, *, owner: str, duration: timedelta
) -> sa.Row[*tuple[Any, ...]] | None:
    """Lease the chunk: it, its job and its shard, and how long its message was under way."""
    before = aliased(Chunk)
    waited = sa.cast(sa.extract("epoch", sa.func.now() - before.dispatched_at), sa.Double)
    return session.execute(
        sa.update(Chunk)
        .where(
            Chunk.id == chunk_id,
            before.id == Chunk.id,
            sa.or_(
                sa.and_(Chunk.state == ChunkState.PENDING, predicates.chunk_due()),
                sa.and_(Chunk.state == ChunkState.LEASED, Chunk.owner == owner),
            ),
            Job.id == Chunk.job_id,
            Job.state.in_(CLAIMABLE),
            Shard.job_id == Chunk.job_id,
            Shard.index == Chunk.shard_index,
        )
        .values(
            state=ChunkState.LEASED,
            fence=Chunk.fence + 1,
            owner=owner,
            lease_expires_at=sa.func.now() + duration,
            dispatched_at=None,
            claimed_at=sa.func.now(),
            begun_at=sa.func.now(),  # a worker that has to load its model first reports null
            fraction_done=0.0,
            reported_at=sa.func.now(),
        )
        .returning(
            *(Chunk.id, Chunk.fence, Chunk.job_id, Chunk.first_row, Chunk.rows),
            *(Chunk.condemned, Chunk.last_error, Chunk.retried_part, Chunk.part_sha256),
            *(Job.project_id, Job.spec, Job.model_pinned, Job.model_digest),
            Job.embedding_width,
            *(Shard.object_key, Shard.first_row.label("shard_row"), waited.label("waited")),
        )
    ).one_or_none()


def renew(
    session: Session, lease: ChunkLease, *, duration: timedelta, work: WorkMeter | None = None
) -> JobState | None:
    """Renew the lease; returns the job's state, or ``None`` when the lease is lost.

    A lease that expired but was not taken is still ours: the fence decides, not the clock.
    ``work``: how much of the chunk is done.
    """
    return session.scalar(
        sa.update(Chunk)
        .where(*_ours(lease), Job.id == Chunk.job_id)
        .values(lease_expires_at=sa.func.now() + duration, **_progress(work))
        .returning(Job.state)
    )


def _progress(work: WorkMeter | None) -> dict[str, Any]:
    if work is None:
        return {}
    if work.seconds is None:
        return {"begun_at": None, "fraction_done": None, "reported_at": None}
    begun_at = clock.seconds_ago(work.seconds)
    return {"begun_at": begun_at, "fraction_done": work.fraction_done, "reported_at": sa.func.now()}


def commit(
    session: Session,
    lease: ChunkLease,
    part: PartRecord,
    *,
    results: Iterable[tuple[Any, ...]] = (),
) -> None:
    """Make the part the chunk's result.

    Raises ``LeaseLost`` under an old fence, or if the job no longer takes results. Repeating a
    commit that went through, but whose answer was lost, is no error. ``results`` are rows of
    ``result_rows``, in the order of their ``COLUMNS``, which are written in the same transaction.
    """
    # FOR SHARE: other chunks may be committed meanwhile, and the job cannot change its state.
    state = session.scalar(
        sa.select(Job.state).where(Job.id == lease.job_id).with_for_update(read=True)
    )
    if state not in COMMITTABLE or not _finish(session, lease, part):
        if _already_committed(session, lease, part):
            return
        raise LeaseLost(
            f"chunk {lease.chunk_id} of {lease.job_id}: fence {lease.fence} is void "
            f"(the job is {state}); the part is thrown away"
        )
    if lease.spec.output.postgres:
        result_rows.replace(
            session, lease.job_id, first_row=lease.first_row, rows=lease.rows, results=results
        )


def release(session: Session, lease: ChunkLease) -> bool:
    """Release the lease; the chunk is pending again."""
    return _requeue(session, lease)


def release_after_fault(
    session: Session, lease: ChunkLease, diagnosis: Diagnosis, *, limits: RetryLimits
) -> bool:
    """Release the lease after a fault, and let the chunk back off; ``True``: the job failed.

    No death is counted: the process that calls this is alive. One that was counted because it was
    silent for longer than its lease is taken back.
    """
    chunk = session.scalar(sa.select(Chunk).where(*_ours(lease)).with_for_update())
    if chunk is None:
        _take_back_death(session, lease)
        return False
    if diagnosis.blame is Blame.LEASE:
        _requeue(session, lease)
        return False
    now = clock.now(session)
    since, failures = chunk.failing_since or now, chunk.failures + 1
    engine_faults = chunk.engine_faults + (diagnosis.blame is Blame.ENGINE)
    _requeue(
        session,
        lease,
        failures=failures,
        failing_since=since,
        engine_faults=engine_faults,
        last_error=diagnosis.message,
        not_before=now + faults.backoff(failures),
    )
    tries = engine_faults if diagnosis.blame is Blame.ENGINE else failures
    if not faults.should_fail_job(
        diagnosis.blame, tries=tries, failing_for=now - since, limits=limits
    ):
        return False
    message = faults.failure_message(diagnosis, tries=tries, failing_for=now - since)
    transitions.fail(session, lease.job_id, code=diagnosis.code, message=message)
    return True


def _take_back_death(session: Session, lease: ChunkLease) -> None:
    """Decision 0040. A chunk that was split or condemned meanwhile stays so."""
    session.execute(
        sa.update(Chunk)
        .where(
            Chunk.id == lease.chunk_id,
            Chunk.state != ChunkState.SPLIT,
            ~Chunk.condemned,
            Chunk.crashes > 0,
            Chunk.last_error == crash_policy.went_silent(lease.owner),
        )
        .values(crashes=Chunk.crashes - 1, last_error=crash_policy.came_back(lease.owner))
    )


def _requeue(session: Session, lease: ChunkLease, **values: Any) -> bool:
    released = session.scalar(
        sa.update(Chunk)
        .where(*_ours(lease))
        .values(state=ChunkState.PENDING, **_LEASE_CLEARED, **values)
        .returning(Chunk.id)
    )
    return released is not None


def _ours(lease: ChunkLease) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Chunk.id == lease.chunk_id,
        Chunk.state == ChunkState.LEASED,
        Chunk.fence == lease.fence,
    )


def _finish(session: Session, lease: ChunkLease, part: PartRecord) -> bool:
    done = session.scalar(
        sa.update(Chunk)
        .where(*_ours(lease))
        .values(
            state=ChunkState.DONE,
            **_LEASE_CLEARED,
            retried_part=None,
            failing_since=None,
            engine_faults=0,
            part_key=part.key,
            part_bytes=part.bytes,
            part_sha256=part.sha256,
            damage=None,
            rows_failed=part.rows_failed,
            tokens=sa.func.coalesce(Chunk.tokens, 0) + part.tokens,
            seconds=sa.func.coalesce(Chunk.seconds, 0) + part.engine_seconds,
            histogram=part.histogram,
            rows_checked=part.rows_checked,
            rows_agreeing=part.rows_agreeing,
            errors=part.errors,
            profile=part.profile,
            **_accumulated(part.quality),
            begun_at=clock.seconds_ago(
                part.engine_seconds if part.elapsed_seconds is None else part.elapsed_seconds
            ),
            fraction_done=None,
            reported_at=None,
            done_at=sa.func.now(),
        )
        .returning(Chunk.id)
    )
    return done is not None


def _accumulated(quality: QualityCounts) -> dict[str, sa.ColumnElement[int]]:
    counts = {
        Chunk.rows_answered: quality.rows,
        Chunk.rows_truncated: quality.rows_truncated,
        Chunk.rows_near_tie: quality.rows_near_tie,
        Chunk.tokens_read: quality.tokens,
        Chunk.tokens_unknown: quality.tokens_unknown,
    }
    return {column.key: sa.func.coalesce(column, 0) + count for column, count in counts.items()}


def _already_committed(session: Session, lease: ChunkLease, part: PartRecord) -> bool:
    return (
        session.scalar(
            sa.select(Chunk.id).where(
                Chunk.id == lease.chunk_id,
                Chunk.state == ChunkState.DONE,
                Chunk.part_key == part.key,
            )
        )
        is not None
    )
