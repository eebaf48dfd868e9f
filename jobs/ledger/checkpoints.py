"""Checkpoints: a part from each host, then the row that makes them count, under the fence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.ledger import events, ranks
from jobs.ledger.ranks import RankLease
from jobs.lookups import predicates
from jobs.tables import Checkpoint, CheckpointPart


def add_part(session: Session, lease: RankLease, *, step: int, files: list[dict[str, Any]]) -> None:
    """Record what this rank's host has uploaded. Raises ``LeaseLost``; repeating is harmless."""
    ranks.confirm(session, lease)
    session.execute(
        insert(CheckpointPart)
        .values(run_id=lease.run_id, step=step, rank=lease.rank, files=files)
        .on_conflict_do_update(
            index_elements=[CheckpointPart.run_id, CheckpointPart.step, CheckpointPart.rank],
            set_={"files": files},
        )
    )


def complete(
    session: Session,
    lease: RankLease,
    *,
    step: int,
    metric: float | None,
    best: bool,
    manifest_key: str,
    manifest_sha256: str,
    size: int,
) -> None:
    """Let the checkpoint count. Raises ``LeaseLost``: then it never does; repeating is harmless.

    It does not count the parts: ``CheckpointUploader._complete`` of rank 0 calls this when the part
    of every host is there, with the manifest that it wrote of them.
    """
    ranks.confirm(session, lease)
    new = session.scalar(
        insert(Checkpoint)
        .values(
            job_id=lease.job_id,
            run_id=lease.run_id,
            step=step,
            metric=metric,
            best=best,
            manifest_key=manifest_key,
            manifest_sha256=manifest_sha256,
            bytes=size,
        )
        .on_conflict_do_nothing(index_elements=[Checkpoint.run_id, Checkpoint.step])
        .returning(Checkpoint.id)
    )
    if new is not None:
        events.record(
            session,
            job_id=lease.job_id,
            type="checkpoint",
            run=lease.fence,
            step=step,
            metric=metric,
        )


def mark_damaged(session: Session, lease: RankLease, checkpoint_id: int, *, reason: str) -> None:
    """Pass over this one from now on. Raises ``LeaseLost``."""
    ranks.confirm(session, lease)
    step = session.scalar(
        sa.update(Checkpoint)
        .where(Checkpoint.id == checkpoint_id, Checkpoint.damaged_at.is_(None))
        .values(damaged_at=sa.func.now())
        .returning(Checkpoint.step)
    )
    if step is not None:
        events.record(
            session, job_id=lease.job_id, type="checkpoint_damaged", step=step, reason=reason[:500]
        )


def mark_deleted(session: Session, lease: RankLease, checkpoint_ids: Sequence[int]) -> None:
    """Say that these are not kept, before their objects go. Raises ``LeaseLost``."""
    ranks.confirm(session, lease)
    session.execute(
        sa.update(Checkpoint)
        .where(Checkpoint.id.in_(checkpoint_ids))
        .values(deleted_at=sa.func.now())
    )


def newest(session: Session, job_id: str) -> Checkpoint | None:
    """The complete checkpoint of the highest step that is neither damaged nor deleted."""
    query = (
        sa.select(Checkpoint)
        .where(Checkpoint.job_id == job_id, predicates.checkpoint_usable())
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
        .limit(1)
    )
    return session.scalar(query)
