"""What the planner writes: shards with their chunks, or a data set; and the end of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import CorpusFailure
from jobs.inputs import ReadInput
from jobs.kinds import DatasetSplit
from jobs.kinds.datasets import Dataset
from jobs.ledger import events, inputs, step_leases, transitions
from jobs.ledger.step_leases import StepLease
from jobs.models.signatures import Reading
from jobs.states import JobState
from jobs.tables import Chunk, Job, Shard

NOTHING_READ: Mapping[str, Sequence[ReadInput]] = {}


@dataclass(frozen=True)
class PlannedShard:
    """A shard whose object is complete, and the sizes of its chunks in order."""

    index: int
    object_key: str
    first_row: int
    chunk_rows: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows in the shard."""
        return sum(self.chunk_rows)


@dataclass(frozen=True)
class DataShard:
    """A shard of a training job's data, whose object is complete."""

    split: DatasetSplit
    object_key: str
    sha256: str
    first_row: int  # place in its corpus; rows that were rejected count
    rows: int


@dataclass(frozen=True)
class PlanProgress:
    """How far an earlier planner came: the next shard's index and first row."""

    shards: int
    rows: int


def begin(
    session: Session,
    lease: StepLease,
    *,
    fingerprint: str,
    model_digest: str,
    embedding_width: int | None = None,
    reading: Reading | None = None,
) -> PlanProgress:
    """Pin what the job reads, or find it changed since an earlier planner began."""
    step_leases.confirm(session, lease)
    job = session.get_one(Job, lease.job_id)
    if job.corpus_fingerprint not in (None, fingerprint):
        raise CorpusFailure(
            "the corpus changed while it was being planned; submit it as a new job",
            code="corpus_changed",
        )
    job.corpus_fingerprint = fingerprint
    job.model_digest = job.model_digest or model_digest
    job.embedding_width = job.embedding_width or embedding_width
    if reading is not None and job.reading is None:
        job.reading = _recorded(session, lease, reading)
    shards = session.scalar(
        sa.select(sa.func.count()).select_from(Shard).where(Shard.job_id == lease.job_id)
    )
    return PlanProgress(shards=shards or 0, rows=job.rows_planned)


def _recorded(session: Session, lease: StepLease, reading: Reading) -> dict[str, Any]:
    """The reading as the job stores it; records it as an event."""
    warnings = list(reading.warnings)
    events.record(
        session, job_id=lease.job_id, type="reading", words=reading.words, warnings=warnings
    )
    return reading.model_dump(mode="json")


def add_shard(session: Session, lease: StepLease, shard: PlannedShard) -> None:
    """Make a shard's chunks claimable. Raises ``LeaseLost`` for a planner that was replaced."""
    step_leases.confirm(session, lease)
    session.execute(
        insert(Shard).values(
            job_id=lease.job_id,
            index=shard.index,
            object_key=shard.object_key,
            first_row=shard.first_row,
            rows=shard.rows,
        )
    )
    planned = session.scalar(
        sa.update(Job)
        .where(Job.id == lease.job_id)
        .values(
            rows_planned=Job.rows_planned + shard.rows,
            chunks_planned=Job.chunks_planned + len(shard.chunk_rows),
            step_error=None,
            step_failures=0,
            step_failing_since=None,
        )
        .returning(Job.chunks_planned)
    )
    session.execute(insert(Chunk), list(_chunks(lease.job_id, shard, planned=planned)))
    events.wake_control(session)


def complete(
    session: Session, lease: StepLease, *, read: Mapping[str, Sequence[ReadInput]] = NOTHING_READ
) -> None:
    """Every row is in a chunk: the job runs. Raises ``LeaseLost``."""
    step_leases.confirm(session, lease)
    _record_read(session, lease, read)
    _run(session, lease, rows_total=Job.rows_planned)


def end_empty(
    session: Session,
    lease: StepLease,
    *,
    reason: str,
    read: Mapping[str, Sequence[ReadInput]] = NOTHING_READ,
) -> None:
    """The job has no rows and is skipped, and so is its fire if it is the only one of that.

    Raises ``LeaseLost``.
    """
    step_leases.confirm(session, lease)
    _record_read(session, lease, read)
    transitions.skip(session, lease.job_id, reason=reason)


def _record_read(
    session: Session, lease: StepLease, read: Mapping[str, Sequence[ReadInput]]
) -> None:
    for split, found in read.items():
        inputs.record_read(session, lease.job_id, split=split, read=found)


def complete_dataset(
    session: Session,
    lease: StepLease,
    *,
    shards: Sequence[DataShard],
    dataset: Dataset,
    model_digest: str | None,
    reading: Reading | None = None,
    read: Mapping[str, Sequence[ReadInput]] = NOTHING_READ,
) -> None:
    """All of a training job's data is written: the job runs. Until now the ledger had none of it.

    Shards are numbered in this order. Raises ``LeaseLost`` for a planner that was replaced.
    """
    step_leases.confirm(session, lease)
    rows = ({"job_id": lease.job_id, "index": i} | vars(each) for i, each in enumerate(shards))
    session.execute(insert(Shard), list(rows))
    _record_read(session, lease, read)
    _run(
        session,
        lease,
        dataset=dataset.as_json(),
        corpus_fingerprint=dataset.fingerprint,
        model_digest=model_digest,
        reading=None if reading is None else _recorded(session, lease, reading),
        rows_planned=dataset.rows,
        rows_total=dataset.rows,
    )


def _run(session: Session, lease: StepLease, **values: Any) -> None:
    transitions.move(
        session,
        lease.job_id,
        JobState.RUNNING,
        planned_at=sa.func.now(),
        step_owner=None,
        step_lease_expires_at=None,
        **{**transitions.STEP_FAILURES_CLEARED, **values},
    )


def _chunks(
    job_id: str, shard: PlannedShard, *, planned: int | None
) -> Iterable[dict[str, object]]:
    """``planned``: chunks of the job, these included; ``None``: they are not numbered."""
    first_row = shard.first_row
    for place, rows in enumerate(shard.chunk_rows, start=1):
        yield {
            "job_id": job_id,
            "shard_index": shard.index,
            "number": None if planned is None else planned - len(shard.chunk_rows) + place,
            "first_row": first_row,
            "rows": rows,
        }
        first_row += rows
