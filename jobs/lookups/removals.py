"""Which pieces of a job retention has removed."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.retention import Piece
from jobs.tables import Removal

_WHAT = {
    Piece.PARTS: ("results", "results_removed"),
    Piece.OUTPUTS: ("output file", "output_removed"),
}
"""What a request misses, and the code that says so."""


def of_job(session: Session, job_id: str) -> dict[Piece, datetime]:
    """Each removed piece, and when it was removed."""
    query = sa.select(Removal.piece, Removal.at).where(Removal.job_id == job_id)
    return {Piece(piece): at for piece, at in session.execute(query)}


def check(session: Session, job_id: str, *needed: Piece) -> None:
    """Raise ``NotFound`` if a piece that a request needs was removed."""
    gone = of_job(session, job_id)
    for piece in needed:
        if piece in gone:
            what, code = _WHAT[piece]
            raise NotFound(
                f"the {what} of {job_id} went on {gone[piece]:%Y-%m-%d}, as the project's "
                f"retention says: /v1/jobs/{job_id}/retention",
                code=code,
            )
