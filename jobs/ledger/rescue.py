"""Chunks whose worker died: back to pending, cut in two, or condemned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.decisions import crash_policy
from jobs.decisions.crash_policy import CrashVerdict, Phase
from jobs.ledger import events, transitions
from jobs.lookups import predicates
from jobs.states import ChunkState
from jobs.tables import Chunk, Job

BATCH = 500


@dataclass(frozen=True)
class Rescued:
    """What one turn did: chunks by verdict."""

    again: int = 0
    split: int = 0
    condemned: int = 0

    @property
    def chunks(self) -> int:
        """All of them."""
        return self.again + self.split + self.condemned


def rescue_expired(session: Session) -> Rescued:
    """Apply the crash policy to chunks whose lease has expired, at most ``BATCH`` at a time."""
    chunks = session.scalars(
        sa.select(Chunk)
        .where(predicates.chunk_lease_expired())
        .order_by(Chunk.lease_expires_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    verdicts = [
        _apply(session, chunk, reason=crash_policy.went_silent(str(chunk.owner)))
        for chunk in chunks
    ]
    return Rescued(
        again=verdicts.count(CrashVerdict.RETRY),
        split=verdicts.count(CrashVerdict.SPLIT),
        condemned=verdicts.count(CrashVerdict.CONDEMN),
    )


def report_crash(
    session: Session, chunk_id: int, *, owner: str, reason: str
) -> CrashVerdict | None:
    """Judge a chunk whose worker was seen to die; ``None`` if that owner does not hold it."""
    chunk = _held(session, chunk_id, owner=owner)
    return None if chunk is None else _apply(session, chunk, reason=reason)


def report_load_death(
    session: Session, chunk_id: int, *, owner: str, phase: Phase, timed_out: bool, reason: str
) -> CrashVerdict | None:
    """Judge a chunk whose worker died before its first row: no row is suspected."""
    chunk = _held(session, chunk_id, owner=owner)
    if chunk is None:
        return None
    chunk.load_crashes += 1
    chunk.last_error = reason[:2000]
    chunk.owner = chunk.lease_expires_at = chunk.dispatched_at = None
    chunk.state = ChunkState.PENDING
    verdict = crash_policy.judge_load(phase, crashes=chunk.load_crashes)
    session.flush()
    _record(session, chunk, verdict)
    if verdict is CrashVerdict.FAIL_JOB:
        code, message = crash_policy.load_failure(phase, timed_out=timed_out, reason=reason)
        transitions.fail(session, chunk.job_id, code=code, message=message)
    return verdict


def release(session: Session, *, owners: Collection[str]) -> int:
    """Release what healthy processes hold that are about to be ended; no crash is counted."""
    chunks = session.scalars(
        sa.update(Chunk)
        .where(Chunk.state == ChunkState.LEASED, Chunk.owner.in_(owners))
        .values(state=ChunkState.PENDING, owner=None, lease_expires_at=None, dispatched_at=None)
        .returning(Chunk.id)
    ).all()
    steps = session.scalars(
        sa.update(Job)
        .where(Job.step_owner.in_(owners))
        .values(step_fence=Job.step_fence + 1, step_owner=None, step_lease_expires_at=None)
        .returning(Job.id)
    ).all()
    events.wake_control(session)
    return len(chunks) + len(steps)


def _held(session: Session, chunk_id: int, *, owner: str) -> Chunk | None:
    return session.scalar(
        sa.select(Chunk)
        .where(Chunk.id == chunk_id, Chunk.state == ChunkState.LEASED, Chunk.owner == owner)
        .with_for_update()
    )


def _apply(session: Session, chunk: Chunk, *, reason: str) -> CrashVerdict:
    chunk.crashes += 1
    chunk.last_error = reason[:2000]
    chunk.owner = chunk.lease_expires_at = chunk.dispatched_at = None
    verdict = crash_policy.judge(rows=chunk.rows, crashes=chunk.crashes)
    chunk.state = ChunkState.SPLIT if verdict is CrashVerdict.SPLIT else ChunkState.PENDING
    chunk.condemned = verdict is CrashVerdict.CONDEMN
    session.flush()
    if verdict is CrashVerdict.SPLIT:
        _split(session, chunk)
    _record(session, chunk, verdict)
    return verdict


def _record(session: Session, chunk: Chunk, verdict: CrashVerdict) -> None:
    events.record(
        session,
        job_id=chunk.job_id,
        type="worker_died",
        chunk=chunk.id,
        rows=[chunk.first_row, chunk.first_row + chunk.rows - 1],
        verdict=verdict,
        reason=chunk.last_error,
    )


def _split(session: Session, chunk: Chunk) -> None:
    session.execute(
        insert(Chunk),
        [
            {
                "job_id": chunk.job_id,
                "shard_index": chunk.shard_index,
                "number": chunk.number,
                "first_row": first_row,
                "rows": rows,
                "crashes": crash_policy.inherited_crashes(rows=rows),
                "last_error": chunk.last_error,
                "retried_part": chunk.retried_part,
                "part_sha256": chunk.part_sha256,
            }
            for first_row, rows in crash_policy.halves(first_row=chunk.first_row, rows=chunk.rows)
        ],
    )
