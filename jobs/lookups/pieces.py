"""The pieces that a job has, as far as its own row says."""

from __future__ import annotations

from jobs.kinds import TRAINING
from jobs.retention import OF_BULK, OF_TRAINING, Piece
from jobs.tables import Job


def of_job(job: Job) -> frozenset[Piece]:
    """The pieces that a job may have; of one that was never planned, it alone."""
    if not job.rows_planned:
        return frozenset({Piece.JOB})
    if job.kind in TRAINING:
        return OF_TRAINING
    has_rows = bool((job.spec.get("output") or {}).get("postgres"))
    return OF_BULK if has_rows else OF_BULK - {Piece.ROWS}
