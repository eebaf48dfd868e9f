"""What the API answers about retention and storage. Periods are texts: ``30d``, ``forever``."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel

from jobs import retention
from jobs.decisions.stored_objects import ObjectKind
from jobs.queries.retention import JobKeeping
from jobs.queries.storage import Usage as Measured
from jobs.retention import Piece, Retention


class ProjectRetention(BaseModel):
    """How long things of the project are kept."""

    object: Literal["retention"] = "retention"
    project: dict[str, str]  # as it was set; what is not here is as the installation says
    effective: dict[str, str]  # what holds, a period for each field

    @classmethod
    def of(cls, policy: Retention, *, defaults: Retention) -> Self:
        """The policy of a project."""
        periods = retention.effective(defaults, policy)
        return cls(project=retention.dumped(policy), effective=retention.in_words(periods))


class PieceOfJob(BaseModel):
    """A piece of a job, and when it goes or went."""

    piece: Piece
    at: datetime


class JobKept(BaseModel):
    """How long one job and its pieces are kept."""

    object: Literal["job.retention"] = "job.retention"
    job: str
    keep: bool
    own: dict[str, str]  # the periods of this job alone
    effective: dict[str, str]
    removed: list[PieceOfJob]
    goes: list[PieceOfJob]  # empty while the job has not ended, or is kept

    @classmethod
    def of(cls, job_id: str, keeping: JobKeeping) -> Self:
        """What holds for one job."""
        fields = retention.JobPeriods.model_fields
        periods = {name: each for name, each in keeping.periods.items() if name in fields}
        return cls(
            job=job_id,
            keep=keeping.kept,
            own=retention.dumped(keeping.own),
            effective=retention.in_words(periods),
            removed=_pieces(keeping.removed),
            goes=_pieces(keeping.goes),
        )


class KindUsage(BaseModel):
    """Objects of one kind."""

    kind: ObjectKind
    objects: int
    bytes: int


class StorageUsage(BaseModel):
    """What the project has in the object store, as it was counted last."""

    object: Literal["storage.usage"] = "storage.usage"
    measured_at: datetime | None  # null: it was not counted yet
    objects: int
    bytes: int
    data: list[KindUsage]  # the largest first

    @classmethod
    def of(cls, usage: Measured) -> Self:
        """The usage of one project."""
        kinds = [
            KindUsage(kind=each.kind, objects=each.objects, bytes=each.bytes)
            for each in usage.kinds
        ]
        return cls(
            measured_at=usage.measured_at,
            objects=sum(each.objects for each in kinds),
            bytes=sum(each.bytes for each in kinds),
            data=sorted(kinds, key=lambda each: -each.bytes),
        )


def _pieces(found: dict[Piece, datetime]) -> list[PieceOfJob]:
    return [PieceOfJob(piece=piece, at=found[piece]) for piece in sorted(found)]
