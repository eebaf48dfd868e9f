"""Checkpoints of a job: what can be resumed from, what need not be kept."""

from __future__ import annotations

from itertools import islice

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import predicates
from jobs.tables import Checkpoint, CheckpointPart


def best(session: Session, job_id: str, *, up_to_step: int) -> Checkpoint | None:
    """The newest that was the best when it was made, not later than a step."""
    query = (
        sa.select(Checkpoint)
        .where(
            Checkpoint.job_id == job_id,
            Checkpoint.best,
            Checkpoint.step <= up_to_step,
            predicates.checkpoint_usable(),
        )
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
        .limit(1)
    )
    return session.scalar(query)


def get(session: Session, checkpoint_id: int) -> Checkpoint | None:
    """One of them, unless it is damaged or deleted."""
    return session.scalar(
        sa.select(Checkpoint).where(Checkpoint.id == checkpoint_id, predicates.checkpoint_usable())
    )


def listing(session: Session, job_id: str) -> list[Checkpoint]:
    """All that were ever complete, newest first."""
    return list(
        session.scalars(
            sa.select(Checkpoint)
            .where(Checkpoint.job_id == job_id)
            .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
        )
    )


def parts(session: Session, run_id: str, step: int) -> list[CheckpointPart]:
    """What the hosts have uploaded of a checkpoint so far, by rank."""
    return list(
        session.scalars(
            sa.select(CheckpointPart)
            .where(CheckpointPart.run_id == run_id, CheckpointPart.step == step)
            .order_by(CheckpointPart.rank)
        )
    )


def dispensable(session: Session, job_id: str, *, keep: int) -> list[Checkpoint]:
    """All but the newest ``keep``, and the best that there was when each of those was made.

    A run that falls back past a damaged one needs the best of that time.
    """
    usable = [each for each in listing(session, job_id) if each.deleted_at is None]
    whole = [each for each in usable if each.damaged_at is None]
    kept = {each.id for each in whole[:keep]}
    for last in whole[:keep]:
        best_then = (each.id for each in whole if each.best and each.step <= last.step)
        kept |= set(islice(best_then, 1))
    return [each for each in usable if each.id not in kept]


def has_later_part(session: Session, run_id: str, step: int) -> bool:
    """Whether some host has gone on to a later checkpoint without one of this step."""
    later = sa.select(CheckpointPart.rank).where(
        CheckpointPart.run_id == run_id, CheckpointPart.step > step
    )
    has_this = sa.select(CheckpointPart.rank).where(
        CheckpointPart.run_id == run_id, CheckpointPart.step == step
    )
    return session.scalar(later.where(CheckpointPart.rank.not_in(has_this)).limit(1)) is not None
