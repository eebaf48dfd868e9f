"""What of an ended job may go, and when to look again: pure (docs/retention.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobs import retention
from jobs.retention import FOREVER, Periods, Piece
from jobs.states import JobState


@dataclass(frozen=True)
class EndedJob:
    """What the decision depends on."""

    state: JobState
    finished_at: datetime
    pieces: frozenset[Piece]  # that a job of its kind may have
    removed: frozenset[Piece] = frozenset()
    kept: bool = False


@dataclass(frozen=True)
class RetentionVerdict:
    """The pieces that are due, and when the next one is; null: none ever is."""

    due: frozenset[Piece]
    look_at: datetime | None


def decide(job: EndedJob, periods: Periods, *, now: datetime) -> RetentionVerdict:
    """The pieces whose period is over. Where the whole job is due, it alone."""
    if job.kept:
        return RetentionVerdict(frozenset(), None)
    ends = goes_at(job, periods)
    due = frozenset(piece for piece, at in ends.items() if at <= now)
    if Piece.JOB in due:
        return RetentionVerdict(frozenset({Piece.JOB}), None)
    return RetentionVerdict(due, min((at for at in ends.values() if at > now), default=None))


def goes_at(job: EndedJob, periods: Periods) -> dict[Piece, datetime]:
    """When each piece goes that is there; those that stay forever are left out."""
    found = {}
    for piece in sorted(job.pieces - job.removed):
        period = retention.of_piece(periods, piece, job.state)
        if period != FOREVER:
            found[piece] = job.finished_at + period
    return found
